"""Paths for TensorFlow, and files of metrics."""

import os
import pathlib
import sys
import types

import pytest
import tensorflow as tf

from tf_simclr import files


@pytest.mark.parametrize("name", ["a[1]", "a*b", "a?b", "a\\b", os.fsdecode(b"caf\xe9")])
def test_a_path_that_tensorflow_misreads_is_reached_by_another_name(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    path = files.for_tensorflow(folder / "inside.txt")
    assert files.reads_as_written(path) and not files.reads_as_written(str(folder))
    tf.io.write_file(path, "written")
    assert (folder / "inside.txt").read_text() == "written"
    assert os.path.samefile(files.for_tensorflow(folder), folder)
    new = files.for_tensorflow(folder / "new" / "1")
    assert (folder / "new").is_dir() and pathlib.Path(new).name == "1"


def test_other_paths_stay_as_they_are():
    for path in ("runs/a b", "/runs/%s{x}#\n", "gs://bucket/a[1]", "café"):
        assert files.for_tensorflow(path) == path


def test_a_file_system_that_tensorflow_lacks_is_refused_in_a_sentence(monkeypatch):
    for path in ("runs/a", "/a/b:/c", "file:///a", "gs://bucket/a"):
        files.check_file_system(path, "data.data_dir")
    message = "data.data_dir must be on this machine.*gs://.*s3:// takes the package tensorflow-io.*Received: s3://b/x$"
    with pytest.raises(ValueError, match=message):
        files.check_file_system("s3://b/x", "data.data_dir")


def test_tensorflow_io_is_loaded_where_it_is_installed(monkeypatch):
    schemes = ["", "file"]
    monkeypatch.setattr(tf.io.gfile, "get_registered_schemes", lambda: schemes)
    monkeypatch.setattr(files.importlib, "import_module", lambda name: schemes.append("s3"))
    monkeypatch.setitem(sys.modules, "tensorflow_io", types.ModuleType("tensorflow_io"))
    files.check_file_system("s3://b/x", "checkpoint")


def test_half_a_line_and_lines_of_other_programs_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": NaN}\n[2]\nnull\n\xff\xfe\n{"loss": 2}\n{"step": 3}\n{"step": 4, "lo')
    assert [line["step"] for line in files.read_metrics(path)] == [1, 3]


def test_a_file_is_on_the_disk_before_it_takes_the_place_of_another(tmp_path, monkeypatch):
    done = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append("on the disk"))
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("in its place") or replace(*paths))
    files.write_json(tmp_path / "a.json", [1])
    assert done == ["on the disk", "in its place"] and files.read_json(tmp_path / "a.json") == [1]


@pytest.mark.parametrize("content", [b"", b"[1", b"\xff"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"The file is damaged: .*Received: {tmp_path}/a.json"):
        files.read_json(tmp_path / "a.json")

"""What would stop an export is found before the training, in sentences."""

import os
import pathlib
import pwd
import tempfile
import types

import numpy as np
import pytest

from tf_simclr import check
from tf_simclr.check import machine
from tf_simclr.data import sources
from tf_simclr.export import audit, convert, preconditions, publish
from tf_simclr.files import write_json
from tf_simclr.settings import RunConfig, override

SETTINGS = {
    "data.image_size": 32, "model.resnet_depth": 10, "model.width_multiplier": 0.05, "model.num_groups": 1,
    "train.steps": 7,
}  # fmt: skip
CAFE = "caf" + os.fsdecode(b"\xe9")


def unmet(folder, class_names=("a", "b"), **changes):
    config = override(RunConfig(), SETTINGS | {name.replace("__", "."): value for name, value in changes.items()})
    source = sources.ArraySource(np.zeros([16, 2, 2, 3], np.uint8), np.arange(16) % 2, class_names)
    return list(preconditions.unmet(config, source, folder))


def test_nothing_stops_a_usual_run_nor_names_that_are_not_utf_8(tmp_path):
    assert unmet(tmp_path, class_names=(CAFE, "é\nü"), export__pca_dim=3) == []


def no_onnx(folder, patch):
    patch.setattr(convert, "_ONNX_PACKAGES", ("no_such_package",))
    return {"export__formats": "onnx"}


def a_file_in_the_way(folder, patch):
    (folder / "saved_model").touch()


def an_older_export(folder, patch):
    (folder / "saved_model" / "7").mkdir(parents=True)


def an_export_with_other_settings(folder, patch):
    (folder / "saved_model" / "7").mkdir(parents=True)
    write_json(folder / "saved_model" / "7" / "model_card.json", {"export": publish._settings(RunConfig())})
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "ckpt-7.index").touch()
    return {"export__license": "MIT"}


def no_temporary_folder(folder, patch):
    def find():
        raise FileNotFoundError(2, "No usable folder")

    patch.setattr(tempfile, "gettempdir", find)


def a_full_temporary_folder(folder, patch):
    patch.setattr(preconditions.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=9))


CASES = [
    (no_onnx, "requirements-onnx.txt. Received: no no_such_package"),
    (a_file_in_the_way, "saved_model must be a folder to write in"),
    (an_older_export, "export of step 7, which is never replaced, exists before its weights"),
    (an_export_with_other_settings, "export.license was unknown, is MIT"),
    (no_temporary_folder, "a folder, such as one that TMPDIR names (No usable folder)"),
    (a_full_temporary_folder, "temporary files need 0 MB in "),
    (lambda *_: {"export__pca_dim": 17}, "Received: 17 of "),
    (lambda *_: {"class_names": (CAFE, "caf\\udce9")}, "must differ where non-UTF-8 bytes are escaped"),
    (lambda folder, _: {"export__license": f"see {folder}/x"}, "export.license must not name a path of this machine"),
]


@pytest.mark.parametrize(("prepare", "message"), CASES)
def test_what_would_stop_an_export_is_said_once(tmp_path, monkeypatch, prepare, message):
    changes = prepare(tmp_path, monkeypatch) or {}
    found = unmet(tmp_path, **changes)
    assert len(found) == 1 and message in found[0], found


def test_the_check_and_the_run_ask_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(preconditions, "unmet", lambda *arguments: iter(["one", "two"]))
    with pytest.raises(ValueError, match="The export at the end would fail: one; two"):
        preconditions.check(RunConfig(), None, tmp_path)
    findings = list(machine._export(RunConfig(), None, tmp_path))
    assert [one.severity for one in findings] == ["fail", "fail"] and check.has_failed(findings)
    monkeypatch.setattr(preconditions, "unmet", lambda *arguments: iter([]))
    (finding,) = machine._export(RunConfig(), None, tmp_path / "a[1]")
    assert finding.severity == "warn" and "other programs cannot load its export" in finding.found


def test_class_names_are_served_in_utf_8(tmp_path):
    class Served:
        classifier = encoder = object()

    serving = publish._make_serving(RunConfig(), Served(), lambda: None, (CAFE, "é"))
    assert serving.class_names == ("caf\\udce9", "é")


def test_the_audit_needs_neither_a_home_nor_a_working_directory(tmp_path, monkeypatch):
    def find_nobody(user_id):
        raise KeyError(user_id)

    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", find_nobody)
    with pytest.raises(RuntimeError):
        pathlib.Path.home()
    assert str(tmp_path) in audit.machine_paths(str(tmp_path / "run" / "saved_model"))

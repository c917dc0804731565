"""Broken files: remembered, counted, and too many of them stop a run."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from paths import SUPPORT

from tf_simclr import builders
from tf_simclr.augment import Augmentation
from tf_simclr.data import sources
from tf_simclr.data.batches import train_dataset
from tf_simclr.data.files import broken
from tf_simclr.data.sources import files as file_sources
from tf_simclr.data.sources import folders
from tf_simclr.settings import RunConfig, override

pytestmark = pytest.mark.usefixtures("quick_decoder")

COUNT = 20


@pytest.fixture
def folder(tmp_path):
    """Twenty images of varying size in two classes, of which 07 is no image."""
    for i in range(COUNT):
        path = tmp_path / "images" / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(np.full([8 + i, 9, 3], i, np.uint8)).numpy() if i != 7 else b"no image")
    return tmp_path / "images"


def open_with_report(folder, report, max_fraction=0.05):
    files = broken.BrokenFiles(report, max_fraction)
    return sources.from_folder(folder, broken=files), files


def test_what_was_found_once_is_not_looked_at_again(folder, tmp_path, monkeypatch):
    report = tmp_path / "data_report.json"
    source, files = open_with_report(folder, report)
    files.write()
    written = json.loads(report.read_text())
    (entry,) = written["skipped"]
    assert (written["files"], written["broken"]) == (COUNT, 1)
    assert entry["path"] == str(folder / "b" / "07.png") and entry["reason"].startswith("not a JPEG")
    assert (entry["size"], entry["mtime_seconds"]) == (8, int(os.stat(entry["path"]).st_mtime))

    looked_at = []
    monkeypatch.setattr(file_sources, "broken_reason", lambda *_: looked_at.append(1) or "")
    again, _ = open_with_report(folder, report)
    assert again.names == source.names and again.skipped == source.skipped and not looked_at
    (folder / "b" / "07.png").write_bytes((folder / "b" / "09.png").read_bytes())
    mended, files = open_with_report(folder, report)
    assert mended.num_examples == COUNT and len(files) == 0


@pytest.mark.parametrize("max_fraction", [0.04, 0.05])
def test_files_found_broken_in_training_are_read_once_and_stop_a_run_when_too_many(
    folder, tmp_path, monkeypatch, max_fraction
):
    monkeypatch.setattr(folders, "_CHECKED_BYTES", 10)
    report = tmp_path / "data_report.json"
    source, files = open_with_report(folder, report, max_fraction)
    assert source.num_examples == COUNT
    reads = []
    reason = file_sources.broken_reason
    monkeypatch.setattr(file_sources, "broken_reason", lambda *arguments: reads.append(1) or reason(*arguments))

    def run(source):
        options = {"global_batch_size": 4, "seed": 0, "augmentation": Augmentation(8)}
        return list(train_dataset(source, total_steps=15, **options).as_numpy_iterator())

    if max_fraction < 1 / COUNT:
        with pytest.raises(tf.errors.OpError):
            run(source)
        with pytest.raises(ValueError, match=r"More than 4% .*07.png: not a JPEG.*Received: 1 of 20 files"):
            files.check()
        return
    whole = run(source)
    assert len(reads) == 1 and json.loads(report.read_text())["broken"] == 1
    resumed, _ = open_with_report(folder, report)
    assert resumed.num_examples == COUNT
    for (batch, labels), (expected_batch, expected_labels) in zip(run(resumed), whole, strict=True):
        for name, column in batch.items():
            np.testing.assert_array_equal(column, expected_batch[name])
        np.testing.assert_array_equal(labels, expected_labels)
    assert len(reads) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["files", "records"])
def test_a_service_in_another_process_replaces_what_is_broken(folder, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(folders, "_CHECKED_BYTES", 10)
    source, files = open_with_report(folder, None, 1.0)
    if kind == "records":
        with tf.io.TFRecordWriter(str(tmp_path / "all.tfrecord")) as writer:
            for path in source.paths:
                image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[pathlib.Path(path).read_bytes()]))
                writer.write(tf.train.Example(features=tf.train.Features(feature={"image": image})).SerializeToString())
        source = sources.TfrecordSource(
            files=(f"{tmp_path}/all.tfrecord",), counts=(COUNT,), indices=np.arange(COUNT), image_feature="image"
        )
    options = {"global_batch_size": 4, "seed": 0, "augmentation": Augmentation(8), "total_steps": 10}
    program = [sys.executable, str(SUPPORT / "serve_data.py")]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        address = server.stdout.readline().strip()
        elsewhere = list(train_dataset(source, data_service=[address], **options).as_numpy_iterator())
        server.communicate()
    here = list(train_dataset(source, **options).as_numpy_iterator())
    for batch, expected in zip(elsewhere, here, strict=True):
        np.testing.assert_array_equal(tf.nest.flatten(batch)[0], tf.nest.flatten(expected)[0])
    assert len(source.broken) == 1  # Found here, not there.


def make_config(**changes):
    return override(RunConfig(), {"data.dataset": "folder", **changes})


def test_a_run_with_too_many_broken_files_stops_with_the_list(folder, tmp_path):
    settings = make_config(**{"data.data_dir": str(folder), "data.max_broken_fraction": 0.04})
    with pytest.raises(ValueError, match=r"--max_broken_fraction.*07\.png.*data_report\.json lists them all"):
        builders.build_sources(settings, tmp_path)
    assert json.loads((tmp_path / "data_report.json").read_text())["broken"] == 1
    allowed = override(settings, {"data.max_broken_fraction": 0.05})
    train, _, test = builders.build_sources(allowed, tmp_path)
    assert train.num_examples + test.num_examples == COUNT - 1


def test_labelled_images_elsewhere_are_matched_by_class_name(folder, tmp_path):
    (tmp_path / "test" / "b").mkdir(parents=True)
    (tmp_path / "test" / "b" / "1.png").write_bytes((folder / "b" / "01.png").read_bytes())
    settings = make_config(**{"data.data_dir": str(folder), "data.eval_data_dir": str(tmp_path / "test")})
    train, probe, test = builders.build_sources(settings, tmp_path)
    assert probe is train and train.num_examples == COUNT - 1
    assert test.class_names == ("a", "b") and list(test.labels) == [1]


def test_unlabelled_training_images_are_evaluated_on_labelled_ones_elsewhere(folder, tmp_path):
    settings = make_config(**{"data.data_dir": f"{folder}/a", "data.eval_data_dir": str(folder)})
    train, probe, test = builders.build_sources(settings, tmp_path)
    assert (train.num_examples, train.num_classes) == (10, None)
    assert probe.num_examples + test.num_examples == COUNT - 1 and probe.num_classes == test.num_classes == 2


def test_the_report_of_many_broken_files_is_written_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    report = tmp_path / "data_report.json"
    files, written = broken.BrokenFiles(report), []
    write_json = broken.files.write_json
    monkeypatch.setattr(broken.files, "write_json", lambda *given: written.append(1) or write_json(*given))
    for i in range(300):
        files.add({f"{i}.jpg": "cut off"})
        assert 1.2 * json.loads(report.read_text())["broken"] > i
    assert len(written) < 60
    files._write_what_is_new()  # What a timer and the end of the process call.
    assert json.loads(report.read_text())["broken"] == 300 and files._timer is None


def test_a_damaged_report_is_made_again(tmp_path, caplog):
    report = tmp_path / "data_report.json"
    for content in ("", "null"):
        report.write_text(content)
        files = broken.BrokenFiles(report)
        assert len(files) == 0 and f"because {report} is damaged" in caplog.text
        caplog.clear()
    files.write()
    assert json.loads(report.read_text())["broken"] == 0


def test_what_a_report_says_under_other_settings_or_of_what_was_missing_does_not_count(tmp_path):
    report, image = tmp_path / "data_report.json", tmp_path / "large.png"
    image.write_bytes(b"large")
    files = broken.BrokenFiles(report, max_pixels=10)
    files.add({str(image): "more than 10 pixels", str(tmp_path / "missing.png"): "the link leads nowhere"})
    state, lost = files.state_of([str(image)]), files.state_of([str(image), str(tmp_path / "missing.png")])
    assert not files.is_checked(state) and lost is None
    files.write()  # As the timer does while the files are being looked at.
    assert not broken.BrokenFiles(report, max_pixels=10).is_checked(state)
    files.mark_checked(state)
    files.mark_checked(lost)
    files.write()
    again = broken.BrokenFiles(report, max_pixels=10)
    assert again.paths() == (str(image),) and again.is_checked(again.state_of([str(image)]))
    assert not again.is_checked(lost) and broken.BrokenFiles(are_expected=True).is_checked(None)
    image.write_bytes(b"larger than before")
    assert not again.is_checked(again.state_of([str(image)]))
    image.write_bytes(b"large")
    other = broken.BrokenFiles(report, max_pixels=20)
    assert not other.paths() and not other.is_checked(state)

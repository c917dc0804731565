"""The images of a run: what it says about their labels, and what it does without them."""

import json

import numpy as np
import pytest
from checks import make_config
from layouts import lay_out

from tf_simclr import builders

pytestmark = pytest.mark.usefixtures("quick_decoder")


def build(tmp_path, **changes):
    changes = {"mode": "train_then_eval", **changes}
    return builders.build_sources(make_config(tmp_path / "run", tmp_path / "images", **changes), tmp_path / "run")


@pytest.fixture
def images(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "images"


def test_classes_and_images_without_one_are_named(images, tmp_path, caplog):
    lay_out(images, "a/.png*9", "b/.png*4", "cover.png", "scan.tif", "labels.csv")
    with caplog.at_level("INFO", logger="absl"):
        train, probe, test = build(tmp_path)
    assert probe is train and train.num_examples + test.num_examples == 14 and test.labels.min() >= 0
    counts = np.bincount(train.labels[train.labels >= 0])
    assert f"2 classes: a ({counts[0]}), b ({counts[1]})" in caplog.text
    assert f"1 of {train.num_examples} images have no label, so they are trained on but no part" in caplog.text
    assert ": cover.png" in caplog.text and ": .tif 1, and 1 file that describes images: .csv 1" in caplog.text
    assert json.loads((tmp_path / "run" / "data_report.json").read_text())["ignored"] == {".tif": 1, ".csv": 1}


def test_fine_tuning_takes_the_labelled_images(images, tmp_path):
    lay_out(images, "train/a/.png*4", "train/b/.png*4", "train/cover.png", "test/a/.png*1", "unlabelled/.png*5")
    assert build(tmp_path).train.labels.tolist() == [0] * 4 + [1] * 4 + [-1] * 6
    train, probe, test = build(tmp_path, train_mode="finetune", checkpoint="unread")
    assert probe is train and train.labels.tolist() == [0] * 4 + [1] * 4 and test.num_examples == 1


@pytest.mark.parametrize(
    ("places", "sizes"),
    [
        ([".png*9"], (9, 9, 9)),
        (["a/.png*9", ".png*9"], (18, 18, 18)),  # one class is none
        (["a/1.png", "b/1.png", ".png*9"], (11, 11, 11)),  # too few to learn from and to test on
        ([f"{name}/1.png" for name in "abcdefghijkl"], (12, 12, 12)),  # so the one held out is trained on
        (["train/images/.png*5", "valid/images/.png*5", "test/images/.png*5"], (15, 15, 15)),
        (["train/.png*5", "test/.png*4"], (9, 9, 9)),
    ],
)
def test_unlabelled_images_are_all_trained_on(images, tmp_path, places, sizes):
    lay_out(images, *places)
    found = build(tmp_path)
    assert tuple(source.num_examples for source in found) == sizes
    assert found.train is found.probe is found.test and found.train.num_classes is None


@pytest.mark.parametrize(
    ("places", "size"),
    [(["a/.png*9", "b/.png*9"], 18), (["train/a/.png*5", "train/b/.png*5", "test/a/.png*8", "test/b/.png*8"], 10)],
)
def test_folders_that_are_no_classes_hold_nothing_out(images, tmp_path, places, size):
    lay_out(images, *places)
    found = build(tmp_path, data__use_labels=False)
    assert found.train is found.probe is found.test
    assert (found.train.num_examples, found.train.num_classes) == (size, None)
    assert build(tmp_path).test.num_classes == 2
    config = make_config(tmp_path / "run", images, data__use_labels=False)
    assert {source.num_classes for source in builders.build_archive(config.data)} == {None}
    lay_out(tmp_path / "others", "x/.png*9", "y/.png*9")
    train, probe, test = build(tmp_path, data__use_labels=False, data__eval_data_dir=str(tmp_path / "others"))
    assert train.num_classes is None and probe.num_examples + test.num_examples == 18 and test.num_classes == 2


def test_labels_only_in_the_test_part_are_learnt_from_and_tested_on(images, tmp_path):
    lay_out(images, "train/.png*5", "test/a/.png*9", "test/b/.png*9")
    train, probe, test = build(tmp_path)
    assert (train.num_examples, train.num_classes) == (5, None)
    assert probe.num_examples + test.num_examples == 18 and probe.num_classes == test.num_classes == 2


def test_a_run_does_not_train_on_what_it_wrote(images, tmp_path, caplog):
    lay_out(images, "a/.png*9", "b/.png*9")
    config = make_config(images / "runs" / "one", images, data__cache="disk")
    caplog.set_level("INFO", logger="absl")
    for _ in range(2):
        (images / "runs" / "one").mkdir(parents=True, exist_ok=True)
        found = builders.build_sources(config, images / "runs" / "one")
        assert found.train.class_names == ("a", "b") and found.train.num_examples + found.test.num_examples == 18
        lay_out(images / "runs" / "one", "check_views.png", "decoded_images/a/1.png")
    assert caplog.text.count(f"Left out {images / 'runs' / 'one'}, the folder of a run") == 1

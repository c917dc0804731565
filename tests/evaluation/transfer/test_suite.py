"""The transfer suite from end to end, on data sets in miniature."""

import hashlib
import json
import types

import miniatures
import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_model

from tf_simclr.data import sources
from tf_simclr.data.formats import decode
from tf_simclr.evaluation import evaluate, table
from tf_simclr.evaluation.features import Features
from tf_simclr.evaluation.protocols.linear import Linear
from tf_simclr.evaluation.transfer import suite
from tf_simclr.evaluation.transfer.sets import SETS
from tf_simclr.evaluation.verdict import judge
from tf_simclr.export import publish
from tf_simclr.keras import keras
from tf_simclr.runs import predictions
from tf_simclr.settings import RunConfig, override

TOP_1, PER_CLASS, PRECISION = "top_1_accuracy", "mean_per_class_accuracy", "mean_average_precision"
# Metric; images to train on, of which to validate on; images to test on; SimCLR and supervised in the paper.
EXPECTED = {
    "food101": (TOP_1, 12, 0, 9, 68.4, 72.3),  # TFDS calls its test split "validation".
    "cifar10": (TOP_1, 12, 0, 6, 90.6, 93.6),
    "cifar100": (TOP_1, 12, 0, 6, 71.6, 78.3),
    "birdsnap": (TOP_1, 12, 0, 6, 37.4, 53.7),
    "sun397": (TOP_1, 12, 0, 6, 58.8, 61.9),
    "cars": (TOP_1, 12, 0, 6, 50.3, 66.7),
    "aircraft": (PER_CLASS, 21, 9, 6, 50.3, 61.0),
    "voc2007": (PRECISION, 21, 9, 6, 80.5, 82.8),
    "dtd": (TOP_1, 21, 9, 6, 74.5, 74.9),
    "pets": (PER_CLASS, 12, 0, 6, 83.6, 91.5),
    "caltech101": (PER_CLASS, 90, 0, 12, 90.3, 94.5),
    "flowers": (PER_CLASS, 21, 9, 6, 91.2, 94.7),
}


def precision_of_class(scores, labels):
    """The 11-point average precision: of each recall of 0, 0.1, ..., 1, the best precision at it or beyond."""
    hits = labels[np.argsort(-scores, kind="stable")]
    recall, precision = np.cumsum(hits) / hits.sum(), np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return np.mean([max(precision[recall >= level], default=0) for level in np.arange(11) / 10])


def config_of(folder):
    return override(
        RunConfig(), {"data.image_size": 16, "eval.suite": "transfer", "eval.suite_dir": str(folder), "seed": 3}
    )


@pytest.fixture(scope="session")
def miniature(tmp_path_factory):
    """A folder with all data sets of the suite in miniature."""
    pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("suite")
    miniatures.write_all(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def plain_decoding():
    """Decodes images as the PNGs that they are: a pipeline that can decode all formats takes a second to start."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("decode_image", "try_decode_image"):
            patch.setattr(decode, name, lambda encoded, max_pixels: tf.io.decode_png(encoded, 3))
        yield


@pytest.fixture(scope="module")
def judged(miniature, tmp_path_factory):
    """A whole evaluation: its result and folder, and what each data set was learnt from and tested on."""
    folder, seen = tmp_path_factory.mktemp("run"), []
    linear, penalties = Linear.__call__, (1e-2, 1.0, 1e2)

    def learn(protocol, train, test):
        seen.append(types.SimpleNamespace(train=train))
        return linear(protocol, train, test)

    def look(scores, labels):
        seen[-1].scores, seen[-1].labels = scores, labels
        return judge(scores, labels)

    unlabelled = sources.ArraySource(np.zeros([4, 16, 16, 3], np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Linear, "__call__", learn)
        patch.setattr(suite, "judge", look)
        patch.setattr(suite, "protocol_of", lambda config: Linear(config.seed, penalties))  # 45 take 15 times as long.
        model = tiny_model(keras.optimizers.SGD, dtype="float32", classifier=False)
        result, again = (
            evaluate.evaluate(config_of(miniature), model, unlabelled, unlabelled, folder) for _ in range(2)
        )
    assert result == again == json.loads((folder / "result.json").read_text())
    assert len(seen) == len(SETS)  # The second evaluation has found what the first one has kept.
    return types.SimpleNamespace(result=result, folder=folder, seen=dict(zip(EXPECTED, seen, strict=True)))


def test_every_data_set_is_split_measured_and_described_as_in_the_paper(judged):
    found = judged.result["transfer"]
    assert found["missing"] == {} and list(found["sets"]) == list(EXPECTED) == [one.name for one in SETS]
    predicted = predictions.read(judged.folder / "features" / "transfer_predictions.parquet")
    for name, (metric, train, validation, test, simclr, supervised) in EXPECTED.items():
        one, seen = found["sets"][name], judged.seen[name]
        counts = [one[f"num_{part}_images"] for part in ("train", "validation", "test")]
        assert counts == [train, validation, test] and one["num_test_images_in_train"] == 0, name
        assert (one["metric"], one["paper"]) == (metric, {"simclr": simclr, "supervised": supervised})
        rows = predicted[f"eval/transfer_{name}"]
        hits = rows.labels == rows.predicted
        assert len(set(rows.examples)) == test
        if metric == PRECISION:
            scores, labels = seen.scores.probabilities, seen.labels
            precisions = [precision_of_class(scores[:, c], labels[:, c]) for c in np.flatnonzero(labels.any(axis=0))]
            assert one[metric] == pytest.approx(np.mean(precisions))
            assert one[f"{metric}_low"] <= one[metric] <= one[f"{metric}_high"] and one[metric] > 0.8
            assert hits.tolist() == seen.labels[np.arange(test), rows.predicted].tolist()
            continue
        accuracies = [np.mean(hits[rows.labels == label]) for label in range(miniatures.CLASSES)]
        assert one[metric] == pytest.approx(np.mean(hits) if metric == TOP_1 else np.mean(accuracies))
        assert one[metric] > 0.8 and one[f"{metric}_low"] <= one[metric] <= one[f"{metric}_high"]
        assert sorted(rows.labels) == np.repeat(range(miniatures.CLASSES), test // miniatures.CLASSES).tolist()
        assert (one["settings"]["regularization_candidates"], one["settings"]["seed"]) == (3, 3)
        if validation:
            assert (one["settings"]["held_out_parts"], one["settings"]["held_out_fraction"]) == (1, 9 / 21)
            assert seen.train.is_validation.tolist() == [False] * 12 + [True] * 9
    assert [key.partition(".")[0] for key in judged.seen["dtd"].train.keys] == ["dtd-train"] * 12 + [
        "dtd-validation"
    ] * 9


def test_an_image_with_several_classes_has_them_all(judged):
    seen = judged.seen["voc2007"]
    for labels, split in ((seen.train.labels[:12], "train"), (seen.train.labels[12:], "validation")):
        expected = [
            [label in miniatures.labels_of(first, number) for label in range(20)]
            for first in range(miniatures.CLASSES)
            for number in range(miniatures.COUNTS[split])
        ]
        assert labels.dtype == bool and sorted(labels.tolist()) == sorted(expected)


def test_caltech_is_trained_on_thirty_images_a_class_that_follow_from_their_names(judged):
    train = judged.seen["caltech101"].train
    assert np.bincount(train.labels).tolist() == [30, 30, 30]
    counts = miniatures.COUNTS_OF_CALTECH
    names = [
        f"caltech101-{split}.tfrecord-00000-of-00001#record={i}"
        for split in ("train", "test")
        for i in range(counts[split] * miniatures.CLASSES)
    ]
    by_digest = sorted(names, key=lambda name: hashlib.blake2b(name.encode(), digest_size=8).hexdigest())
    predicted = predictions.read(judged.folder / "features" / "transfer_predictions.parquet")
    test = predicted["eval/transfer_caltech101"]
    label_of = dict(zip([*train.keys, *test.examples], [*train.labels, *test.labels], strict=True))
    assert label_of.keys() == set(names)
    for label in range(miniatures.CLASSES):
        of_class = [name for name in by_digest if label_of[name] == label]
        assert set(of_class[:30]) == {name for name in train.keys if label_of[name] == label}


def test_the_table_has_our_number_the_metric_and_the_papers(judged):
    lines = table.describe(judged.result).splitlines()
    assert lines[0] == "No accuracies: the images have no labels."
    one = judged.result["transfer"]["sets"]["flowers"]
    low, value, high = (100 * one[f"mean_per_class_accuracy{end}"] for end in ("_low", "", "_high"))
    (row,) = [line.split() for line in lines if line.startswith("  Flowers")]
    assert " ".join(row) == f"Flowers {value:.1f}% [{low:.1f}, {high:.1f}] mean per class 91.2% 94.7%"
    assert (
        "Pets is not what the paper's numbers are for: 37 classes, 12 training and 6 test images "
        "instead of 37 classes, 3,680 training and 3,669 test images"
    ) in lines


def test_what_is_missing_is_named_with_the_way_to_get_it(tmp_path):
    place = tmp_path / "suite"
    (place / "aircraft" / "train").mkdir(parents=True)
    encoder = suite.FrozenEncoder("eval", "this encoder", 16, {}, lambda: None)
    found = suite.run(config_of(place), encoder, tmp_path / "features")
    assert found["sets"] == {} and list(found["missing"]) == list(EXPECTED)
    assert found["missing"]["aircraft"] == f"a part of it is there, but not {place}/aircraft/validation"
    assert found["missing"]["sun397"] == (
        f"tfds build sun397/standard-part1-120k --data_dir={place}, or put its images into {place}/sun397/train and "
        f"{place}/sun397/test, a folder a class"
    )
    assert found["missing"]["voc2007"] == f"tfds build voc/2007 --data_dir={place}"
    text = table.describe({"global_step": 0, "transfer": found})
    assert f"Missing in {place}; an evaluation downloads nothing:\n  food101: tfds build food101" in text


def test_the_suite_lies_where_tfds_keeps_its_data_sets_unless_it_is_told_otherwise(monkeypatch):
    def place(**changes):
        return suite.place_of(
            override(RunConfig(), {name.replace("__", "."): value for name, value in changes.items()})
        )

    monkeypatch.setenv("TFDS_DATA_DIR", "/tfds")
    assert place(data__dataset="folder", data__data_dir="/photos") == "/tfds"
    assert place(data__dataset="cifar10") == "/tfds"
    assert place(data__dataset="cifar10", data__data_dir="/prepared") == "/prepared"
    assert place(data__dataset="cifar10", data__data_dir="/prepared", eval__suite_dir="/suite") == "/suite"


def test_folders_take_the_place_of_tfds(tmp_path):
    (cars,) = [one for one in SETS if one.name == "cars"]
    miniatures.write_folder(tmp_path / "cars", cars.splits)
    opened = suite.open_set(cars, str(tmp_path), max_pixels=1000)
    assert {part: source.num_examples for part, source in opened.items()} == {"train": 12, "test": 6}
    assert opened["test"].class_names == ("class 0", "class 1", "class 2")


def test_the_penalty_is_one_of_the_papers_45():
    grid = suite.protocol_of(RunConfig()).regularization_grid
    assert (len(grid), 0.5 / grid[-1], 0.5 / grid[0]) == (45, pytest.approx(1e-6), pytest.approx(1e5))
    assert np.ptp(np.diff(np.log(grid))) < 1e-9


def test_labels_of_several_classes_are_bool():
    with pytest.raises(ValueError, match=r"must be bool \[N, 3\]\. Received: bool \[4, 2\]"):
        Features(np.zeros([4, 5], np.float32), np.zeros([4, 2], bool), 3)


def test_the_model_card_does_not_say_where_the_suite_lies(judged):
    kept = json.dumps(publish._without_paths(judged.result))
    assert judged.result["transfer"]["data_dir"] not in kept and "CIFAR-10" in kept
    missing = judged.result | {"transfer": judged.result["transfer"] | {"missing": {"dtd": "in /home/me/suite"}}}
    assert "/home/me" not in json.dumps(publish._without_paths(missing))

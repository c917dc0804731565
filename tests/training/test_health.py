"""What is measured while a run pretrains, when, and that it changes nothing."""

import json
import logging

import numpy as np
import pytest
import tensorflow as tf
from replicas import mirrored
from sklearn.neighbors import KNeighborsClassifier
from tiny import augmentation_of, microbatch_model, tiny_model

from tf_simclr import builders
from tf_simclr.data import batches, sources
from tf_simclr.keras import keras
from tf_simclr.metrics import representation
from tf_simclr.runs.folder import open_run
from tf_simclr.settings import RunConfig, override
from tf_simclr.training import health, held_out
from tf_simclr.training import train as program
from tf_simclr.training.meter import Meter, knn_accuracy

SETTINGS = {
    "mode": "train",
    "data.image_size": 16,
    "model.resnet_depth": 10,
    "model.width_multiplier": 0.1,
    "model.stem": "strided",
    "model.num_groups": 1,
    "augmentation.color_jitter_strength": 0.0,
    "augmentation.grayscale_probability": 0.0,
    "augmentation.blur_probability": 0.0,
    "optimizer.warmup_epochs": 0.5,
    "train.global_batch_size": 8,
    "train.steps": 12,
    "train.checkpoint_steps": 5,
    "train.log_every_steps": 3,
    "train.health_every_steps": 2,
    "train.precision": "float32",
}


@pytest.fixture(scope="module")
def images(photos):
    """Twenty images to train on and others to test on, of two classes."""
    train, test = photos[:, :16, :16], photos[:, 16:, 16:]
    test = sources.ArraySource(np.concatenate([test, 255 - test]), np.arange(32) % 2, ("one", "other"))
    train = sources.ArraySource(np.concatenate([train, 255 - train])[:20])
    return builders.Sources(train, test, test)


def train(images, folder, **changes):
    """Trains; returns the weights and the state of the optimizer, and the lines of a file without its clock."""
    changes = {f"train.{name}": value for name, value in changes.items()}
    config = override(RunConfig(), SETTINGS | {"model_dir": str(folder)} | changes)
    with open_run(config) as folder:
        model = program.train(config, images, folder)
    weights = [np.asarray(weight) for weight in (*model.get_weights(), *model.optimizer.variables)]
    return weights, [line | {"seconds": 0} for line in read(folder / "health.jsonl")]


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def test_measuring_changes_nothing_and_a_resumed_run_leaves_the_same_lines(images, tmp_path, monkeypatch):
    unmeasured, none = train(images, tmp_path / "unmeasured", health=False)
    weights, lines = train(images, tmp_path / "measured")
    with monkeypatch.context() as patch:
        make_dataset = batches.train_dataset
        patch.setattr(batches, "train_dataset", lambda *args, **kwargs: make_dataset(*args, **kwargs).take(8))
        train(images, tmp_path / "resumed")  # stops after step 8; the last checkpoint is of step 5
    with (tmp_path / "resumed" / "health.jsonl").open("a") as file:
        file.write('{"step": 10, "ep')  # as a kill leaves it
    resumed, resumed_lines = train(images, tmp_path / "resumed")
    assert not none and [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert resumed_lines == lines
    assert len({line["alignment"] for line in lines}) == 6
    for weight, measured, continued in zip(unmeasured, weights, resumed, strict=True):
        np.testing.assert_array_equal(measured, weight)
        np.testing.assert_array_equal(continued, weight)
    texts = {(tmp_path / name / "metrics.jsonl").read_text() for name in ("unmeasured", "measured", "resumed")}
    assert len(texts) == 1

    assert [("knn_top_1_accuracy" in line) for line in lines] == [False] * 4 + [True] * 2
    assert lines[0]["num_images"] == 16 and lines[0]["epoch"] == 0.8
    tags = set()
    for events in (tmp_path / "measured").glob("events.*.v2"):
        records = map(tf.compat.v1.Event.FromString, tf.data.TFRecordDataset(str(events)).as_numpy_iterator())
        tags |= {(value.tag, event.step) for event in records for value in event.summary.value}
    assert {("health/uniformity", 2), ("health/negative_similarity", 2), ("train/loss", 12)} <= tags


VARIANTS = {
    "two views": {},
    "three views": {"num_views": 3},
    "two replicas": {"count": 2},
    "a part at a time": {"encoded_at_once": 3},
}


def measure_tiny(images, *, count=1, num_views=2, encoded_at_once=64):
    with mirrored(count).scope() if count > 1 else tf.distribute.get_strategy().scope():
        model = tiny_model(keras.optimizers.SGD, synchronized=count > 1, num_views=num_views)
        sample = held_out.draw(images.test, model.augmentation, 16)
        values = Meter(model, sample, global_batch_size=8, encoded_at_once=encoded_at_once)(with_knn=True)
    return model, sample, values


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_what_is_measured_is_what_the_encoder_makes_of_the_sample(images, variant):
    model, sample, values = measure_tiny(images, **variant)
    features = [model.encoder(tf.constant(view / np.float32(255)), training=False) for view in sample.views]
    projections = np.stack([model.projection_head(one, training=False) for one in features])
    found = representation.compare(projections)
    assert values["uniformity"] == pytest.approx(representation.uniformity(found), abs=1e-5)
    assert values["representation_rankme"] == pytest.approx(representation.rankme(np.stack(features)), rel=1e-4)
    assert len(sample.views) == variant.get("num_views", 2)
    accuracy = representation.contrastive_accuracy(found, len(sample.views) * 7)
    assert values["contrastive_top_1_accuracy"] == pytest.approx(accuracy)
    plain = model(sample.images, training=False).numpy()
    assert values["knn_top_1_accuracy"] == knn_accuracy(plain, sample.labels)


def test_micro_batches_are_measured(images):
    model = microbatch_model(4)
    sample = held_out.draw(images.test, model.augmentation, 16)
    values = Meter(model, sample, global_batch_size=8, encoded_at_once=4)(with_knn=False)
    assert values["projection_dimensions"] == 5 and "knn_top_1_accuracy" not in values


def test_features_that_are_not_finite_are_left_to_the_callback_that_stops_the_run(images):
    model, sample, _ = measure_tiny(images)
    model.encoder.layers[0].kernel.assign(np.full(model.encoder.layers[0].kernel.shape, np.nan))
    assert Meter(model, sample, global_batch_size=8, encoded_at_once=64)(with_knn=True) is None


def test_the_neighbours_of_an_image_are_the_others():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    points = rng.normal(size=[40, 4]) + 2 * np.eye(4)[labels]
    hits = []
    for index in range(40):
        others = np.arange(40) != index
        classifier = KNeighborsClassifier(10, metric="cosine").fit(points[others], labels[others])
        hits.append(classifier.predict(points[[index]])[0] == labels[index])
    assert knn_accuracy(points, labels) == np.mean(hits)
    assert 0.5 < np.mean(hits) < 1.0


@pytest.mark.parametrize("labels", [np.arange(32) % 8, np.zeros(32, int), np.full(32, -1), None])
def test_labels_that_do_not_suffice_are_left_out(images, labels):
    source = sources.ArraySource(images.test.images, labels)
    model = tiny_model(keras.optimizers.SGD)
    sample = held_out.draw(source, model.augmentation, 16)
    values = Meter(model, sample, global_batch_size=8, encoded_at_once=64)(with_knn=True)
    assert "knn_top_1_accuracy" not in values


def test_the_sample_is_spread_over_the_source_and_always_the_same(images):
    augmentation = augmentation_of(2)
    sample = held_out.draw(images.test, augmentation, 16, num_viewed=4)
    again = held_out.draw(images.test, augmentation, 16, num_viewed=4)
    np.testing.assert_array_equal(sample.views, again.views)
    chosen = np.linspace(0, 31, 8).astype(int)
    np.testing.assert_array_equal(sample.images, images.test.images[chosen])
    np.testing.assert_array_equal(sample.labels, images.test.labels[chosen])
    assert sample.views.shape == (2, 4, 16, 16, 3)
    assert not np.array_equal(*sample.views)


def test_files_of_any_size_are_cropped_as_in_training(photos, tmp_path):
    names = []
    for number, photo in enumerate(photos):
        path = tmp_path / f"{number}.png"
        path.write_bytes(tf.io.encode_png(photo[: 20 + number]).numpy())
        names.append(path.name)
    source = sources.FileSource(str(tmp_path), tuple(names))
    sample = held_out.draw(source, augmentation_of(2), 16, num_viewed=4)
    assert sample.views.shape == (2, 4, 16, 16, 3) and sample.images.shape == (8, 16, 16, 3)
    assert np.all(sample.labels == -1)


@pytest.mark.parametrize(
    ("changes", "num_examples", "num_replicas", "expected"),
    [
        ({"train.epochs": 10}, 10_000, 1, 39),  # an epoch
        ({"train.epochs": 10}, 1000, 1, 23),  # six epochs
        ({"train.epochs": 5}, 1000, 1, None),  # shorter than that
        ({"train.epochs": 10}, 10_000, 4, 117),  # three replicas wait
        ({"train.epochs": 10, "train.steps_per_execution": 10}, 10_000, 1, 40),
        ({"train.epochs": 5, "train.health_every_steps": 7}, 1000, 1, 7),
    ],
)
def test_how_often_follows_from_the_number_of_images(changes, num_examples, num_replicas, expected):
    config = override(RunConfig(), {"train.global_batch_size": 256, "train.log_every_steps": 10, **changes})
    assert health.plan(config, num_examples, num_replicas) == expected


@pytest.mark.parametrize(
    ("changes", "part", "reason"),
    [
        ({"train.health": False}, None, None),
        ({"train.health_every_steps": None}, None, "with fewer than 6000 images in all"),
        ({}, slice(0, 15), "there are only 8 images to measure it on"),
    ],
)
def test_a_run_that_is_not_measured_says_why(images, tmp_path, caplog, changes, part, reason):
    config = override(RunConfig(), SETTINGS | changes)
    test = images.test if part is None else images.test.subset(np.arange(32)[part])
    with caplog.at_level(logging.INFO, logger="absl"):
        made = health.make(config, tiny_model(keras.optimizers.SGD), images._replace(test=test), tmp_path, 0)
    assert made == [] and (reason or "") in caplog.text and bool(caplog.text) == bool(reason)


@pytest.mark.parametrize("differs", [True, False])
def test_the_log_says_which_images_are_measured(images, tmp_path, caplog, differs):
    train_source = images.train if differs else images.test
    with caplog.at_level(logging.INFO, logger="absl"):
        parts = builders.Sources(train_source, images.test, images.test)
        (callback,) = health.make(override(RunConfig(), SETTINGS), tiny_model(keras.optimizers.SGD), parts, tmp_path, 0)
    which = "that it does not train on" if differs else "that it trains on"
    assert f"every 2 steps (0.{'8' if differs else '5'} epochs) on 16 images {which};" in caplog.text
    callback._writer.close()

"""Every disease, made on purpose, is named; a healthy run is not.

Where a disease takes a training, it is a real one, of a tiny encoder on patterns that crops and tints do not hide.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.augment import Augmentation, ColorJitter, RandomCrop, RandomGrayscale
from tf_simclr.data import sources
from tf_simclr.keras import keras
from tf_simclr.losses import MarginTriplet, NTLogistic, NTXent
from tf_simclr.metrics import representation
from tf_simclr.metrics.diagnosis import diagnose
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.momentum import MomentumSimCLR
from tf_simclr.models.simclr import SimCLR
from tf_simclr.training import held_out
from tf_simclr.training.meter import Meter

BATCH = 64
CROP = RandomCrop("uniform_area", (0.6, 1.0))
COLORS = (ColorJitter(1.0, 0.8), RandomGrayscale(0.3))


def patterns(count, seed):
    """Smooth patterns of any tint: uint8 [count, 16, 16, 3]."""
    rng = np.random.default_rng(seed)
    waves = tf.image.resize(rng.normal(size=[count, 4, 4, 1]), [16, 16], "bicubic").numpy()
    waves /= np.abs(waves).max(axis=(1, 2, 3), keepdims=True)
    tints, contrasts = rng.uniform(60, 195, [count, 1, 1, 3]), rng.uniform(40, 100, [count, 1, 1, 1])
    return np.clip(tints + waves * contrasts, 0, 255).astype(np.uint8)


def train(*, temperature=0.2, chain=(CROP, *COLORS), steps=80, measured=20, optimizer=None):
    """Trains; returns the lines of health.jsonl and metrics.jsonl."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    encoder = keras.Sequential()
    for layer in (layers.Conv2D(16, 3, 2, use_bias=False), layers.Conv2D(32, 3, 2, use_bias=False), layers.Dense(32)):
        encoder.add(layers.Flatten() if isinstance(layer, layers.Dense) else layers.Layer())
        encoder.add(layer)
        encoder.add(layers.BatchNormalization(momentum=0.9))
        encoder.add(layers.ReLU())
    augmentation = Augmentation(16, branches=(chain, chain))
    model = SimCLR(encoder, ProjectionHead(2, 32), image_size=16, loss=NTXent(temperature), augmentation=augmentation)
    model.compile(optimizer or keras.optimizers.Adam(3e-3, jit_compile=False))
    sample = held_out.draw(sources.ArraySource(patterns(256, 1)), augmentation, 16, num_viewed=128)
    meter = Meter(model, sample, global_batch_size=BATCH, encoded_at_once=256)
    dataset = tf.data.Dataset.from_tensor_slices(patterns(2048, 0)).batch(BATCH).repeat()
    health, metrics = [], []
    for images in dataset.take(steps):
        metrics.append({"step": len(metrics) + 1, **model.train_on_batch(images, reset_metrics=True, return_dict=True)})
        if len(metrics) % measured == 0:
            health.append({"step": len(metrics), **meter(with_knn=False)})
    return health, metrics


def names(health, metrics):
    return [finding.name for finding in diagnose(health, metrics)]


def test_a_healthy_run_has_none():
    health, metrics = train()
    assert metrics[-1]["loss"] < 0.8 * metrics[0]["loss"] and len(health) == 4
    assert health[-1]["contrastive_top_1_accuracy"] > 3 * health[0]["contrastive_top_1_accuracy"] / 2
    for end in range(1, 5):
        assert names(health[:end], metrics) == []


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"temperature": 0.02}, "temperature too low"),
        ({"temperature": 5.0}, "temperature too high"),
        ({"chain": (CROP,), "steps": 40}, "colour"),
        ({"optimizer": keras.optimizers.SGD(100.0, 0.9, jit_compile=False)}, "learning rate too high"),
    ],
)
def test_a_training_made_sick_is_diagnosed(settings, name):
    health, metrics = train(**settings)
    assert name in names(health, metrics)


def measured(representations, projections, step=1):
    """The line of features, of which no colours are known."""
    of_colors = representation.compare(np.random.default_rng(9).normal(size=[2, len(projections[0]), 6]))
    of_training = {"collapse_loss": np.log(2 * BATCH - 1), "entropy_candidates": 2 * BATCH - 1}
    return {"step": step, **representation.measure(representations, projections, of_colors, BATCH), **of_training}


def spread_features(rng, num_images=128, dimensions=32, noise=0.5):
    return rng.normal(size=[1, num_images, dimensions]) + noise * rng.normal(size=[2, num_images, dimensions])


def line_of_training(**changes):
    return {"step": 1, "loss": 2.0, "contrastive_entropy": 2.0, "contrastive_top_1_accuracy": 0.9} | changes


def test_healthy_features_have_none():
    features = spread_features(np.random.default_rng(0))
    assert names([measured(features, features)] * 2, [line_of_training()] * 30) == []


def test_a_collapse_is_the_only_finding():
    rng = np.random.default_rng(0)
    point = 1 + 0.05 * rng.normal(size=[2, 128, 32])
    (finding,) = diagnose([measured(point, point)] * 2, [line_of_training(loss=4.84, contrastive_entropy=4.84)] * 30)
    assert finding.name == "collapse" and finding.severity == "error" and "similarity of 1.00" in finding.sentence


def test_dead_dimensions():
    features = spread_features(np.random.default_rng(0))
    dying = features * (np.arange(32) < 20)
    (finding,) = diagnose([measured(dying, features)] * 2, [])
    assert finding.name == "dead dimensions" and finding.sentence.startswith("12 of the 32 dimensions")
    assert names([measured(features * (np.arange(32) < 24), features)] * 2, []) == []


def test_copies_in_a_batch_are_false_negatives():
    """Training batches of 16 images, four copies each, and held-out images that are all different."""
    rng = np.random.default_rng(0)
    health = [measured(*[spread_features(rng)] * 2)] * 2
    for copies, expected in ((1, []), (4, ["duplicates"])):
        originals = np.repeat(rng.normal(size=[1, BATCH // copies, 32]), copies, axis=1)
        batch = representation.compare(originals + 0.5 * rng.normal(size=[2, BATCH, 32]))
        accuracy = representation.contrastive_accuracy(batch, 2 * (BATCH - 1))
        assert names(health, [line_of_training(contrastive_top_1_accuracy=accuracy)]) == expected


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (np.linspace(4.8, 2.0, 40), []),
        (np.r_[np.linspace(4.8, 2.0, 20), np.linspace(2.0, 4.5, 20)], ["learning rate too high"]),
        (np.r_[np.linspace(4.8, 2.0, 30), np.full(10, 2.1)], []),
        (np.full(40, 4.8) + 0.01 * np.sin(np.arange(40)), []),
        (np.r_[4.8, 2.0, 4.8], []),
    ],
    ids=["falls", "rises", "rests", "never falls", "too few"],
)
def test_a_loss_that_rises_again(losses, expected):
    features = spread_features(np.random.default_rng(0))
    metrics = [line_of_training(step=step, loss=loss) for step, loss in enumerate(losses, 1)]
    assert names([measured(features, features, len(losses) - 1), measured(features, features, 99)], metrics) == expected


MEMORY = 65536
# What the rules read of the features of a healthy encoder.
OF_FEATURES = ("negative_similarity", "representation_dead_dimensions", "contrastive_top_1_accuracy")


@pytest.mark.parametrize(
    ("loss", "memory_size", "of_training", "expected"),
    [
        (NTXent(), 0, {"loss": 4.8}, []),
        (NTXent(), 0, {"loss": 8.55}, ["temperature too low"]),
        (NTXent(), 0, {"contrastive_entropy": 4.82}, ["temperature too high"]),
        (NTXent(), 0, {"contrastive_top_1_accuracy": 0.1}, ["duplicates"]),
        (NTXent(), MEMORY, {"loss": 8.55, "contrastive_entropy": 10.76, "contrastive_top_1_accuracy": 0.1}, []),
        (NTXent(), MEMORY, {"loss": 8.55, "contrastive_entropy": 11.08}, ["temperature too high"]),
        (NTLogistic(0.1), 0, {"loss": 9.0}, []),
        (NTLogistic(0.1), 0, {"loss": 8.9, "gradient_norm": 0.01}, []),
        (NTLogistic(0.1), 0, {"loss": 9.1, "gradient_norm": 0.01}, ["learning rate too high"]),
        (NTLogistic(0.1, semi_hard=True), 0, {"loss": 9.9, "gradient_norm": 0.01}, []),
        (MarginTriplet(0.02), 0, {"loss": 0.1}, []),
    ],
)
def test_a_run_is_judged_by_what_its_own_loss_can_be(loss, memory_size, of_training, expected):
    kind = functools.partial(MomentumSimCLR, memory_size=memory_size) if memory_size else SimCLR
    encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4)])
    augmentation = Augmentation(16, branches=((CROP,),) * 2)
    model = kind(encoder, ProjectionHead(1, 4), image_size=16, loss=loss, augmentation=augmentation)
    sample = held_out.draw(sources.ArraySource(patterns(16, 1)), augmentation, 16, num_viewed=16)
    line = Meter(model, sample, global_batch_size=BATCH, encoded_at_once=16)(with_knn=False)
    features = spread_features(np.random.default_rng(0))
    line |= {"color_top_1_accuracy": 0.0, **{name: measured(features, features)[name] for name in OF_FEATURES}}
    shown = {name: value for name, value in line_of_training().items() if name in ("step", "loss", *loss.metric_names)}
    metrics = [shown | {"loss": of_training.get("loss", 2.0), "gradient_norm": 1.0}] * 20
    metrics += [one | of_training for one in metrics]
    assert names([{**line, "step": 1}] * 2, metrics) == expected


def test_what_does_not_last_is_not_found():
    features = spread_features(np.random.default_rng(0))
    sick, well = measured(np.ones_like(features), np.ones_like(features)), measured(features, features)
    assert names([sick], []) == names([sick, well], []) == names([well, sick], []) == []
    assert names([well, sick, sick], []) == ["collapse"]


def test_lines_of_an_older_version_are_read():
    features = spread_features(np.random.default_rng(0))
    line = measured(features, features)
    for name in ("color_top_1_accuracy", "contrastive_top_1_accuracy", "contrastive_candidates", "color_correlation"):
        del line[name]
    del line["collapse_loss"], line["entropy_candidates"]
    assert names([line] * 2, [{"step": 1, "loss": 9.9}] * 2) == []

"""Tests whether replicas that share a batch compute what one would, with a tiny network on the run's devices."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tf_simclr import devices
from tf_simclr.check.findings import Finding
from tf_simclr.data import batches
from tf_simclr.data.sources import ArraySource
from tf_simclr.keras import keras
from tf_simclr.runs import models
from tf_simclr.settings import RunConfig, override

_IMAGES_PER_REPLICA = 4
_NUM_CLASSES = 3
# The tiny run, besides the strategy, devices, precision and compiler of the real one. A first step of momentum at a
# learning rate of 1 leaves the negative gradient in the optimizer; the decay puts penalties into the loss.
_SETTINGS = {
    "data.image_size": 16,
    "augmentation.color_jitter_strength": 0.0,
    "augmentation.grayscale_probability": 0.0,
    "augmentation.blur_probability": 0.0,
    "model.resnet_depth": 10,
    "model.width_multiplier": 0.125,
    "model.stem": "strided",
    "model.num_groups": 1,
    "model.num_proj_layers": 2,
    "model.proj_out_dim": 8,
    "model.temperature": 0.5,
    "optimizer.name": "momentum",
    "optimizer.base_learning_rate": 1.0,
    "optimizer.learning_rate_scaling": "none",
    "optimizer.warmup_epochs": 0.0,
    "optimizer.weight_decay": 0.01,
}
_VIEWS = ("num_views", "num_small_views", "small_view_pairs")  # of the real one
# The largest allowed difference, as a share of the norm. Rounding stays below a third of it
# (tests/check/test_machine.py), even on GPUs, which multiply float32 in TensorFloat-32; mistakes are far above it.
_TOLERANCES = {"float32": 0.02, "mixed_bfloat16": 0.04}


def compare_replicas(config: RunConfig, strategy: tf.distribute.Strategy) -> Finding:
    """Takes one step on the strategy's replicas and one on one device, with the same weights and images.

    Compares the loss and the other continuous metrics, the gradient of every parameter, batch-norm statistics and the
    weights after the step. Call it outside the scope of the strategy, on all its workers.
    """
    count = strategy.num_replicas_in_sync
    with strategy.scope():
        policy, _ = devices.resolve_precision(config.train.precision)
    if count == 1:
        return Finding("info", "replicas", "The strategy has one replica: nothing to compare.")
    changes = _SETTINGS | {"seed": config.seed, "strategy": config.strategy, "train.precision": policy}
    batch_size = count * _IMAGES_PER_REPLICA
    changes |= {"train.global_batch_size": batch_size, "train.steps": 1}
    changes |= {f"train.{name}": getattr(config.train, name) for name in ("jit_compile", "deterministic")}
    changes |= {f"augmentation.{name}": getattr(config.augmentation, name) for name in _VIEWS}
    tiny = override(RunConfig(), changes)
    with strategy.scope():
        found = _take_step(tiny, batch_size)
    expected = _take_step(tiny, batch_size)
    differences = sorted(_differences(found, expected), reverse=True)
    limit = _TOLERANCES[policy]
    wrong = [f"{name}: {difference:.2g}" for difference, name in differences if difference > limit]
    text = f"{count} replicas and one, in {policy}, on a batch of {batch_size} images"
    if wrong:
        return Finding(
            "fail", "replicas", f"A step differs between {text}, by up to {differences[0][0]:.2g} of the norm, "
            f"in {len(wrong)} of {len(differences)} numbers and tensors.",
            "Do not train like this: the gradient is wrong. Try --strategy=default or another TensorFlow.", wrong,
        )  # fmt: skip
    return Finding(
        "pass", "replicas", f"A step is the same on {text}: loss, gradients, batch-norm statistics and weights differ "
        f"by at most {differences[0][0]:.1g} (allowed: {limit:g}).",
    )  # fmt: skip


def _take_step(config: RunConfig, batch_size: int) -> dict[str, list[tuple[str, np.ndarray]]]:
    """The named results of a step of the current strategy, by kind."""
    images, labels = _make_images(batch_size)
    model = models.initial_model(config, len(images), _NUM_CLASSES)
    dataset = batches.train_dataset(
        ArraySource(images, labels),
        global_batch_size=len(images),
        seed=config.seed,
        total_steps=1,
        augmentation=model.augmentation,
    )
    metrics = model.fit(dataset, verbose=0).history
    names = ("loss", *model.view_loss.metric_names, "classifier_loss", "gradient_norm")
    # An accuracy moves by a whole image when rounding decides between two images.
    continuous = [name for name in names if not name.endswith("accuracy")]
    return {
        "metric": [(name, np.array(metrics[name][0])) for name in continuous],
        "gradient": _values(model.optimizer.momentums, model.trainable_variables),
        "batch-norm statistic": _values(model.moving_averages(), model.moving_averages()),
        "weight": _values(model.trainable_variables, model.trainable_variables),
    }


def _values(variables: list[tf.Variable], named: list[tf.Variable]) -> list[tuple[str, np.ndarray]]:
    return [(name.name, keras.backend.get_value(value)) for value, name in zip(variables, named, strict=True)]


def _make_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images that differ in colour and in structure: uint8 [count, 32, 32, 3], with labels."""
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 256, [count, 4, 4, 3], np.uint8)
    return squares.repeat(8, axis=1).repeat(8, axis=2), np.arange(count) % _NUM_CLASSES


def _differences(
    found: dict[str, list[tuple[str, np.ndarray]]], expected: dict[str, list[tuple[str, np.ndarray]]]
) -> Iterator[tuple[float, str]]:
    """The norm of every difference, as a share of the norm of the expected value, and the name of the value.

    Some gradients are nearly zero, such as those of values that batch norm subtracts again. A norm below a tenth of the
    largest of its kind is replaced by that tenth.
    """
    for kind, values in expected.items():
        least = 0.1 * max(float(np.linalg.norm(value)) for _, value in values)
        for (name, value), (_, other) in zip(values, found[kind], strict=True):
            scale = max(float(np.linalg.norm(value)), least)
            difference = float(np.linalg.norm(other - value)) / scale
            yield difference if np.isfinite(difference) else np.inf, f"{kind} {name}"

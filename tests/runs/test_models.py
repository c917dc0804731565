"""The model of a run: its initial weights follow from the seed, and are made in one place."""

import random

import numpy as np
import pytest

from tf_simclr import builders
from tf_simclr.keras import keras
from tf_simclr.runs import models
from tf_simclr.settings import RunConfig, override

SETTINGS = {
    "data.image_size": 16,
    "model.resnet_depth": 10,
    "model.width_multiplier": 0.05,
    "model.stem": "strided",
    "model.num_groups": 1,
    "optimizer.warmup_epochs": 0,
    "train.global_batch_size": 8,
    "train.steps": 4,
    "train.precision": "float32",
}


def make_config(**changes):
    return override(RunConfig(), SETTINGS | changes)


def weights(model):
    return model.encoder.get_weights() + model.projection_head.get_weights() + model.classifier.get_weights()


def are_equal(some, others):
    return all(np.array_equal(one, other) for one, other in zip(some, others, strict=True))


def test_a_seed_gives_the_same_weights_however_often_and_builders_seed_nothing():
    config = make_config(seed=5)
    first = weights(models.initial_model(config, 40, 3))
    expected = random.random(), np.random.random()
    keras.utils.set_random_seed(5)
    unseeded = [weights(builders.build_model(config, 40, 3)) for _ in range(2)]
    assert (random.random(), np.random.random()) == expected  # Keras draws its seeds from a generator of its own.
    assert are_equal(first, unseeded[0]) and not are_equal(first, unseeded[1])
    assert are_equal(first, weights(models.initial_model(config, 40, 3)))
    other = weights(models.initial_model(override(config, {"seed": 6}), 40, 3))
    kernels = [pair for pair in zip(first, other, strict=True) if pair[0].ndim > 1]
    assert len(kernels) > 4 and not any(np.array_equal(*pair) for pair in kernels)


def test_a_run_without_weights_is_not_evaluated(tmp_path):
    class Source:
        num_examples, num_classes = 40, 3

    with pytest.raises(FileNotFoundError, match="holds no checkpoint: train first"):
        models.load_trained_model(make_config(model_dir=str(tmp_path)), Source())

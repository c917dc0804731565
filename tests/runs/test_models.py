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


@pytest.mark.parametrize("train_mode", ["pretrain", "supervised"])
def test_a_seed_gives_the_same_weights_however_often_and_whatever_was_drawn_before(train_mode):
    config = make_config(seed=5, train_mode=train_mode)
    first = weights(models.initial_model(config, 40, 3))
    keras.layers.Dense(7).build([None, 7])  # draws random numbers
    random.random(), np.random.random()
    assert are_equal(first, weights(models.initial_model(config, 40, 3)))
    other = weights(models.initial_model(override(config, {"seed": 6}), 40, 3))
    kernels = [index for index, weight in enumerate(first) if weight.ndim > 1]
    assert len(kernels) > 4 and not any(np.array_equal(first[index], other[index]) for index in kernels)


def test_builders_seed_nothing():
    keras.utils.set_random_seed(1)
    expected = random.random(), np.random.random()
    keras.utils.set_random_seed(1)
    first, second = (weights(builders.build_model(make_config(seed=1), 40, 3)) for _ in range(2))
    assert (random.random(), np.random.random()) == expected
    assert not are_equal(first, second)


def test_a_run_without_weights_is_not_evaluated(tmp_path):
    class Source:
        num_examples, num_classes = 40, 3

    with pytest.raises(FileNotFoundError, match="holds no checkpoint: train first"):
        models.load_trained_model(make_config(model_dir=str(tmp_path)), Source())

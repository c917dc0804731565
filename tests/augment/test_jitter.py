"""Colour jitter against tf.image, image by image, and against the reference's numbers."""

import itertools

import augment_oracle
import numpy as np
import pytest
import tensorflow as tf
from augment_oracle import make_images

from tf_simclr.augment import ColorJitter
from tf_simclr.augment.jitter import BRIGHTNESS

ORDERS = list(itertools.permutations(range(4)))


def make_draws(orders, factor_draws, apply=0.0):
    """Draws of `ColorJitter` for these orders: the key of each of the four is its position."""
    keys = np.argsort(orders, axis=1) / 4.0
    return np.concatenate((np.full((len(orders), 1), apply), factor_draws, keys), axis=1).astype(np.float32)


def jitter(images, draws, **settings):
    planes = ColorJitter(**settings)(tf.unstack(images, axis=-1), tf.constant(draws))
    return np.stack(planes, axis=-1)


@pytest.mark.parametrize("strength", [0.5, 1.0, 1.6])
@pytest.mark.parametrize("brightness", BRIGHTNESS)
def test_jitter_equals_tf_image_in_all_orders(strength, brightness):
    images = make_images(24)
    factor_draws = np.random.default_rng(2).random((24, 4))
    factor_draws[:2] = [[0] * 4, [1] * 4]
    actual = jitter(images, make_draws(ORDERS, factor_draws), strength=strength, brightness=brightness)
    for image, draws, order, result in zip(images, factor_draws, ORDERS, actual, strict=True):
        additive = brightness == "additive"
        factors = augment_oracle.factors_of(draws, strength, additive)
        expected = augment_oracle.jitter(image, factors, order, additive)
        np.testing.assert_allclose(result, expected, atol=1e-5, err_msg=str(order))


def test_overshoot_reaches_the_first_operator_unclipped():
    orders = [order for order in ORDERS if set(order[:2]) != {2, 3}]
    images = make_images(len(orders), -0.1, 1.1)
    factor_draws = np.random.default_rng(3).random((len(orders), 4))
    actual = jitter(images, make_draws(orders, factor_draws), strength=1.0)
    for image, draws, order, result in zip(images, factor_draws, orders, actual, strict=True):
        expected = augment_oracle.jitter(image, augment_oracle.factors_of(draws, 1.0), order)
        np.testing.assert_allclose(result, expected, atol=1e-5, err_msg=str(order))


def test_a_full_turn_of_the_hue_and_strong_jitter():
    images = make_images(4)
    factor_draws = np.random.default_rng(4).random((4, 4))
    settings = {"strength": 5.0}  # The hue shifts by up to a full turn, and factors reach from 0 to 5.
    factor_draws[:, 3] = [0, 1, 0.5, 0.8]
    actual = jitter(images, make_draws(ORDERS[:4], factor_draws), **settings)
    for image, draws, order, result in zip(images, factor_draws, ORDERS, actual, strict=False):
        expected = augment_oracle.jitter(image, augment_oracle.factors_of(draws, **settings), order)
        np.testing.assert_allclose(result, expected, atol=3e-5, err_msg=str(order))


def test_only_the_chosen_images_change():
    images = make_images(3, -0.1, 1.1)
    draws = make_draws(ORDERS[:3], np.full((3, 4), 0.9))
    draws[:, 0] = [0.79, 0.81, 0.0]
    actual = jitter(images, draws, strength=1.0, probability=0.8)
    assert np.abs(actual[[0, 2]] - images[[0, 2]]).min(axis=0).max() > 0.01
    np.testing.assert_array_equal(actual[1], images[1])
    np.testing.assert_array_equal(jitter(images, draws, strength=1.0, probability=0.0), images)


def test_operators_equal_the_reference(golden_dir):
    golden = np.load(golden_dir / "image_ops.npz")
    names = ("brightness_mul", "contrast", "saturation", "hue")
    for image in ("img0", "img1", "img2"):
        values = [(index, value) for index in range(3) for value in (0.2, 1.0, 1.7)]
        values += [(3, value) for value in (-0.2, -0.05, 0.1, 0.2)]
        # Strength 1 turns 0.5 into "no change".
        factor_draws = np.full((len(values), 4), 0.5)
        for row, (index, value) in zip(factor_draws, values, strict=True):
            row[index] = (value - 0.2) / 1.6 if index < 3 else (value / 0.2 + 1) / 2
        images = np.stack([golden[image]] * len(values))
        actual = jitter(images, make_draws(ORDERS[: len(values)], factor_draws), strength=1.0)
        for result, (index, value) in zip(actual, values, strict=True):
            expected = np.clip(golden[f"{image}/{names[index]}_{value}"], 0, 1)
            result = result[: len(expected)]
            np.testing.assert_allclose(result, expected, atol=1e-5, err_msg=f"{names[index]} {value}")

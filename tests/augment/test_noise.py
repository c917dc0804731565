"""Gaussian noise against the normal distribution."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tf_simclr.augment import GaussianNoise

SIZE = 40


def noise_of(draws, operator):
    """What is added to grey images, [n, 3, H, W]."""
    planes = [tf.fill([len(draws), SIZE, SIZE], 0.5)] * 3
    return np.stack(operator(planes, tf.constant(draws, tf.float32)), axis=1) - 0.5


def test_noise_is_normal_with_the_standard_deviation_that_was_drawn():
    rng = np.random.default_rng(0)
    draws = rng.integers(0, 2**23, [8, 5]) * 2.0**-23
    draws[:, 0], draws[:, 1] = 0.4, np.linspace(0.1, 0.9, 8)
    noise = noise_of(draws, GaussianNoise(max_sigma=0.05))
    assert noise.dtype == np.float32
    for image, share in zip(noise, draws[:, 1], strict=True):
        assert stats.kstest(image.ravel() / (0.05 * share), "norm").pvalue > 1e-3
    # Neither neighbours in an image, nor channels, nor images have anything in common.
    rows = (noise / draws[:, 1, None, None, None]).reshape(24, -1)
    assert np.abs(np.corrcoef(rows) - np.eye(24)).max() < 0.12  # 4.8 standard errors
    assert np.abs(np.corrcoef(noise[..., :-1].ravel(), noise[..., 1:].ravel())[0, 1]) < 0.03


def test_only_some_images_get_noise_and_equal_keys_the_same():
    draws = np.full([3, 5], 0.25)
    draws[1, 0] = 0.75
    noise = noise_of(draws, GaussianNoise(0.5))
    assert noise[0].any() and not noise[1].any()
    np.testing.assert_array_equal(noise[2], noise[0])


def test_no_noise_is_the_identity():
    assert GaussianNoise(max_sigma=0).is_identity and GaussianNoise(0).is_identity and not GaussianNoise().is_identity
    with pytest.raises(ValueError, match="`GaussianNoise.max_sigma` must not be negative. Received: -1"):
        GaussianNoise(max_sigma=-1)

"""Rotations against tf.image.rot90, and their shares."""

import numpy as np
import tensorflow as tf

from tf_simclr.augment import RandomRotation, example_keys
from tf_simclr.augment.draws import uniform


def test_rotations_equal_tf_image():
    images = np.random.default_rng(0).random((5, 3, 7, 7), np.float32)
    draws = np.float32([[0.2, 0.0], [0.2, 0.4], [0.2, 0.99], [0.8, 0.4], [0.74, 0.32]])
    rotated = RandomRotation()(images, draws)
    for image, result, turns in zip(images, rotated, (1, 2, 3, 0, 1), strict=True):
        expected = tf.image.rot90(tf.transpose(image, (1, 2, 0)), turns)
        np.testing.assert_array_equal(tf.transpose(result, (1, 2, 0)), expected)


def test_all_four_angles_are_equally_likely():
    image = np.arange(3 * 4, dtype=np.float32).reshape(1, 3, 2, 2)
    draws = uniform(0, example_keys(0, 0, 4000), [0], {6: 2})[6]
    rotated = RandomRotation()(np.tile(image, (4000, 1, 1, 1)), draws).numpy()
    shares = [np.mean(np.all(rotated == np.rot90(image, turns, axes=(2, 3)), axis=(1, 2, 3))) for turns in range(4)]
    np.testing.assert_allclose(shares, 0.25, atol=0.03)  # 4.4 standard errors

"""Grayscale against tf.image and against the reference's numbers."""

import numpy as np
import tensorflow as tf
from augment_oracle import make_images

from tf_simclr.augment import RandomGrayscale


def test_grayscale_equals_tf_image():
    images = make_images(3)
    draws = tf.constant([[0.1], [0.3], [0.19]])
    actual = np.stack(RandomGrayscale()(tf.unstack(images, axis=-1), draws), axis=-1)
    expected = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(images))
    np.testing.assert_allclose(actual[[0, 2]], expected.numpy()[[0, 2]], atol=1e-6)
    np.testing.assert_array_equal(actual[1], images[1])


def test_grayscale_equals_the_reference(golden_dir):
    golden = np.load(golden_dir / "image_ops.npz")
    for image in ("img0", "img1", "img2"):
        gray = RandomGrayscale(1.0)(tf.unstack(golden[image][None], axis=-1), tf.zeros((1, 1)))
        expected = golden[f"{image}/gray"]
        np.testing.assert_allclose(np.stack(gray, -1)[0, : len(expected)], expected, atol=1e-6)

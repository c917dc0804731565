"""Edges against tf.image.sobel_edges."""

import numpy as np
import tensorflow as tf

from tf_simclr.augment import Sobel


def test_edges_are_those_of_tf_image_up_to_a_factor():
    images = np.random.default_rng(0).random((3, 9, 12, 3), np.float32)
    images[0] *= 0.4
    edges = np.stack(Sobel()(tf.unstack(images, axis=-1), np.float32([[0.4], [0.6], [0.0]])), axis=-1)
    expected = np.linalg.norm(tf.image.sobel_edges(tf.constant(images)), axis=-1)
    expected /= expected.max(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(edges[::2], expected[::2], atol=1e-6)
    np.testing.assert_array_equal(edges[1], images[1])


def test_the_strongest_edge_becomes_white_and_noise_stays_dark():
    step = np.repeat(np.float32([0, 0, 0, 1, 1, 1]), 6).reshape(1, 6, 6)
    edge = np.repeat(np.float32([0, 0, 1, 1, 0, 0]), 6).reshape(1, 6, 6)
    planes = [step.transpose(0, 2, 1), 0.5 - 0.1 * step, np.full_like(step, 0.7)]
    strong = Sobel(1.0)([0.3 * plane for plane in planes], np.zeros((1, 1), np.float32))
    faint = Sobel(1.0)([0.05 * plane for plane in planes], np.zeros((1, 1), np.float32))
    for found, factor in ((strong, 1.0), (faint, 0.5)):
        np.testing.assert_allclose(found[0], factor * edge.transpose(0, 2, 1), atol=1e-6)
        np.testing.assert_allclose(found[1], factor * 0.1 * edge, atol=1e-6)
        np.testing.assert_allclose(found[2], 0.0, atol=1e-6)

"""Edges against tf.image.sobel_edges."""

import numpy as np
import tensorflow as tf

from tf_simclr.augment import Sobel


def test_edges_are_a_quarter_of_tf_images():
    images = np.random.default_rng(0).random((3, 9, 12, 3), np.float32)
    images[0, :, :6] = 0.0
    edges = np.stack(Sobel()(tf.unstack(images, axis=-1), np.float32([[0.4], [0.6], [0.0]])), axis=-1)
    expected = np.minimum(np.linalg.norm(tf.image.sobel_edges(tf.constant(images)), axis=-1) / 4, 1.0)
    np.testing.assert_allclose(edges[::2], expected[::2], atol=1e-6)
    np.testing.assert_array_equal(edges[1], images[1])


def test_a_straight_edge_becomes_white_and_a_surface_black():
    step = np.repeat(np.float32([0, 0, 0, 1, 1, 1]), 6).reshape(1, 6, 6)
    for plane in (step, step.transpose(0, 2, 1)):
        edges = Sobel(1.0)([plane, 1 - plane, np.full_like(plane, 0.7)], np.zeros((1, 1), np.float32))
        expected = np.abs(step - np.float32([0.5])) * 0
        expected[:, 2:4] = 1.0
        expected = expected if plane is step else expected.transpose(0, 2, 1)
        np.testing.assert_array_equal(edges[0], expected)
        np.testing.assert_array_equal(edges[1], expected)
        np.testing.assert_allclose(edges[2], 0.0, atol=1e-6)

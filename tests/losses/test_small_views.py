"""Small views, which look for the large ones and are no candidates themselves."""

import numpy as np
import pytest
import tensorflow as tf
from oracles import contrast as slow_contrast

from tf_simclr.losses import DCL, NTXent, Pairs


def projections(num_views, num_images=5, width=4):
    return tf.constant(np.random.default_rng(num_views).normal(size=[num_views * num_images, width]))


@pytest.mark.parametrize(("num_views", "num_large"), [(3, 2), (6, 2), (5, 3), (4, 4)])
@pytest.mark.parametrize("loss", [NTXent(0.3), DCL(0.3)])
def test_small_views_look_for_the_large_ones(loss, num_views, num_large):
    z = projections(num_views)
    value, metrics = loss(z, Pairs(num_views, num_large=num_large))
    expected = slow_contrast(
        np.reshape(z, [num_views, 5, -1]), 0.3, exclude_positives=isinstance(loss, DCL), num_large=num_large
    )
    np.testing.assert_allclose([value, *metrics.values()], expected, rtol=1e-10)


@pytest.mark.parametrize("loss", [NTXent(0.3), DCL(0.3)])
def test_gradient_with_small_views_equals_finite_differences(loss):
    z, direction = projections(5), tf.reverse(projections(5), [0])
    pairs = Pairs(5, num_large=3)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = loss(z, pairs)[0]
    slope = tf.reduce_sum(tape.gradient(value, z) * direction)
    difference = loss(z + 1e-5 * direction, pairs)[0] - loss(z - 1e-5 * direction, pairs)[0]
    np.testing.assert_allclose(slope, difference / 2e-5, rtol=1e-6)


@pytest.mark.parametrize("num_large", [1, 4])
def test_there_must_be_two_large_views(num_large):
    with pytest.raises(ValueError, match=f"large views.* Received: {num_large}"):
        Pairs(3, num_large=num_large)

"""The decoupled contrastive loss against loops over its formula, finite differences, and one replica."""

import numpy as np
import pytest
import tensorflow as tf
from oracles import contrast as slow_contrast
from replicas import mirrored

from tf_simclr import distribute
from tf_simclr.losses import DCL, Pairs


def projections(num_views, num_images=7, width=5):
    return tf.constant(np.random.default_rng(num_images).normal(size=[num_views * num_images, width]))


@pytest.mark.parametrize("num_views", [2, 3])
@pytest.mark.parametrize(("temperature", "normalize"), [(0.1, True), (1.0, False)])
def test_equals_loops_over_its_formula(num_views, temperature, normalize):
    z = projections(num_views)
    loss, metrics = DCL(temperature, normalize)(z, Pairs(num_views))
    views = np.reshape(z, [num_views, -1, z.shape[-1]])
    expected = slow_contrast(views, temperature, normalize=normalize, exclude_positives=True)
    np.testing.assert_allclose([loss, *metrics.values()], expected, rtol=1e-12)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradient_equals_finite_differences(jit_compile):
    z, direction = projections(3, 4), tf.reshape(projections(3, 8)[:12], [12, 5])

    @tf.function(jit_compile=jit_compile)
    def compare(z):
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss, _ = DCL(0.2)(z, Pairs(3))
        return loss, tape.gradient(loss, z)

    slope = tf.reduce_sum(compare(z)[1] * direction)
    difference = compare(z + 1e-5 * direction)[0] - compare(z - 1e-5 * direction)[0]
    np.testing.assert_allclose(slope, difference / 2e-5, rtol=1e-7)


def test_replicas_together_have_the_loss_and_the_gradient_of_one():
    z, strategy = projections(2, 8), mirrored(2)
    halves = [tf.concat([z[4 * i : 4 * i + 4], z[8 + 4 * i : 12 + 4 * i]], axis=0) for i in range(2)]

    @tf.function
    def compare(z):
        pairs = Pairs(gather=distribute.gather, replica_id=distribute.replica_id())
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = DCL(0.5)(z, pairs)[0] / 2
        return loss, tape.gradient(loss, z)

    parts = strategy.experimental_distribute_values_from_function(
        lambda context: halves[context.replica_id_in_sync_group]
    )
    losses, gradients = (strategy.experimental_local_results(value) for value in strategy.run(compare, [parts]))
    with tf.GradientTape() as tape:
        tape.watch(z)
        expected, _ = DCL(0.5)(z)
    np.testing.assert_allclose(sum(losses), expected, rtol=1e-12)
    whole = tape.gradient(expected, z)
    for index, gradient in enumerate(gradients):
        rows = np.r_[4 * index : 4 * index + 4, 8 + 4 * index : 12 + 4 * index]
        np.testing.assert_allclose(gradient, tf.gather(whole, rows), rtol=1e-10, atol=1e-14)

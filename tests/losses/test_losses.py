"""NT-Xent against a transcription of the paper, the reference's numbers and finite differences."""

import math

import numpy as np
import pytest
import tensorflow as tf
from oracles import nt_xent_loss as slow_nt_xent_loss

from tf_simclr.losses import blocked, nt_xent, nt_xent_loss


def whole_matrix(z, temperature):
    """Loss, accuracy and entropy from the matrix of all similarities, as the formulas have them."""
    z = tf.math.l2_normalize(z, axis=-1)
    logits = tf.linalg.set_diag(tf.matmul(z, z, transpose_b=True) / temperature, tf.fill([len(z)], z.dtype.min))
    targets = np.roll(np.arange(len(z)), len(z) // 2)
    probabilities = tf.nn.softmax(logits)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
    entropies = -tf.reduce_sum(tf.math.xlogy(probabilities, probabilities), axis=-1)
    return tf.reduce_mean(losses), np.mean(np.argmax(logits, axis=-1) == targets), tf.reduce_mean(entropies)


@pytest.mark.parametrize("num_pairs", [1, 2, 7])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_equals_algorithm_1_of_the_paper(num_pairs, normalize, temperature):
    z = np.random.default_rng(num_pairs).normal(size=[2 * num_pairs, 5])
    loss = nt_xent_loss(tf.constant(z), temperature, normalize=normalize)
    expected = slow_nt_xent_loss(z[:num_pairs], z[num_pairs:], temperature, normalize)
    np.testing.assert_allclose(loss, expected, rtol=1e-12, atol=1e-12)


def test_equals_half_the_reference(golden_dir):
    golden = np.load(golden_dir / "nt_xent.npz")
    settings = sorted(name.removesuffix("/grad") for name in golden if name.endswith("/grad"))
    assert settings
    for setting in settings:
        case, temperature, norm = setting.split("/")
        z = tf.constant(golden[f"{case}/hidden"])
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = nt_xent_loss(z, float(temperature[1:]), normalize=norm == "norm1")
        np.testing.assert_allclose(2 * loss, golden[f"{setting}/loss_sum_of_views"], rtol=2e-5, err_msg=setting)
        expected = golden[f"{setting}/grad"]
        gradient = 2 * tape.gradient(loss, z)
        np.testing.assert_allclose(gradient, expected, atol=2e-5 * np.abs(expected).max(), err_msg=setting)


def test_gradient_equals_finite_differences():
    rng = np.random.default_rng(0)
    z, direction = tf.constant(rng.normal(size=[2, 8, 4]))
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = nt_xent_loss(z, 0.2)
    slope = tf.reduce_sum(tape.gradient(loss, z) * direction)
    step = 1e-5
    difference = nt_xent_loss(z + step * direction, 0.2) - nt_xent_loss(z - step * direction, 0.2)
    np.testing.assert_allclose(slope, difference / (2 * step), rtol=1e-7)


def test_equal_projections_give_log_of_the_candidates():
    loss = nt_xent_loss(tf.ones([2 * 6, 3]), 0.5)
    np.testing.assert_allclose(loss, math.log(2 * 6 - 1), rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_half_precision_projections_are_compared_in_float32(dtype):
    z = tf.cast(tf.random.stateless_normal([64, 16], seed=[0, 1]), dtype)
    loss = nt_xent_loss(z, 0.01)
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(loss, nt_xent_loss(tf.cast(z, tf.float32), 0.01), rtol=1e-6)


def test_rejects_a_temperature_that_is_not_positive():
    with pytest.raises(ValueError, match="temperature must be positive. Received: 0"):
        nt_xent_loss(tf.ones([4, 2]), 0.0)


@pytest.mark.parametrize(("block", "jit_compile"), [(1, False), (5, False), (5, True), (14, False), (100, False)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(tf.float64, 1e-12), (tf.float32, 1e-6)])
def test_blocks_add_up_to_the_whole_matrix(block, jit_compile, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(blocked, "ANCHORS_PER_BLOCK", block)
    z = tf.cast(np.random.default_rng(block).normal(size=[28, 6]), dtype)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        found = tf.function(nt_xent, jit_compile=jit_compile)(z, 0.2)
        expected = whole_matrix(z, 0.2)
        objectives = 7 * found.loss, 7 * expected[0]
    np.testing.assert_allclose(found, expected, rtol=tolerance)
    gradient, expected = (tape.gradient(objective, z) for objective in objectives)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_blocks_of_anchors_against_gathered_candidates(monkeypatch):
    monkeypatch.setattr(blocked, "ANCHORS_PER_BLOCK", 3)
    z = tf.constant(np.random.default_rng(0).normal(size=[24, 6]))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        pairs = tf.stack(tf.split(z, 2), axis=1)
        # Three replicas; what each of them gathers is all pairs.
        replicas = [
            nt_xent(
                tf.concat(tf.unstack(pairs[4 * index : 4 * index + 4], axis=1), axis=0),
                0.2,
                gather=lambda local: tf.math.l2_normalize(pairs, axis=-1),
                replica_id=tf.constant(index),
            )
            for index in range(3)
        ]
        found = [tf.reduce_mean(values) for values in zip(*replicas, strict=True)]
        expected = whole_matrix(z, 0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(tape.gradient(found[0], z), tape.gradient(expected[0], z), rtol=0, atol=1e-12)


def test_metrics_of_perfect_and_of_equal_projections():
    perfect = nt_xent(tf.tile(tf.eye(4), [2, 1]), 0.05)
    assert perfect.accuracy == 1.0
    np.testing.assert_allclose(perfect.entropy, 0.0, atol=1e-5)
    np.testing.assert_allclose(nt_xent(tf.ones([8, 3]), 0.05).entropy, math.log(7), rtol=1e-5)


def test_accuracy_counts_negatives_of_the_same_view():
    # The anchor's nearest candidate is another image's *same* view, which cross-view accuracy would not see.
    z = tf.constant([[1.0, 0.0], [0.99, 0.1], [0.6, 0.8], [0.6, -0.8]])
    cosines = z / np.linalg.norm(z, axis=1, keepdims=True)
    similarity = cosines @ tf.transpose(cosines) - 9 * tf.eye(4)
    expected = np.mean(np.argmax(similarity, axis=1) == [2, 3, 0, 1])
    assert nt_xent(z, 1.0).accuracy == expected < 1

"""NT-Xent against a transcription of the paper, the reference's numbers and finite differences."""

import math

import numpy as np
import pytest
import tensorflow as tf
from oracles import nt_xent_loss as slow_nt_xent_loss

from tf_simclr import metrics
from tf_simclr.losses import nt_xent_logits, nt_xent_loss


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


def test_metrics_of_perfect_and_of_equal_projections():
    z = tf.tile(tf.eye(4), [2, 1])
    logits, targets = nt_xent_logits(z, 0.05)
    assert metrics.contrastive_accuracy(logits, targets) == 1.0
    np.testing.assert_allclose(metrics.contrastive_entropy(logits), 0.0, atol=1e-5)
    logits, _ = nt_xent_logits(tf.ones([8, 3]), 0.05)
    np.testing.assert_allclose(metrics.contrastive_entropy(logits), math.log(7), rtol=1e-5)


def test_accuracy_counts_negatives_of_the_same_view():
    # The anchor's nearest candidate is another image's *same* view, which cross-view accuracy would not see.
    z = tf.constant([[1.0, 0.0], [0.99, 0.1], [0.6, 0.8], [0.6, -0.8]])
    logits, targets = nt_xent_logits(z, 1.0)
    cosines = z / np.linalg.norm(z, axis=1, keepdims=True)
    similarity = cosines @ tf.transpose(cosines) - 9 * tf.eye(4)
    expected = np.mean(np.argmax(similarity, axis=1) == [2, 3, 0, 1])
    assert metrics.contrastive_accuracy(logits, targets) == expected < 1

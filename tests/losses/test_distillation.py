"""What a student is told by its teacher, against loops over the papers' formula, and its gradient."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.losses.distillation import cosine_similarity, soft_cross_entropy, squared_distance

STUDENT, TEACHER = np.random.default_rng(0).normal(scale=2.0, size=[2, 5, 4])


def cross_entropy_in_loops(student, teacher, temperature):
    """-sum_y P_T(y) log P_S(y) with P(y) = exp(z_y / t) / sum_k exp(z_k / t), then the mean over the rows."""
    rows = []
    for ours, theirs in zip(student, teacher, strict=True):
        of_student = sum(math.exp(value / temperature) for value in ours)
        of_teacher = sum(math.exp(value / temperature) for value in theirs)
        rows.append(
            -sum(
                math.exp(theirs[y] / temperature) / of_teacher * math.log(math.exp(ours[y] / temperature) / of_student)
                for y in range(len(ours))
            )
        )
    return sum(rows) / len(rows)


def distances_in_loops(student, teacher):
    """The mean of 1 - cos, and the mean of the squares."""
    angles, squares = [], []
    for ours, theirs in zip(student, teacher, strict=True):
        product = sum(a * b for a, b in zip(ours, theirs, strict=True))
        angles.append(1 - product / (math.hypot(*ours) * math.hypot(*theirs)))
        squares += [(a - b) ** 2 for a, b in zip(ours, theirs, strict=True)]
    return sum(angles) / len(angles), sum(squares) / len(squares)


LOSSES = {
    "t 0.1": (lambda s, t: soft_cross_entropy(s, t, 0.1), lambda s, t: cross_entropy_in_loops(s, t, 0.1)),
    "t 1": (soft_cross_entropy, lambda s, t: cross_entropy_in_loops(s, t, 1.0)),
    "cosine": (lambda s, t: 1 - cosine_similarity(s, t), lambda s, t: distances_in_loops(s, t)[0]),
    "squared": (squared_distance, lambda s, t: distances_in_loops(s, t)[1]),
}


@pytest.mark.parametrize(("loss", "in_loops"), LOSSES.values(), ids=LOSSES)
def test_a_loss_is_the_formula_and_its_gradient_the_slope(loss, in_loops):
    student = tf.Variable(STUDENT)
    with tf.GradientTape() as tape:
        value = loss(student, tf.constant(TEACHER))
    assert float(value) == pytest.approx(in_loops(STUDENT, TEACHER), rel=1e-10)
    slopes, step = np.zeros_like(STUDENT), 1e-6
    for index in np.ndindex(STUDENT.shape):
        ends = []
        for sign in (1, -1):
            moved = STUDENT.copy()
            moved[index] += sign * step
            ends.append(in_loops(moved, TEACHER))
        slopes[index] = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(tape.gradient(value, student), slopes, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_the_gradient_has_no_factor_of_the_temperature_squared(temperature):
    student = tf.Variable(STUDENT)
    with tf.GradientTape() as tape:
        value = soft_cross_entropy(student, tf.constant(TEACHER), temperature)
    of_student, of_teacher = (tf.nn.softmax(logits / temperature) for logits in (STUDENT, TEACHER))
    expected = (of_student - of_teacher) / temperature / len(STUDENT)
    np.testing.assert_allclose(tape.gradient(value, student), expected, atol=1e-12)


def test_a_student_that_agrees_has_no_gradient_and_a_row_of_zeros_no_angle():
    student = tf.Variable(TEACHER + 7.0)  # Softmax does not see a shift.
    with tf.GradientTape() as tape:
        value = soft_cross_entropy(student, tf.constant(TEACHER), 0.1)
    assert np.abs(tape.gradient(value, student)).max() < 1e-12
    assert float(cosine_similarity(tf.zeros([1, 3]), tf.ones([1, 3]))) == 0.0


def test_hard_logits_at_a_low_temperature_stay_finite():
    hard = tf.constant([[3e4, -3e4]])
    assert math.isfinite(float(soft_cross_entropy(hard, -hard, 0.1)))

"""Losses between what a student and a teacher say of the same views."""

import tensorflow as tf


def soft_cross_entropy(student: tf.Tensor, teacher: tf.Tensor, temperature: float = 1.0) -> tf.Tensor:
    """Mean cross entropy of the student's class probabilities with the teacher's, both softmax(logits / temperature).

    There is no factor temperature^2, which Hinton et al. (2015) add and SimCLR v2 does not: the gradient with respect
    to the student's logits is (P_student - P_teacher) / temperature.

    >>> loss = soft_cross_entropy(tf.constant([[2.0, 0.0]]), tf.constant([[0.0, 0.0]]))
    >>> f"{loss:.4f}"
    '1.1269'

    Args:
      student: Logits, float [n, C].
      teacher: Logits, float [n, C]; logarithms of probabilities will do.
      temperature: t > 0.

    Returns:
      Scalar; its least value is the mean entropy of the teacher's probabilities.

    Source: Chen et al., "Big Self-Supervised Models are Strong Semi-Supervised Learners" (2020), equation 2.
    """
    probabilities = tf.nn.softmax(tf.cast(teacher, student.dtype) / temperature)
    return -tf.reduce_mean(tf.reduce_sum(probabilities * tf.nn.log_softmax(student / temperature), axis=1))


def cosine_similarity(student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """Mean cosine of the angle between the rows of two tensors, float [n, W]; a row of zeros has 0 with any other."""
    rows = tf.nn.l2_normalize(student, axis=1), tf.nn.l2_normalize(tf.cast(teacher, student.dtype), axis=1)
    return tf.reduce_mean(tf.reduce_sum(rows[0] * rows[1], axis=1))


def squared_distance(student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """Mean squared difference of the entries of two tensors, float [n, W]."""
    return tf.reduce_mean(tf.math.squared_difference(student, tf.cast(teacher, student.dtype)))

"""Metrics of classifiers."""

import numpy as np
import tensorflow as tf


def classification_loss(logits: tf.Tensor, labels: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean cross entropy and accuracy of class logits.

    >>> loss, accuracy = classification_loss(tf.constant([[2.0, 0.0], [2.0, 0.0]]), tf.constant([0, 1]))
    >>> f"{loss:.4f}", f"{accuracy:.2f}"
    ('1.1269', '0.50')

    Args:
      logits: Float [V n, C], of V views of n images, view after view; half precision is compared in float32.
      labels: Integers [n], or [n, 1], in [0, C).

    Returns:
      loss: Scalar >= 0.
      accuracy: float32 scalar in [0, 1].

    Raises:
      ValueError: If there are no labels.
    """
    if labels is None:
        raise ValueError("A classifier needs batches of (images, labels). Received: images alone")
    if logits.dtype in (tf.float16, tf.bfloat16):
        logits = tf.cast(logits, tf.float32)
    labels = tf.reshape(tf.cast(labels, tf.int64), [-1])
    labels = tf.tile(labels, [tf.shape(logits)[0] // tf.shape(labels)[0]])
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    hits = tf.equal(tf.argmax(logits, axis=-1, output_type=labels.dtype), labels)
    return tf.reduce_mean(losses), tf.reduce_mean(tf.cast(hits, tf.float32))


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """Share of the rows whose label is among the k classes of the highest scores; ties go to the lower class.

    >>> top_k_accuracy(np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]]), np.array([2, 0]))
    0.5
    >>> top_k_accuracy(np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]]), np.array([2, 0]), k=2)
    1.0

    Args:
      scores: Floats [M, C].
      labels: Integers [M] in [0, C).
      k: Number of top classes that count, at least 1.

    Returns:
      Accuracy in [0, 1].
    """
    top_classes = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.mean(np.any(top_classes == labels[:, None], axis=1)))

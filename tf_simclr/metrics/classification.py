"""Metrics of classifiers."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

# The label of an example whose class is not known.
UNKNOWN = -1

# Rows of logits that are compared at a time.
_BLOCK_ROWS = 1 << 12


def classification_loss(
    logits: tf.Tensor,
    labels: tf.Tensor | None,
    weights: tf.Tensor | None = None,
    total: Callable[[tf.Tensor], tf.Tensor] = lambda counts: counts,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean cross entropy and accuracy of class logits, over the examples whose label is known.

    >>> loss, accuracy = classification_loss(tf.constant([[2.0, 0.0], [2.0, 0.0], [9.0, 9.0]]), tf.constant([0, 1, -1]))
    >>> f"{loss:.4f}", f"{accuracy:.2f}"
    ('1.1269', '0.50')

    Args:
      logits: Float [V n, C], of V views of n images, view after view; half precision is compared in float32.
      labels: Integers [n], or [n, 1], in [0, C), or -1 where the label is not known.
      weights: Factors of the examples' losses, float [n] or [n, 1]. As in Keras, they change neither the number that
        the sum of the losses is divided by nor the accuracy.
      total: Sums a tensor over the replicas, by default one: the mean over replicas of what this returns is then that
        of the whole batch, if all of them have as many images.

    Returns:
      loss: Scalar >= 0; 0 if no label is known.
      accuracy: float32 scalar in [0, 1]; 0 if no label is known.

    Raises:
      ValueError: If there are no labels, or they are no numbers of classes.
    """
    labels = flat_labels(labels)
    if logits.dtype in (tf.float16, tf.bfloat16):
        logits = tf.cast(logits, tf.float32)
    num_images, num_known = tf.unstack(total(tf.cast(tf.stack([tf.size(labels), count_known(labels)]), logits.dtype)))
    scale = num_images / tf.maximum(num_known, 1)  # Exactly 1 if all labels are known.
    num_views = tf.shape(logits)[0] // tf.shape(labels)[0]
    is_known = tf.tile(labels != UNKNOWN, [num_views])
    labels = tf.where(is_known, tf.tile(labels, [num_views]), 0)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if weights is not None:
        losses *= tf.tile(tf.reshape(tf.cast(weights, losses.dtype), [-1]), [num_views])
    hits = tf.equal(tf.argmax(logits, axis=-1, output_type=labels.dtype), labels) & is_known
    loss = tf.reduce_mean(tf.where(is_known, losses, 0)) * scale
    return loss, tf.reduce_mean(tf.cast(hits, tf.float32)) * tf.cast(scale, tf.float32)


def count_known(labels: tf.Tensor) -> tf.Tensor:
    """How many labels are known, int32 scalar."""
    return tf.math.count_nonzero(labels != UNKNOWN, dtype=tf.int32)


def flat_labels(labels: tf.Tensor | None) -> tf.Tensor:
    """Labels [n] or [n, 1] of any type of numbers as int64 [n]."""
    check_labels_spec(labels)
    return tf.reshape(tf.cast(labels, tf.int64), [-1])


def check_labels_spec(labels: tf.Tensor | tf.TensorSpec | None) -> None:
    """Raises a `ValueError` unless labels have a shape and a dtype of numbers of classes."""
    if labels is None:
        raise ValueError("A classifier needs batches of (images, labels). Received: images alone")
    if labels.dtype == tf.string or (labels.shape.rank or 1) > 1 and labels.shape[1:].num_elements() != 1:
        raise ValueError(
            "Labels must be the numbers of the classes, integers [n]: take tf.argmax of one-hot labels, and look names "
            f"up. Received: {labels.dtype.name} {labels.shape}"
        )


def check_labels(labels: np.ndarray, num_classes: int | None) -> None:
    """Raises a `ValueError` unless labels, of any type, [n] or [n, 1], are numbers of classes, or -1."""
    check_labels_spec(tf.TensorSpec(labels.shape, labels.dtype))
    is_right = (labels >= UNKNOWN) & (labels == np.floor(labels))
    if num_classes is not None:
        is_right &= labels < num_classes
    if not np.all(is_right):
        raise ValueError(wrong_label(labels[~is_right][0], num_classes))


def wrong_label(label: object, num_classes: object) -> str:
    """The sentence about a label that is no number of a class."""
    below = "" if num_classes is None else f" and below {num_classes}, the number of classes"
    return (
        f"Labels must be whole numbers, at least 0{below}, or -1 where the class is not known. "
        f"Received: a label of {label}"
    )


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
    return float(np.mean(rank_of_label(scores, labels) < k))


def rank_of_label(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before each example's label by score, int64 [M]; ties go to the lower class.

    >>> rank_of_label(np.array([[0.1, 0.7, 0.2], [0.4, 0.4, 0.2]]), np.array([2, 1]))
    array([1, 1])

    Args:
      scores: Floats [M, C]; a label whose score is NaN comes last.
      labels: Integers [M] in [0, C).
    """
    num_classes = scores.shape[1]
    of_label = scores[np.arange(len(labels)), labels][:, None]
    is_behind = (scores < of_label) | ((scores == of_label) & (np.arange(num_classes) > labels[:, None]))
    return num_classes - 1 - np.count_nonzero(is_behind, axis=1)


def calibrate(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Fits the temperature T > 0 for which the softmax of logits / T fits the labels best.

    As if each class had been seen once more on the M examples, the labels keep C / (M + C) of their weight for all
    classes alike. Without that, few examples that happen to be right would make the classifier certain.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), section 4.2; the weight of the labels: Platt,
    "Probabilistic Outputs for Support Vector Machines" (1999), section 2.2.

    >>> temperature, _ = calibrate(np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, 4.0]]), np.array([0, 1, 1, 0]))
    >>> temperature > 50  # Right in half of the cases: no class is more likely than the other.
    True

    Args:
      logits: Floats [M, C], of examples that the classifier was not fitted on; -inf for a class that no label names.
      labels: Integers [M] in [0, C).

    Returns:
      T in [0.01, 100], and the log-loss for it.
    """
    is_known = np.isfinite(logits[0])
    smoothing = is_known.sum() / (len(labels) + is_known.sum())
    # The mean logit by the weights of the targets; what is left of the log-loss does not depend on the labels.
    of_labels = np.take_along_axis(logits, labels[:, None], axis=1).sum(dtype=np.float64)
    of_classes = logits.mean(axis=1, where=is_known, dtype=np.float64).sum()
    of_targets = (1 - smoothing) * of_labels + smoothing * of_classes

    def log_loss(exponent: float) -> float:
        temperature = np.exp(exponent)
        partitions = 0.0
        for start in range(0, len(labels), _BLOCK_ROWS):
            known = logits[start : start + _BLOCK_ROWS, is_known].astype(np.float64)
            partitions += logsumexp(known / temperature, axis=1).sum()
        return float(partitions - of_targets / temperature) / len(labels)

    found = minimize_scalar(log_loss, bounds=np.log([0.01, 100]), method="bounded")
    return float(np.exp(found.x)), float(found.fun)

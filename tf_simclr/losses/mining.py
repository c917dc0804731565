"""How much each candidate of an anchor counts: all alike, or only the nearest negative behind the positive."""

import tensorflow as tf

from tf_simclr.losses import blocked


def find_negatives(products: tf.Tensor, itself: tf.Tensor, positives: tf.Tensor) -> tf.Tensor:
    """Which candidates are views of other images, or from a memory: bool [b, M].

    Args:
      products: Float tensor [b, M], of b anchors with all candidates.
      itself: int32 tensor [b], the candidate that is the anchor, or -1.
      positives: int32 tensor [b, P], the candidates that are other views of its image.
    """
    is_negative = ~blocked.is_row(itself, products)
    for positive in tf.unstack(positives, axis=1):
        is_negative &= ~blocked.is_row(positive, products)
    return is_negative


def weigh_all(is_chosen: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """The weights [b, M] of a mean over the chosen candidates, bool [b, M], of every anchor; zeros if it has none."""
    weights = tf.cast(is_chosen, dtype)
    return weights / tf.maximum(tf.reduce_sum(weights, axis=-1, keepdims=True), 1.0)


def weigh_semi_hard(
    products: tf.Tensor, is_negative: tf.Tensor, near: tf.Tensor, margin: float | None = None
) -> tf.Tensor:
    """Weight 1 for the semi-hard negative of every anchor: the nearest of those that are farther than the positive.

    >>> weigh_semi_hard(tf.constant([[0.9, 0.8, 0.1, 0.6]]), tf.constant([[False, True, True, True]]),
    ...                 tf.constant([[0.7]])).numpy().tolist()
    [[0.0, 0.0, 0.0, 1.0]]

    Source: Schroff et al., "FaceNet" (2015), section 3.2.

    Args:
      products: Float tensor [b, M].
      is_negative: bool tensor [b, M].
      near: Float tensor [b, 1], the products of the anchors with a positive.
      margin: Negatives that are farther than the positive by this or more do not count; `None` counts all.

    Returns:
      Float tensor [b, M]. A row without such a negative is all zeros.
    """
    fits = is_negative & (products < near)
    if margin is not None:
        fits &= products > near - margin
    nearest = tf.argmax(tf.where(fits, products, products.dtype.min), axis=-1, output_type=tf.int32)
    return tf.cast(fits & blocked.is_row(nearest, products), products.dtype)

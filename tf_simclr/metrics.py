"""How well the anchors of a batch find their positives."""

import tensorflow as tf


def contrastive_accuracy(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Share of anchors whose most similar candidate, among all 2N - 1, is their other view.

    Args:
      logits: Float tensor [2n, 2N] as `nt_xent_logits` returns it.
      targets: int tensor [2n], the positive's column.

    Returns:
      float32 scalar in [0, 1].
    """
    nearest = tf.argmax(logits, axis=-1, output_type=targets.dtype)
    return tf.reduce_mean(tf.cast(tf.equal(nearest, targets), tf.float32))


def contrastive_entropy(logits: tf.Tensor) -> tf.Tensor:
    """Mean entropy, in nats, of the anchors' softmax over the 2N - 1 candidates.

    It starts near log(2N - 1) and falls as the representation learns to single out the positives.

    Args:
      logits: Float tensor [2n, 2N] as `nt_xent_logits` returns it.

    Returns:
      Scalar in [0, log(2N - 1)].
    """
    probabilities = tf.nn.softmax(logits)
    # The masked logit is finite, and its probability is exactly zero: the product is zero, not NaN.
    return tf.reduce_mean(tf.reduce_sum(-probabilities * tf.nn.log_softmax(logits), axis=-1))

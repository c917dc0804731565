"""Uniform random numbers that follow from a seed alone."""

import tensorflow as tf


def uniform(shape: tuple[tf.Tensor | int, ...], seed: tf.Tensor) -> tf.Tensor:
    """Draws float32 numbers, uniform in [0, 1): the same on every device, with and without XLA.

    (The floats of `tf.random.stateless_uniform` are not: XLA takes other bits of the same integers for them.)

    Args:
      shape: Of the result.
      seed: integer `[k]`, k >= 2, for instance (seed, step). Every number in it counts.

    Returns:
      float32 tensor of that shape.
    """
    seed = tf.cast(seed, tf.int64)
    pair = seed[:2]
    for position in range(2, seed.shape[0]):
        pair = tf.random.experimental.stateless_fold_in(pair, seed[position], alg="philox")
    bits = tf.random.stateless_uniform(shape, pair, minval=None, maxval=None, dtype=tf.uint32, alg="philox")
    bits = tf.cast(tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32)), tf.int32)
    return tf.cast(bits, tf.float32) * 2.0**-23

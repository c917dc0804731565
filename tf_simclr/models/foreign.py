"""What networks that know nothing of this package need: a precision, and penalties on their weights."""

import contextlib
import functools
from collections.abc import Iterator

import tensorflow as tf

from tf_simclr.keras import keras


@contextlib.contextmanager
def under_policy(name: str) -> Iterator[None]:
    """Layers that are made in the block have the dtype policy of this name, unless they state another."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def penalize(network: keras.Model, l2: float) -> None:
    """Adds an L2 penalty, l2 / 2 * |w|^2, on the weights of a network; Keras adds it to the loss.

    It covers kernels and the biases beside them, as the reference's does. A layer that has only vectors, such as
    normalization, has none.

    Args:
      network: The network, with all its weights.
      l2: The coefficient; 0 adds nothing.
    """
    layers = [layer for layer in (network, *network.submodules) if isinstance(layer, keras.layers.Layer)]
    own = [layer._trainable_weights for layer in layers]
    beside = {id(weight) for weights in own if any(one.shape.rank > 1 for one in weights) for weight in weights}
    for weight in network.trainable_variables if l2 else ():
        if weight.shape.rank > 1 or id(weight) in beside:
            network.add_loss(functools.partial(_penalty, weight, l2))


def _penalty(weight: tf.Variable, l2: float) -> tf.Tensor:
    return l2 * tf.nn.l2_loss(weight)

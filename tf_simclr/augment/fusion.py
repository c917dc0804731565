"""Compiles parts of the augmentation with XLA where that pays."""

import functools
from collections.abc import Callable

import tensorflow as tf

from tf_simclr.devices import on_accelerator


def fused_on_cpu(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Compiles the function with XLA on machines without an accelerator.

    There it saves passes over the pixels. It pays for functions that do either arithmetic on planes or a change of
    layout: for both together, XLA repeats the arithmetic for every pixel that it moves, and its matrix products are
    slow. A GPU has bandwidth to spare, and its installation may lack the parts that XLA needs.
    """
    compiled = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> tf.Tensor:
        return (function if on_accelerator() else compiled)(*args, **kwargs)

    return call

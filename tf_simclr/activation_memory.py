"""Estimates the memory that a view takes in a training step, and the micro-batch that fits."""

import math

import tensorflow as tf

from tf_simclr.keras import keras

# The scope of operations whose outputs the backward pass does not need.
TEMPORARY = "temporary"
# Operations that put out what they take. IdentityN stands around every gradient of one's own.
_ALIASES = ("Identity", "IdentityN")


def bytes_per_view(encoder: keras.Model, image_size: int) -> int:
    """The size of what the operations of the encoder's forward pass put out, for one view, in bytes.

    The backward pass needs most of them; it allocates its own arrays as it frees these.

    Args:
      encoder: Any Keras model from images, float [B, S, S, 3], to representations [B, F].
      image_size: S, height and width of the views in pixels.
    """
    views = tf.TensorSpec([None, image_size, image_size, 3])
    graph = tf.function(lambda images: encoder(images, training=True)).get_concrete_function(views).graph
    operations = [
        operation
        for operation in graph.get_operations()
        if operation.type not in _ALIASES and TEMPORARY not in operation.name
    ]
    outputs = [output for operation in operations for output in operation.outputs if output.shape.rank]
    return sum(
        output.shape[1:].num_elements() * output.dtype.size
        for output in outputs
        if output.shape[0] is None and output.shape[1:].is_fully_defined()
    )


def suggest_microbatch(
    encoder: keras.Model,
    image_size: int,
    memory_bytes: float,
    num_views: int = 2,
    *,
    num_small_views: int = 0,
    small_view_size: int | None = None,
) -> int:
    """The largest power of two of images whose training step is estimated to fit in memory; at least 1.

    A view takes `bytes_per_view`. Weights count four times: themselves, gradients, their sum and the optimizer.

    Args:
      encoder: Any Keras model from images, float [B, S, S, 3], to representations [B, F].
      image_size: S, height and width of the views in pixels.
      memory_bytes: Memory that the step may take: the device's memory minus what else the program needs.
      num_views: Views of every image, without the small ones.
      num_small_views: Small views of every image.
      small_view_size: Height and width of these in pixels; by default half of `image_size`.
    """
    weights = sum(variable.shape.num_elements() * variable.dtype.size for variable in encoder.trainable_variables)
    per_image = num_views * bytes_per_view(encoder, image_size)
    if num_small_views:
        per_image += num_small_views * bytes_per_view(encoder, small_view_size or image_size // 2)
    fitting = (memory_bytes - 4 * weights) / per_image
    return 2 ** int(math.log2(max(1, fitting)))

"""How much memory a view takes in a training step, by an estimate, and which micro-batch fits."""

import math

import tensorflow as tf

from tf_simclr.keras import keras


def bytes_per_view(encoder: keras.Model, image_size: int) -> int:
    """What all operations of the encoder's forward pass put out for one view, in bytes.

    The backward pass needs most of it; its own arrays come when others have gone.

    Args:
      encoder: Any Keras model from images, float [B, S, S, 3], to representations [B, F].
      image_size: S, height and width of the views in pixels.
    """
    views = tf.TensorSpec([None, image_size, image_size, 3])
    graph = tf.function(lambda images: encoder(images, training=True)).get_concrete_function(views).graph
    operations = [operation for operation in graph.get_operations() if operation.type != "Identity"]
    outputs = [output for operation in operations for output in operation.outputs if output.shape.rank]
    return sum(
        output.shape[1:].num_elements() * output.dtype.size
        for output in outputs
        if output.shape[0] is None and output.shape[1:].is_fully_defined()
    )


def suggest_microbatch(encoder: keras.Model, image_size: int, memory_bytes: float, num_views: int = 2) -> int:
    """The largest power of two of images whose training step fits into a memory, by an estimate; at least 1.

    A view takes `bytes_per_view`. Weights count four times, for gradients, their sum and the optimizer.

    Args:
      encoder: Any Keras model from images, float [B, S, S, 3], to representations [B, F].
      image_size: S, height and width of the views in pixels.
      memory_bytes: What the step may take, less than the device's memory by what the program takes otherwise.
      num_views: Views of every image.
    """
    weights = sum(variable.shape.num_elements() * variable.dtype.size for variable in encoder.trainable_variables)
    fitting = (memory_bytes - 4 * weights) / (num_views * bytes_per_view(encoder, image_size))
    return 2 ** int(math.log2(max(1, fitting)))

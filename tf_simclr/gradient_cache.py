"""The exact gradient of a loss that compares all images of a large batch, in the memory of a small one.

Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (2021), section 3.2.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tf_simclr.keras import keras

Outputs = list[tf.Tensor]


def compute_gradients(
    encode: Callable[[Any], Outputs],
    compare: Callable[[Outputs], tuple[tf.Tensor, dict[str, tf.Tensor]]],
    batch: Any,
    variables: Sequence[tf.Variable],
    *,
    states: Sequence[tf.Variable],
    output_specs: Sequence[tf.TensorSpec],
    microbatch_size: int,
) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
    """Computes the gradient of `compare(encode(batch))`, with one micro-batch in the encoder at a time.

    First, all micro-batches are encoded without a tape. Comparing their outputs gives the gradient with respect to the
    outputs. Then every micro-batch is encoded again, with a tape that propagates its rows of that gradient to the
    variables.

    Micro-batches are images 0 to M - 1, M to 2M - 1 and so on. The last one is the last M images, so that all have one
    size; images that an earlier one has already encoded do not count twice.

    Args:
      encode: Maps a micro-batch to outputs [V m, F], view after view; called again, it returns the same outputs.
      compare: Maps the outputs of all images, [V n, F], to a scalar objective and values to observe.
      batch: Nested tensors [n, ...].
      variables: The variables to differentiate with respect to.
      states: Floating-point variables that `encode` changes, such as the moving averages of batch norm. They change
        once per call, to the mean of the values that each micro-batch alone would have left.
      output_specs: Dtypes and widths F of the outputs.
      microbatch_size: M > 0; a smaller batch is one micro-batch.

    Returns:
      gradients: One for every variable; zeros where the objective does not depend on it.
      observed: The values that `compare` returned.
    """
    parts = _Parts(batch, microbatch_size)
    starts = [state.read_value() for state in states]
    outputs = _encode_parts(encode, parts, output_specs)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        objective, observed = compare(outputs)
    slopes, gradients = tape.gradient(objective, (outputs, list(variables)), unconnected_gradients="zero")

    def add_part(index: tf.Tensor, gradients: Outputs, moved: Outputs) -> tuple[Any, ...]:
        for state, start in zip(states, starts, strict=True):
            state.assign(start)
        with tf.GradientTape() as tape:
            outputs = encode(parts.take(index))
        part_slopes = [parts.slopes(slope, index) for slope in slopes]
        more = tape.gradient(outputs, list(variables), part_slopes, unconnected_gradients="zero")
        gradients = [gradient + part for gradient, part in zip(gradients, more, strict=True)]
        return index + 1, gradients, [total + state.read_value() for total, state in zip(moved, states, strict=True)]

    _, gradients, moved = tf.while_loop(
        lambda index, *_: index < parts.count,
        add_part,
        (0, gradients, [tf.zeros_like(start) for start in starts]),
        parallel_iterations=1,
    )
    for state, total in zip(states, moved, strict=True):
        state.assign(total / tf.cast(parts.count, total.dtype))
    return gradients, observed


def encode_all(
    encode: Callable[[Any], Outputs], batch: Any, *, output_specs: Sequence[tf.TensorSpec], microbatch_size: int
) -> Outputs:
    """Computes `encode(batch)` in micro-batches, without a gradient; the arguments are those of `compute_gradients`."""
    return _encode_parts(encode, _Parts(batch, microbatch_size), output_specs)


def _encode_parts(encode: Callable[[Any], Outputs], parts: "_Parts", output_specs: Sequence[tf.TensorSpec]) -> Outputs:
    """The outputs of the whole batch, without a tape."""
    outputs = tf.map_fn(
        lambda index: [parts.by_image(output) for output in encode(parts.take(index))],
        tf.range(parts.count),
        fn_output_signature=[spec.dtype for spec in output_specs],
        parallel_iterations=1,
    )
    return [parts.join(output, spec.shape[-1]) for output, spec in zip(outputs, output_specs, strict=True)]


def check_layers(networks: Sequence[keras.layers.Layer], num_replicas: int) -> None:
    """Checks that layers can be called in micro-batches.

    Raises:
      ValueError: If a layer draws random numbers, which would differ in the second pass, or synchronizes replicas.
    """
    for layer in [layer for network in networks for layer in (network, *network.submodules)]:
        if isinstance(layer, keras.__internal__.layers.BaseRandomLayer) and getattr(layer, "rate", True):
            raise ValueError(
                "microbatch_size needs layers that repeat their output on the same micro-batch, and this one draws "
                f"random numbers. Received: {layer.name}"
            )
        if getattr(layer, "synchronized", False) and num_replicas > 1:
            raise ValueError(
                "With microbatch_size, batch-norm statistics are those of a replica's micro-batch: make the layers "
                f"with synchronized=False. Received: {layer.name} on {num_replicas} replicas"
            )


class _Parts:
    """The micro-batches of a batch, all of one size, and how their rows map to those of the batch."""

    def __init__(self, batch: Any, microbatch_size: int):
        self._batch = batch
        self._num_images = tf.shape(tf.nest.flatten(batch)[0])[0]
        self._size = tf.minimum(microbatch_size, self._num_images)
        self.count = (self._num_images + self._size - 1) // self._size

    def _rows(self, index: tf.Tensor) -> tf.Tensor:
        """The images of a micro-batch."""
        return tf.minimum(index * self._size, self._num_images - self._size) + tf.range(self._size)

    def take(self, index: tf.Tensor) -> Any:
        """A micro-batch."""
        rows = self._rows(index)
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), self._batch)

    def by_image(self, output: tf.Tensor) -> tf.Tensor:
        """A micro-batch's output [V m, F], view after view, as [m, V F]."""
        views = tf.reshape(output, [-1, self._size, output.shape[-1]])
        return tf.reshape(tf.transpose(views, [1, 0, 2]), [self._size, -1])

    def join(self, outputs: tf.Tensor, width: int) -> tf.Tensor:
        """The output of the batch, [V n, F], view after view, from those of its micro-batches, [count, m, V F]."""
        num_encoded = self.count * self._size
        images = tf.range(self._num_images)
        is_in_last = images >= num_encoded - self._size
        rows = tf.where(is_in_last, images + num_encoded - self._num_images, images)
        views = tf.gather(tf.reshape(outputs, [num_encoded, -1, width]), rows)
        return tf.reshape(tf.transpose(views, [1, 0, 2]), [-1, width])

    def slopes(self, slope: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """A micro-batch's part of the output gradient [V n, F]; zero for images of an earlier micro-batch."""
        rows = self._rows(index)
        views = tf.reshape(slope, [-1, self._num_images, slope.shape[-1]])
        is_new = tf.cast(rows >= index * self._size, slope.dtype)
        return tf.reshape(tf.gather(views, rows, axis=1) * is_new[:, tf.newaxis], [-1, slope.shape[-1]])

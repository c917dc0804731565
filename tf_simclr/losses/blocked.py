"""Losses that compare anchors with very many candidates, computed one block of anchors at a time.

A loss says by a function, its `Judge`, what the products of a few anchors with all candidates cost and how that changes
with the products. Everything else is here: unit length, replicas, small views, negatives from a memory, and the loop.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled

from tf_simclr.losses.pairs import Pairs, Part

# Few enough for a block to stay in the caches of a CPU, many enough for fast matrix products.
ANCHORS_PER_BLOCK = 256
ACCURACY, ENTROPY = "contrastive_top_1_accuracy", "contrastive_entropy"


class Judged(NamedTuple):
    """What a loss finds in the products [b, M] of a block of anchors.

    Attributes:
      losses: Of every anchor, [b].
      slopes: Of every anchor's loss with respect to its products, [b, M], finite.
      metrics: Of every anchor, [b] each.
    """

    losses: tf.Tensor
    slopes: tf.Tensor
    metrics: tuple[tf.Tensor, ...]


# From the products [b, M] of b anchors and their rows of further tensors, first `Part.itself` and `Part.positives`.
# Rows of zeros pad the last block; what is found for them is dropped, but must be finite.
Judge = Callable[..., Judged]


def contrast(
    projections: tf.Tensor,
    pairs: Pairs,
    judge: Judge,
    metric_names: tuple[str, ...],
    *,
    temperature: float,
    normalize: bool,
    more_rows: Callable[[Part], tuple[tf.Tensor, ...]] = lambda part: (),
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Compares every projection with the large views of the global batch; returns the loss and the metrics.

    Args:
      projections: Float tensor [V n, D], view after view; half precision is compared in float32.
      pairs: Which rows belong together, and further negatives.
      judge: Gets the products divided by the temperature.
      metric_names: Of the metrics that `judge` returns, in their order.
      temperature: Divides the products, > 0.
      normalize: Whether to scale every projection, and every row of the memory, to unit length first.
      more_rows: Further tensors [m, ...] of a part for `judge`, after `itself` and `positives`.
    """
    projections = prepare(projections, normalize)
    candidates = pairs.candidates(projections)
    memory = None if pairs.memory is None else prepare(tf.cast(pairs.memory, projections.dtype), normalize)
    totals = [tf.zeros([], projections.dtype)] * (1 + len(metric_names))
    for part in pairs.parts(projections, candidates):
        rows = part.itself, part.positives, *more_rows(part)
        anchors = part.anchors / temperature
        found = compare(anchors, candidates, rows, judge, num_metrics=len(metric_names), memory=memory)
        totals = [total + part.share * value for total, value in zip(totals, found, strict=True)]
    loss, *metrics = totals
    return loss, dict(zip(metric_names, metrics, strict=True))


def prepare(projections: tf.Tensor, normalize: bool) -> tf.Tensor:
    """Projections [m, D] as they are compared: in float32 if they are of half precision, and of unit length."""
    if projections.dtype in (tf.float16, tf.bfloat16):
        projections = tf.cast(projections, tf.float32)
    return tf.math.l2_normalize(projections, axis=-1) if normalize else projections


def compare(
    anchors: tf.Tensor,
    candidates: tf.Tensor,
    rows: Sequence[tf.Tensor],
    judge: Judge,
    *,
    num_metrics: int,
    memory: tf.Tensor | None = None,
) -> tuple[tf.Tensor, ...]:
    """Judges anchors by their scalar products with all candidates.

    The matrix of all products, [m, M], never exists: a block of anchors sees all candidates at once and keeps only its
    losses and its part of the gradient, which the backward pass just scales. So it takes the memory of a few blocks,
    [ANCHORS_PER_BLOCK, M], and of the arguments, and the arithmetic of the whole matrix.

    Args:
      anchors: Float tensor [m, D].
      candidates: Float tensor [M, D].
      rows: Tensors [m, ...] of what `judge` must know of the anchors.
      judge: Gets the products of a block, and its part of every tensor in `rows`.
      num_metrics: How many metrics it returns.
      memory: Float tensor of more candidates, which come after the others and get no gradient.

    Returns:
      The mean loss of the anchors, which is the only result with a gradient, and has no second derivative; then the
      mean of every metric.
    """

    @tf.custom_gradient
    def judged(anchors: tf.Tensor, candidates: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], Callable[..., Any]]:
        *observed, anchor_slopes, candidate_slopes = _all_blocks(anchors, candidates, rows, judge, num_metrics, memory)
        # Constants, so that a tape for second derivatives does not keep all blocks.
        anchor_slopes, candidate_slopes = tf.stop_gradient(anchor_slopes), tf.stop_gradient(candidate_slopes)

        def gradient(slope: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            slope /= tf.cast(tf.shape(anchors)[0], slope.dtype)
            return slope * anchor_slopes, slope * candidate_slopes

        return tuple(tf.reduce_mean(values) for values in observed), gradient

    return judged(anchors, candidates)


def _all_blocks(
    anchors: tf.Tensor, candidates: tf.Tensor, rows: Sequence[tf.Tensor], judge: Judge, num_metrics: int, memory: Any
) -> tuple[tf.Tensor, ...]:
    """The losses, metrics, [m] each, and slopes [m, D] of all anchors, and the slopes [M, D] of the candidates."""
    everything = candidates if memory is None else tf.concat([candidates, tf.stop_gradient(memory)], axis=0)
    num_anchors = tf.shape(anchors)[0]
    block_size = tf.minimum(ANCHORS_PER_BLOCK, num_anchors)
    num_blocks = (num_anchors + block_size - 1) // block_size

    def split(tensor: tf.Tensor) -> tf.Tensor:
        """Splits rows into blocks and pads the last with zeros; anchors of zero add nothing to a gradient."""
        padding = [[0, num_blocks * block_size - num_anchors], *[[0, 0]] * (tensor.shape.rank - 1)]
        return tf.reshape(tf.pad(tensor, padding), [num_blocks, block_size, *tensor.shape[1:]])

    blocks = [split(tensor) for tensor in (anchors, *rows)]

    def add_block(index: tf.Tensor, slope: tf.Tensor, *collected: tf.TensorArray) -> tuple[Any, ...]:
        some, *of_some = (block[index] for block in blocks)
        losses, slopes, metrics = judge(tf.matmul(some, everything, transpose_b=True), *of_some)
        anchor_slopes = tf.matmul(slopes, everything)
        if memory is not None:
            slopes = slopes[:, : tf.shape(candidates)[0]]
        found = losses, *metrics, anchor_slopes
        return (
            index + 1,
            slope + tf.matmul(slopes, some, transpose_a=True),
            *(array.write(index, row) for array, row in zip(collected, found, strict=True)),
        )

    collected = [tf.TensorArray(anchors.dtype, num_blocks) for _ in range(num_metrics + 2)]
    _, candidate_slopes, *collected = tf.while_loop(
        lambda index, *_: index < num_blocks,
        add_block,
        (0, tf.zeros_like(candidates), *collected),
        parallel_iterations=1,
    )
    return *(array.concat()[:num_anchors] for array in collected), candidate_slopes


def is_row(chosen: tf.Tensor, products: tf.Tensor) -> tf.Tensor:
    """Where the column is that of the row, [b], in bool [b, M]: nowhere for -1."""
    return tf.equal(chosen[:, tf.newaxis], tf.range(tf.shape(products)[1]))


def mask(products: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Masks one of the products [b, M] in every row, or none for -1."""
    # The lowest finite number: its softmax weight is exactly zero, and zero times it is zero, not NaN.
    return tf.where(is_row(chosen, products), products.dtype.min, products)


def add(slopes: tf.Tensor, value: float | tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Adds a value, a scalar or [b, 1], to one of the slopes [b, M] in every row."""
    return tf.where(is_row(chosen, slopes), slopes + value, slopes)


def cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The loss of every row of logits [b, M], [b], and its slopes, [b, M]: the softmax less 1 at the target, [b]."""
    if is_op_determinism_enabled():  # On a GPU, the operation below is refused then.
        logits -= tf.reduce_max(logits, axis=-1, keepdims=True)
        losses = tf.reduce_logsumexp(logits, axis=-1) - tf.gather(logits, targets, batch_dims=1)
        return losses, add(tf.nn.softmax(logits), -1.0, targets)
    return tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=targets)


def find_positives(masked: tf.Tensor, positives: tf.Tensor) -> tf.Tensor:
    """Whether the largest of the products [b, M] is one of the positives [b, P], as 0 and 1, [b]."""
    nearest = tf.argmax(masked, axis=-1, output_type=positives.dtype)
    return tf.cast(tf.reduce_any(tf.equal(nearest[:, tf.newaxis], positives), axis=-1), masked.dtype)

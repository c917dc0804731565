"""Losses that compare anchors with very many candidates, computed one block of anchors at a time."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_simclr.losses.pairs import Pairs

# Few enough for a block to stay in the caches of a CPU, many enough for fast matrix products.
ANCHORS_PER_BLOCK = 256
METRIC_NAMES = ("contrastive_top_1_accuracy", "contrastive_entropy")


def contrast(
    projections: tf.Tensor, pairs: Pairs, *, temperature: float, normalize: bool, exclude_positives: bool = False
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Compares every projection with those of the global batch; returns the loss and the metrics of METRIC_NAMES.

    Args:
      projections: Float tensor [V n, D], view after view; half precision is compared in float32.
      pairs: Which rows belong together.
      temperature: Divides the products, > 0.
      normalize: Whether to scale every projection to unit length first.
      exclude_positives: Whether an anchor's softmax leaves out its positives.
    """
    if projections.dtype in (tf.float16, tf.bfloat16):
        projections = tf.cast(projections, tf.float32)
    if normalize:
        projections = tf.math.l2_normalize(projections, axis=-1)
    candidates = pairs.candidates(projections)
    itself, positives = pairs.rows(projections, candidates)
    loss, *metrics = contrastive_cross_entropy(
        projections / temperature, candidates, itself, positives, exclude_positives=exclude_positives
    )
    return loss, dict(zip(METRIC_NAMES, metrics, strict=True))


def contrastive_cross_entropy(
    anchors: tf.Tensor,
    candidates: tf.Tensor,
    itself: tf.Tensor,
    positives: tf.Tensor,
    *,
    exclude_positives: bool = False,
) -> tuple[tf.Tensor, ...]:
    """Cross entropy of anchors that choose among candidates by their scalar products.

    The loss of an anchor with products s and positives p is log sum_k exp(s_k) - mean_p s_p, where k runs over all
    candidates except the anchor itself and, if they are excluded, its positives.

    The matrix of all products, [m, M], never exists: a block of anchors sees all candidates at once and keeps only its
    losses and its part of the gradient, which the backward pass just scales. So it takes the memory of a few blocks,
    [ANCHORS_PER_BLOCK, M], and of the arguments, and the arithmetic of the whole matrix.

    Args:
      anchors: Float tensor [m, D].
      candidates: Float tensor [M, D].
      itself: int32 tensor [m], the candidate that an anchor must not choose.
      positives: int32 tensor [m, P], the candidates that it should choose, P >= 1.
      exclude_positives: Whether the softmax leaves out the positives. Every anchor must then have another candidate.

    Returns:
      loss: Mean loss of the anchors; the only result with a gradient. It has no second derivative.
      accuracy: Share of the anchors whose largest product is with one of their positives.
      entropy: Mean entropy, in nats, of the anchors' softmax over the candidates that k runs over.
    """

    @tf.custom_gradient
    def compare(anchors: tf.Tensor, candidates: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], Callable[..., Any]]:
        *observed, anchor_slopes, candidate_slopes = _all_blocks(
            candidates, anchors, itself, positives, exclude_positives
        )
        # Constants, so that a tape for second derivatives does not keep all blocks.
        anchor_slopes, candidate_slopes = tf.stop_gradient(anchor_slopes), tf.stop_gradient(candidate_slopes)

        def gradient(slope: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            slope /= tf.cast(tf.shape(anchors)[0], slope.dtype)
            return slope * anchor_slopes, slope * candidate_slopes

        return tuple(tf.reduce_mean(values) for values in observed), gradient

    return compare(anchors, candidates)


def _all_blocks(
    candidates: tf.Tensor, anchors: tf.Tensor, itself: tf.Tensor, positives: tf.Tensor, exclude_positives: bool
) -> tuple[tf.Tensor, ...]:
    """What `_block` returns, for all anchors."""
    num_anchors = tf.shape(anchors)[0]
    block_size = tf.minimum(ANCHORS_PER_BLOCK, num_anchors)
    num_blocks = (num_anchors + block_size - 1) // block_size

    def split(rows: tf.Tensor) -> tf.Tensor:
        """Splits rows into blocks and pads the last with zeros; anchors of zero add nothing to a gradient."""
        padding = [[0, num_blocks * block_size - num_anchors], *[[0, 0]] * (rows.shape.rank - 1)]
        return tf.reshape(tf.pad(rows, padding), [num_blocks, block_size, *rows.shape[1:]])

    blocks = split(anchors), split(itself), split(positives)

    def add_block(index: tf.Tensor, slope: tf.Tensor, *collected: tf.TensorArray) -> tuple[Any, ...]:
        *rows, block_slope = _block(
            candidates, *(block[index] for block in blocks), exclude_positives=exclude_positives
        )
        return (
            index + 1,
            slope + block_slope,
            *(array.write(index, row) for array, row in zip(collected, rows, strict=True)),
        )

    collected = [tf.TensorArray(anchors.dtype, num_blocks) for _ in range(4)]
    _, candidate_slopes, *collected = tf.while_loop(
        lambda index, *_: index < num_blocks,
        add_block,
        (0, tf.zeros_like(candidates), *collected),
        parallel_iterations=1,
    )
    return *(array.concat()[:num_anchors] for array in collected), candidate_slopes


def _block(
    candidates: tf.Tensor, anchors: tf.Tensor, itself: tf.Tensor, positives: tf.Tensor, *, exclude_positives: bool
) -> tuple[tf.Tensor, ...]:
    """Losses, hits and entropies of a few anchors, [b] each, and the gradients of the losses' sum.

    The gradients are with respect to the anchors, [b, D], and the candidates, [M, D].
    """
    columns = tf.range(tf.shape(candidates)[0])
    logits = _mask(tf.matmul(anchors, candidates, transpose_b=True), itself, columns)
    nearest = tf.argmax(logits, axis=-1, output_type=positives.dtype)
    hits = tf.reduce_any(tf.equal(nearest[:, tf.newaxis], positives), axis=-1)
    products = tf.gather(logits, positives, batch_dims=1)
    targets = positives[:, 0]
    if exclude_positives:
        for positive in tf.unstack(positives, axis=1):
            logits = _mask(logits, positive, columns)
        targets = tf.argmax(logits, axis=-1, output_type=positives.dtype)
    losses, slopes = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=targets)
    # Entropy = log of the sum of exponentials - mean logit. The slopes are the softmax less 1 at the target.
    entropies = losses - tf.einsum("ij,ij->i", slopes, logits)
    if exclude_positives or positives.shape[1] > 1:  # All positives replace the target.
        losses += tf.gather(logits, targets, batch_dims=1) - tf.reduce_mean(products, axis=-1)
        slopes = _add(slopes, 1.0, targets, columns)
        for positive in tf.unstack(positives, axis=1):
            slopes = _add(slopes, -1.0 / positives.shape[1], positive, columns)
    return (
        losses,
        tf.cast(hits, losses.dtype),
        entropies,
        tf.matmul(slopes, candidates),
        tf.matmul(slopes, anchors, transpose_a=True),
    )


def _mask(logits: tf.Tensor, chosen: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Masks one of the logits [b, M] in every row."""
    # The lowest finite number: its softmax weight is exactly zero, and zero times it is zero, not NaN.
    return tf.where(tf.equal(chosen[:, tf.newaxis], columns), logits.dtype.min, logits)


def _add(slopes: tf.Tensor, value: float, chosen: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Adds a value to one of the slopes [b, M] in every row."""
    return tf.where(tf.equal(chosen[:, tf.newaxis], columns), slopes + value, slopes)

"""NT-Xent, the normalised temperature-scaled cross entropy of SimCLR.

Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (2020), equation 1
and algorithm 1.
"""

from collections.abc import Callable

import tensorflow as tf


def nt_xent_loss(
    projections: tf.Tensor,
    temperature: float = 0.1,
    *,
    normalize: bool = True,
    gather: Callable[[tf.Tensor], tf.Tensor] | None = None,
    replica_id: int | tf.Tensor = 0,
) -> tf.Tensor:
    """Mean NT-Xent loss of the paper, over the anchors of this replica.

    It is log(2N - 1) when all projections are equal. The mean of the replicas' values is the loss of the global
    batch. The reference implementation reports the sum over the two views, which is exactly twice this value.

    Args:
      projections: Float tensor [2n, D]: the n projections of view a, then those of view b in the same order.
      temperature: Positive number that divides the similarities.
      normalize: Whether to scale every projection to unit length first, which makes similarities cosines.
      gather: Function that concatenates a tensor over all replicas on axis 0 and lets the gradient through;
        `None` on a single replica.
      replica_id: Position of this replica's rows in what `gather` returns.

    Returns:
      Scalar loss >= 0, float32 (float64 for float64 projections).

    Raises:
      ValueError: If the temperature is not positive.
    """
    logits, targets = nt_xent_logits(
        projections, temperature, normalize=normalize, gather=gather, replica_id=replica_id
    )
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))


def nt_xent_logits(
    projections: tf.Tensor,
    temperature: float = 0.1,
    *,
    normalize: bool = True,
    gather: Callable[[tf.Tensor], tf.Tensor] | None = None,
    replica_id: int | tf.Tensor = 0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Similarity of every local anchor to all candidates of the global batch, and where its positive stands.

    Arguments and errors are those of `nt_xent_loss`.

    Returns:
      logits: Float tensor [2n, 2N], similarity / temperature; candidates are all N views a, then all N views b.
        An anchor's similarity to itself holds the lowest finite number, so that its softmax weight is zero.
      targets: int32 tensor [2n], the column of the anchor's other view.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive. Received: {temperature}")
    if projections.dtype in (tf.float16, tf.bfloat16):
        projections = tf.cast(projections, tf.float32)
    if normalize:
        projections = tf.math.l2_normalize(projections, axis=-1)

    view_a, view_b = tf.split(projections, 2)
    all_a, all_b = view_a, view_b
    if gather is not None:
        pairs = gather(tf.stack([view_a, view_b], axis=1))
        all_a, all_b = pairs[:, 0], pairs[:, 1]
    candidates = tf.concat([all_a, all_b], axis=0)

    num_local, num_global = tf.shape(view_a)[0], tf.shape(all_a)[0]
    rows_a = tf.cast(replica_id, tf.int32) * num_local + tf.range(num_local)
    rows_b = rows_a + num_global
    itself = tf.concat([rows_a, rows_b], axis=0)
    targets = tf.concat([rows_b, rows_a], axis=0)

    logits = tf.matmul(projections, candidates, transpose_b=True) / temperature
    is_itself = tf.equal(itself[:, tf.newaxis], tf.range(2 * num_global)[tf.newaxis, :])
    return tf.where(is_itself, logits.dtype.min, logits), targets

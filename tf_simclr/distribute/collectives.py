"""Communication among the replicas of the current strategy."""

import tensorflow as tf

from tf_simclr.distribute.strategy import has_workers


def largest_of_workers(number: int) -> int:
    """The largest of the workers' numbers; all workers must call this at the same time."""
    strategy = tf.distribute.get_strategy()
    if not has_workers(strategy):
        return number
    numbers = strategy.experimental_distribute_values_from_function(lambda _: tf.constant([number], tf.int64))
    return int(tf.reduce_max(strategy.gather(numbers, axis=0)))


def num_replicas() -> int:
    """Number of replicas that the current strategy keeps in sync; 1 without a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def replicas_here() -> int:
    """Number of the current strategy's replicas that share this machine's memory."""
    strategy = tf.distribute.get_strategy()
    return len(strategy.extended.worker_devices) if has_workers(strategy) else strategy.num_replicas_in_sync


def replica_id() -> tf.Tensor | int:
    """Position of this replica among all; call it inside a replica's computation."""
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def gather(tensor: tf.Tensor) -> tf.Tensor:
    """Concatenates a tensor [n, ...] of every replica to [R * n, ...], in the order of the replicas.

    The gradient flows back to every replica's rows, summed over the replicas that used them. This sum makes the
    gradient correct for anchors that serve other replicas as negatives.
    """
    if num_replicas() == 1:
        return tensor
    gathered = tf.distribute.get_replica_context().all_gather(tensor, axis=0)
    return tf.ensure_shape(gathered, [None, *tensor.shape[1:]])


def total(tensor: tf.Tensor) -> tf.Tensor:
    """Sums a tensor over the replicas; no gradient is taken of it."""
    return sum_gradients([tensor])[0]


def sum_gradients(gradients: list[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """Sums every gradient over the replicas; `None`, for a variable that the loss does not reach, stays `None`."""
    if num_replicas() == 1:
        return gradients
    present = [gradient for gradient in gradients if gradient is not None]
    context = tf.distribute.get_replica_context()
    summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, present))
    return [gradient if gradient is None else next(summed) for gradient in gradients]

"""Which projections a loss may compare, and which ones show the same image."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Where the views of an image lie among the projections, on this replica and across all of them.

    The projections of a replica are [V n, D], view after view: n rows of the first view, then n rows of the second in
    the same order, and so on. Every two views of an image are a positive pair.

    Attributes:
      num_views: V >= 2.
      gather: Concatenates a tensor of every replica along axis 0, in the order of the replicas, and lets the gradient
        through; `None` on a single replica.
      replica_id: Position of this replica among all, from 0.

    Raises:
      ValueError: If there are fewer than two views.
    """

    num_views: int = 2
    gather: Callable[[tf.Tensor], tf.Tensor] | None = None
    replica_id: int | tf.Tensor = 0

    def __post_init__(self) -> None:
        if self.num_views < 2:
            raise ValueError(
                "A loss that compares views needs at least two of every image: make more in the augmentation. "
                f"Received: {self.num_views}"
            )

    def candidates(self, projections: tf.Tensor) -> tf.Tensor:
        """The projections of all replicas: [V n, D] -> [V N, D], view after view, where N is the global batch."""
        if self.gather is None:
            return projections
        # [n, V, D] -> [N, V, D]: replicas are concatenated along the images.
        images = self.gather(tf.stack(tf.split(projections, self.num_views), axis=1))
        return tf.concat([images[:, view] for view in range(self.num_views)], axis=0)

    def rows(self, projections: tf.Tensor, candidates: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The rows of this replica's projections and of their positives among the candidates.

        >>> itself, positives = Pairs(num_views=3).rows(tf.ones([6, 4]), tf.ones([6, 4]))
        >>> itself.numpy().tolist()
        [0, 1, 2, 3, 4, 5]
        >>> positives.numpy().tolist()
        [[2, 4], [3, 5], [4, 0], [5, 1], [0, 2], [1, 3]]

        Args:
          projections: Float tensor [V n, D] of this replica.
          candidates: Float tensor [V N, D], the result of `candidates` for them.

        Returns:
          itself: int32 [V n], the row of each projection.
          positives: int32 [V n, V - 1], the rows of the other views of its image, the next view first.
        """
        num_local = tf.shape(projections)[0] // self.num_views
        num_global = tf.shape(candidates)[0] // self.num_views
        images = tf.cast(self.replica_id, tf.int32) * num_local + tf.range(num_local)
        steps = tf.range(self.num_views)
        views = (steps[:, tf.newaxis] + steps[tf.newaxis, :]) % self.num_views  # [V, V], each one's own first
        rows = views[:, tf.newaxis, :] * num_global + images[tf.newaxis, :, tf.newaxis]
        rows = tf.reshape(rows, [-1, self.num_views])
        return rows[:, 0], rows[:, 1:]

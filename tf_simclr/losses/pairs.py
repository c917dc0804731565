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
      num_large: If set, only the first `num_large` views of an image are candidates and positives. The others, the
        small views of multi-crop, are anchors that look for them.

    Raises:
      ValueError: If there are fewer than two views, or `num_large` is not between 2 and V.
    """

    num_views: int = 2
    gather: Callable[[tf.Tensor], tf.Tensor] | None = None
    replica_id: int | tf.Tensor = 0
    num_large: int | None = None

    def __post_init__(self) -> None:
        if self.num_views < 2:
            raise ValueError(
                "A loss that compares views needs at least two of every image: make more in the augmentation. "
                f"Received: {self.num_views}"
            )
        if self.num_large is not None and not 2 <= self.num_large <= self.num_views:
            raise ValueError(
                "Small views look for the large ones, so there must be at least two large views of every image, of the "
                f"{self.num_views} in all: make more in the augmentation. Received: {self.num_large}"
            )

    @property
    def num_candidate_views(self) -> int:
        """L, the views of every image among the candidates."""
        return self.num_views if self.num_large is None else self.num_large

    def candidates(self, projections: tf.Tensor) -> tf.Tensor:
        """The projections of all replicas: [V n, D] -> [L N, D], view after view, where N is the global batch."""
        count = self.num_candidate_views
        projections = projections[: tf.shape(projections)[0] // self.num_views * count]
        if self.gather is None:
            return projections
        # [n, L, D] -> [N, L, D]: replicas are concatenated along the images.
        images = self.gather(tf.stack(tf.split(projections, count), axis=1))
        return tf.concat([images[:, view] for view in range(count)], axis=0)

    def rows(self, projections: tf.Tensor, candidates: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The rows of this replica's projections and of their positives among the candidates.

        >>> itself, positives = Pairs(num_views=3).rows(tf.ones([6, 4]), tf.ones([6, 4]))
        >>> itself.numpy().tolist()
        [0, 1, 2, 3, 4, 5]
        >>> positives.numpy().tolist()
        [[2, 4], [3, 5], [4, 0], [5, 1], [0, 2], [1, 3]]

        Args:
          projections: Float tensor [V n, D] of this replica.
          candidates: Float tensor [L N, D], the result of `candidates` for them.

        Returns:
          itself: int32 [V n], the row of each projection, -1 if it is no candidate.
          positives: int32 [V n, P], the rows of the other views of its image, the next view first. With small views,
            each row occurs several times, so that large and small ones have equally many.
        """
        num_local = tf.shape(projections)[0] // self.num_views
        count = self.num_candidate_views
        num_global = tf.shape(candidates)[0] // count
        images = tf.cast(self.replica_id, tf.int32) * num_local + tf.range(num_local)
        steps = tf.range(count)
        views = (steps[:, tf.newaxis] + steps[tf.newaxis, :]) % count  # [L, L], each one's own first
        rows = views[:, tf.newaxis, :] * num_global + images[tf.newaxis, :, tf.newaxis]
        rows = tf.reshape(rows, [-1, count])
        num_small = self.num_views - count
        if not num_small:
            return rows[:, 0], rows[:, 1:]
        own = tf.concat([rows[:, 0], tf.fill([num_small * num_local], -1)], axis=0)
        of_small = tf.tile(rows[:num_local], [num_small, count - 1])
        return own, tf.concat([tf.tile(rows[:, 1:], [1, count]), of_small], axis=0)

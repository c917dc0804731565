"""Which projections a loss may compare, and which ones show the same image."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class Part(NamedTuple):
    """Anchors that have equally many positives, with m rows of projections.

    Attributes:
      share: Part of a replica's anchors that these are, > 0 and at most 1.
      anchors: The projections [m, D].
      images: int32 [m], which image of the global batch each shows.
      itself: int32 [m], the row of each among the candidates, or -1 if it is none.
      positives: int32 [m, P], the rows of the other views of its image among the candidates, the next view first.
    """

    share: float
    anchors: tf.Tensor
    images: tf.Tensor
    itself: tf.Tensor
    positives: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Where the views of an image lie among the projections, on this replica and across all of them.

    The projections of a replica are [V n, D], view after view: n rows of the first view, then n rows of the second in
    the same order, and so on. Every two views of an image are a positive pair, except two small ones.

    Attributes:
      num_views: V >= 2.
      gather: Concatenates a tensor of every replica along axis 0, in the order of the replicas, and lets the gradient
        through; `None` on a single replica.
      replica_id: Position of this replica among all, from 0.
      num_large: L, from 2 to V: the first L views of an image are large, and only these are candidates and positives.
        The others, the small ones, are anchors that look for them. `None` makes all views large.
      labels: Integers [n], the classes of this replica's images, -1 where unknown; only losses that use labels read
        them.
      memory: Float [M, D], more negatives of all anchors, the same on all replicas, which get no gradient.

    Raises:
      ValueError: If there are fewer than two views, or two large ones, or more large views than views.
    """

    num_views: int = 2
    gather: Callable[[tf.Tensor], tf.Tensor] | None = None
    replica_id: int | tf.Tensor = 0
    num_large: int | None = None
    labels: tf.Tensor | None = None
    memory: tf.Tensor | None = None

    def __post_init__(self) -> None:
        if self.num_views < 2:
            raise ValueError(
                "A loss that compares views needs at least two of every image: make more in the augmentation. "
                f"Received: {self.num_views}"
            )
        if self.num_large is not None and not 2 <= self.num_large <= self.num_views:
            raise ValueError(
                f"num_large must be from 2 to {self.num_views}, the number of views, because only large views are "
                f"looked for: make more large views. Received: {self.num_large}"
            )

    @property
    def num_candidate_views(self) -> int:
        """L, the views of an image that are candidates."""
        return self.num_large or self.num_views

    def of_all_replicas(self, rows: tf.Tensor, num_views: int | None = None) -> tf.Tensor:
        """Rows of all replicas: [V n, ...] -> [V N, ...], view after view, where N is the global batch.

        Args:
          rows: Of this replica's n images, view after view.
          num_views: V, by default `num_views`.
        """
        num_views = num_views or self.num_views
        if self.gather is None:
            return rows
        # [n, V, ...] -> [N, V, ...]: replicas are concatenated along the images.
        images = self.gather(tf.stack(tf.split(rows, num_views), axis=1))
        return tf.concat([images[:, view] for view in range(num_views)], axis=0)

    def candidates(self, projections: tf.Tensor) -> tf.Tensor:
        """The large views of all replicas: [V n, D] -> [L N, D], view after view, where N is the global batch."""
        num_large = self.num_candidate_views
        if num_large < self.num_views:
            projections = projections[: num_large * self._num_local(projections)]
        return self.of_all_replicas(projections, num_large)

    def parts(self, projections: tf.Tensor, candidates: tf.Tensor) -> list[Part]:
        """This replica's anchors: those of the large views and then, if there are any, those of the small ones.

        >>> (part,) = Pairs(num_views=3).parts(tf.ones([6, 4]), tf.ones([6, 4]))
        >>> part.itself.numpy().tolist()
        [0, 1, 2, 3, 4, 5]
        >>> part.positives.numpy().tolist()
        [[2, 4], [3, 5], [4, 0], [5, 1], [0, 2], [1, 3]]

        Args:
          projections: Float tensor [V n, D] of this replica.
          candidates: Float tensor [L N, D], the result of `candidates` for them.
        """
        num_large, num_small = self.num_candidate_views, self.num_views - self.num_candidate_views
        num_local = self._num_local(projections)
        num_global = tf.shape(candidates)[0] // num_large
        images = tf.cast(self.replica_id, tf.int32) * num_local + tf.range(num_local)
        steps = tf.range(num_large)
        views = (steps[:, tf.newaxis] + steps[tf.newaxis, :]) % num_large  # [L, L], each one's own first
        rows = views[:, tf.newaxis, :] * num_global + images[tf.newaxis, :, tf.newaxis]
        rows = tf.reshape(rows, [-1, num_large])
        if not num_small:
            return [Part(1.0, projections, tf.tile(images, [num_large]), rows[:, 0], rows[:, 1:])]
        first_small = num_large * num_local
        large = Part(
            num_large / self.num_views, projections[:first_small], tf.tile(images, [num_large]), rows[:, 0], rows[:, 1:]
        )
        images = tf.tile(images, [num_small])
        rows = tf.tile(rows[:num_local], [num_small, 1])
        small = Part(num_small / self.num_views, projections[first_small:], images, tf.fill(tf.shape(images), -1), rows)
        return [large, small]

    def _num_local(self, projections: tf.Tensor) -> tf.Tensor:
        """n, the images of this replica."""
        return tf.shape(projections)[0] // self.num_views

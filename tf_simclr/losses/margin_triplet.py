"""The margin triplet loss that SimCLR compares NT-Xent with."""

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_simclr.losses import blocked, mining
from tf_simclr.losses.pairs import Pairs


@dataclasses.dataclass(frozen=True)
class MarginTriplet:
    """Makes the positives of an anchor more similar to it than its negatives are, by a margin.

    With the similarities s_ik = z_i . z_k, the loss of an anchor i is

        mean_p mean_k max(s_ik - s_ip + margin, 0)

    over its V - 1 positives p and all V (N - 1) views k of other images, and the loss is the mean over all V N anchors.
    The paper does not say whether it sums over negatives or averages.

    With semi-hard mining, the only k of a positive p is the nearest one with s_ip - margin < s_ik < s_ip. If there is
    none, the term of this positive is zero; the means are still over all positives and anchors.

    There is no temperature: it would scale the similarities, and so do the margin and the weight of the loss.

    >>> loss, _ = MarginTriplet(margin=0.4)(tf.ones([2 * 6, 3]))
    >>> f"{loss:.4f}"
    '0.4000'

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (2020), table 2; its
    margins are 0, 0.4, 0.8 and 1.6 (appendix B.10).

    Attributes:
      margin: How much more similar, >= 0.
      normalize: Whether to scale every projection to unit length first, which makes similarities cosines.
      semi_hard: Whether only semi-hard negatives count.

    Raises:
      ValueError: If the margin is negative, or zero with semi-hard mining, for which no negative is inside.
    """

    margin: float = 0.4
    normalize: bool = True
    semi_hard: bool = False

    metric_names: ClassVar[tuple[str, ...]] = (blocked.ACCURACY,)
    uses_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.margin >= 0:
            raise ValueError(f"margin must not be negative. Received: {self.margin}")
        if self.semi_hard and self.margin == 0:
            raise ValueError(
                "With semi-hard mining, only negatives inside the margin count, so margin must be positive. "
                f"Received: {self.margin}"
            )

    def __call__(self, projections: tf.Tensor, pairs: Pairs = Pairs()) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The loss of this replica's anchors, and how well they find their positives.

        Args:
          projections: Float tensor [V n, D], view after view; half precision is compared in float32.
          pairs: Which rows belong together; by default two views on one replica.

        Returns:
          loss: Scalar >= 0, float32 (float64 for float64 projections).
          metrics: A scalar of the same dtype: "contrastive_top_1_accuracy", as in NT-Xent.
        """
        return blocked.contrast(
            projections, pairs, self._judge, self.metric_names, temperature=1.0, normalize=self.normalize
        )

    def _judge(self, products: tf.Tensor, itself: tf.Tensor, positives: tf.Tensor) -> blocked.Judged:
        is_negative = mining.find_negatives(products, itself, positives)
        losses, slopes = tf.zeros_like(products[:, 0]), tf.zeros_like(products)
        for positive in tf.unstack(positives, axis=1):
            near = tf.gather(products, positive[:, tf.newaxis], batch_dims=1)
            if self.semi_hard:
                weights = mining.weigh_semi_hard(products, is_negative, near, self.margin)
            else:
                weights = mining.weigh_all(is_negative, products.dtype)
            excess = products - near + self.margin
            slope = tf.where(excess > 0, weights, 0) / positives.shape[1]
            losses += tf.reduce_sum(slope * excess, axis=-1)
            slopes = blocked.add(slopes + slope, -tf.reduce_sum(slope, axis=-1, keepdims=True), positive)
        hits = blocked.find_positives(blocked.mask(products, itself), positives)
        return blocked.Judged(losses, slopes, (hits,))

    def collapse_value(self, num_views: int, global_batch_size: int) -> float | None:
        # Zero is also the value of a perfect encoder, and what mining leaves of equal projections.
        return self.margin if self.margin and not self.semi_hard else None

"""NT-Logistic, the logistic loss that SimCLR compares NT-Xent with."""

import dataclasses
import math
from typing import ClassVar

import tensorflow as tf

from tf_simclr.losses import blocked, mining
from tf_simclr.losses.pairs import Pairs


@dataclasses.dataclass(frozen=True)
class NTLogistic:
    """Tells for every pair of projections, by itself, whether they show the same image.

    With the similarities s_ik = z_i . z_k / temperature, the loss of an anchor i is

        mean_p softplus(-s_ip) + mean_k softplus(s_ik)

    over its V - 1 positives p and all V (N - 1) views k of other images, and the loss is the mean over all V N anchors.
    The paper does not say how many negatives weigh against the positive; the two means weigh alike.

    With semi-hard mining, the only k of a positive p is the nearest one with s_ik < s_ip. If there is none, the second
    term is left out for this positive.

    >>> loss, _ = NTLogistic(temperature=0.5)(tf.ones([2 * 6, 3]))
    >>> f"{loss:.4f}", f"{NTLogistic(temperature=0.5).collapse_value(2, 6):.4f}"
    ('2.2539', '2.2539')

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (2020), table 2.

    Attributes:
      temperature: Divides the similarities, > 0.
      normalize: Whether to scale every projection to unit length first, which makes similarities cosines.
      semi_hard: Whether only semi-hard negatives count.

    Raises:
      ValueError: If the temperature is not positive.
    """

    temperature: float = 0.1
    normalize: bool = True
    semi_hard: bool = False

    metric_names: ClassVar[tuple[str, ...]] = (blocked.ACCURACY,)
    uses_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive. Received: {self.temperature}")

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
            projections,
            pairs,
            self._judge,
            self.metric_names,
            temperature=self.temperature,
            normalize=self.normalize,
        )

    def _judge(self, products: tf.Tensor, itself: tf.Tensor, positives: tf.Tensor) -> blocked.Judged:
        is_negative = mining.find_negatives(products, itself, positives)
        near = tf.gather(products, positives, batch_dims=1)
        num_positives = positives.shape[1]
        if self.semi_hard:
            of_positives = [
                mining.weigh_semi_hard(products, is_negative, one) for one in tf.split(near, num_positives, axis=1)
            ]
            weights = tf.add_n(of_positives) / num_positives
        else:
            weights = mining.weigh_all(is_negative, products.dtype)
        losses = tf.reduce_mean(tf.nn.softplus(-near), axis=-1)
        losses += tf.reduce_sum(weights * tf.nn.softplus(products), axis=-1)
        slopes = weights * tf.sigmoid(products)
        for number, positive in enumerate(tf.unstack(positives, axis=1)):
            slope = -tf.sigmoid(-near[:, number : number + 1]) / num_positives
            slopes = blocked.add(slopes, slope, positive)
        hits = blocked.find_positives(blocked.mask(products, itself), positives)
        return blocked.Judged(losses, slopes, (hits,))

    def collapse_value(self, num_views: int, global_batch_size: int) -> float | None:
        # Without unit length, the similarity of equal projections may be any. With mining, rounding decides.
        if self.semi_hard or not self.normalize:
            return None
        similarity = 1 / self.temperature
        return similarity + 2 * math.log1p(math.exp(-similarity))

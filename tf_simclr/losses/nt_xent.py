"""NT-Xent, the normalised temperature-scaled cross entropy of SimCLR."""

import dataclasses
import math
from typing import ClassVar

import tensorflow as tf

from tf_simclr.losses import blocked
from tf_simclr.losses.pairs import Pairs


@dataclasses.dataclass(frozen=True)
class NTXent:
    """Trains every projection z_i to pick the other views of its image among all projections of the batch.

    With the similarities s_ik = z_i . z_k / temperature, the loss of an anchor i is the mean over its V - 1 positives p
    of

        -s_ip + log sum_{k != i} exp(s_ik)

    and the loss is the mean over all V N anchors. It is log(V N - 1) when all projections are equal. The reference
    implementation reports the sum over the two views, which is exactly twice this value.

    >>> loss, metrics = NTXent(temperature=0.5)(tf.ones([2 * 6, 3]))
    >>> f"{loss:.4f}", f"{math.log(2 * 6 - 1):.4f}"
    ('2.3979', '2.3979')
    >>> sorted(metrics)
    ['contrastive_entropy', 'contrastive_top_1_accuracy']

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (2020), equation 1
    and algorithm 1. For more than two views: the mean over all pairs of views of an image, as in Khosla et al.,
    "Supervised Contrastive Learning" (2020), equation 2.

    Attributes:
      temperature: Divides the similarities, > 0.
      normalize: Whether to scale every projection to unit length first, which makes similarities cosines.

    Raises:
      ValueError: If the temperature is not positive.
    """

    temperature: float = 0.1
    normalize: bool = True

    metric_names: ClassVar[tuple[str, ...]] = blocked.METRIC_NAMES

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive. Received: {self.temperature}")

    def __call__(self, projections: tf.Tensor, pairs: Pairs = Pairs()) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The loss of this replica's anchors, and how well they find their positives.

        Args:
          projections: Float tensor [V n, D], view after view; half precision is compared in float32.
          pairs: Which rows belong together; by default two views on one replica.

        Returns:
          loss: Scalar >= 0, float32 (float64 for float64 projections).
          metrics: Scalars of the same dtype: "contrastive_top_1_accuracy", the share of the anchors whose most similar
            candidate is one of their positives, and "contrastive_entropy", the mean entropy in nats of the anchors'
            softmax over the V N - 1 candidates. It starts near log(V N - 1) and falls as the positives stand out.
        """
        return blocked.contrast(projections, pairs, temperature=self.temperature, normalize=self.normalize)

    def collapse_value(self, num_views: int, global_batch_size: int) -> float | None:
        return math.log(num_views * global_batch_size - 1)

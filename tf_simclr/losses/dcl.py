"""DCL, the decoupled contrastive loss: NT-Xent without the positives in its denominator."""

import dataclasses
import functools

import tensorflow as tf

from tf_simclr.losses import blocked
from tf_simclr.losses.nt_xent import NTXent, judge_by_cross_entropy
from tf_simclr.losses.pairs import Pairs


@dataclasses.dataclass(frozen=True)
class DCL(NTXent):
    """Pulls the views of an image together, and pushes them away only from views of other images.

    With the similarities s_ik = z_i . z_k / temperature, the loss of an anchor i is the mean over its V - 1 positives p
    of

        -s_ip + log sum_{k is a view of another image} exp(s_ik)

    and the loss is the mean over all V N anchors. In NT-Xent the sum includes the positive as well, which makes the
    gradient of an anchor small once it is near its positive; this hurts small batches. The loss may be negative. It is
    log(V (N - 1)) when all projections are equal, and 0 for an image that is alone in its batch.

    >>> loss, _ = DCL(temperature=0.5)(tf.ones([2 * 6, 3]))
    >>> f"{loss:.4f}", f"{DCL(temperature=0.5).collapse_value(2, 6):.4f}"
    ('2.3026', '2.3026')

    Source: Yeh et al., "Decoupled Contrastive Learning" (2021), equation 6.

    Attributes:
      temperature: Divides the similarities, > 0.
      normalize: Whether to scale every projection to unit length first.

    Raises:
      ValueError: If the temperature is not positive.
    """

    def __call__(self, projections: tf.Tensor, pairs: Pairs = Pairs()) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The loss of this replica's anchors, and how well they find their positives.

        Args:
          projections: Float tensor [V n, D], view after view.
          pairs: Which rows belong together; by default two views on one replica.

        Returns:
          loss: Scalar, float32 (float64 for float64 projections).
          metrics: Scalars of the same dtype: "contrastive_top_1_accuracy", as in NT-Xent, and "contrastive_entropy", in
            nats, over the V (N - 1) views of other images.
        """
        judge = functools.partial(judge_by_cross_entropy, exclude_positives=True)
        return blocked.contrast(
            projections, pairs, judge, self.metric_names, temperature=self.temperature, normalize=self.normalize
        )

    def entropy_candidates(self, num_views: int, global_batch_size: int) -> int:
        return num_views * (global_batch_size - 1)

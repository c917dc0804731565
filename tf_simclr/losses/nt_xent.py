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
    implementation reports the sum over the two views, which is exactly twice this value. Small views and a memory
    (see `Pairs`) change which p and k there are.

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

    metric_names: ClassVar[tuple[str, ...]] = (blocked.ACCURACY, blocked.ENTROPY)
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
          metrics: Scalars of the same dtype: "contrastive_top_1_accuracy", the share of the anchors whose most similar
            candidate is one of their positives, and "contrastive_entropy", the mean entropy in nats of the anchors'
            softmax over the V N - 1 candidates. It starts near log(V N - 1) and falls as the positives stand out.
        """
        return blocked.contrast(
            projections,
            pairs,
            judge_by_cross_entropy,
            self.metric_names,
            temperature=self.temperature,
            normalize=self.normalize,
        )

    def entropy_candidates(self, num_views: int, global_batch_size: int) -> int:
        """The candidates of an anchor that the entropy is over."""
        return num_views * global_batch_size - 1

    def collapse_value(self, num_views: int, global_batch_size: int) -> float | None:
        return math.log(self.entropy_candidates(num_views, global_batch_size))


def judge_by_cross_entropy(
    products: tf.Tensor, itself: tf.Tensor, positives: tf.Tensor, *, exclude_positives: bool = False
) -> blocked.Judged:
    """Cross entropy of anchors that choose among candidates: losses, hits and entropies.

    The loss of an anchor with products s and positives p is log sum_k exp(s_k) - mean_p s_p, where k runs over all
    candidates except the anchor itself and, if they are excluded, its positives.

    Args:
      products: Float tensor [b, M].
      itself: int32 tensor [b], the candidate that an anchor must not choose.
      positives: int32 tensor [b, P], the candidates that it should choose, P >= 1.
      exclude_positives: Whether the softmax leaves out the positives. An anchor without another candidate then costs
        nothing.
    """
    logits = blocked.mask(products, itself)
    hits = blocked.find_positives(logits, positives)
    near = tf.gather(logits, positives, batch_dims=1)
    targets = positives[:, 0]
    if exclude_positives:
        for positive in tf.unstack(positives, axis=1):
            logits = blocked.mask(logits, positive)
        targets = tf.argmax(logits, axis=-1, output_type=positives.dtype)
    losses, slopes = blocked.cross_entropy(logits, targets)
    # Entropy = log of the sum of exponentials - mean logit.
    entropies = losses - tf.einsum("ij,ij->i", slopes, logits)
    if exclude_positives or positives.shape[1] > 1:  # All positives replace the target.
        losses += tf.gather(logits, targets, batch_dims=1) - tf.reduce_mean(near, axis=-1)
        slopes = blocked.add(slopes, 1.0, targets)
        for positive in tf.unstack(positives, axis=1):
            slopes = blocked.add(slopes, -1.0 / positives.shape[1], positive)
    if exclude_positives:
        is_alone = tf.equal(tf.reduce_max(logits, axis=-1), logits.dtype.min)
        losses, entropies = (tf.where(is_alone, tf.zeros_like(losses), values) for values in (losses, entropies))
        slopes = tf.where(is_alone[:, tf.newaxis], tf.zeros_like(slopes), slopes)
    return blocked.Judged(losses, slopes, (hits, entropies))

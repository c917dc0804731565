"""SupCon, the supervised contrastive loss, for images of which all, some or none are labelled."""

import dataclasses
import functools
from typing import ClassVar

import tensorflow as tf

from tf_simclr.losses import blocked, mining
from tf_simclr.losses.nt_xent import NTXent
from tf_simclr.losses.pairs import Pairs


@dataclasses.dataclass(frozen=True)
class SupCon(NTXent):
    """Trains every projection z_i to pick the views of all images of its class among all projections of the batch.

    With the similarities s_ik = z_i . z_k / temperature, the loss of an anchor i is the mean over its positives p of

        -s_ip + log sum_{k != i} exp(s_ik)

    Its positives are the other views of its image and all views, on any replica, of images of the same known class. An
    image whose class is not known has its own views as positives only, and is a negative of all others. So without
    labels this is NT-Xent. It is log(V N - 1) when all projections are equal.

    Source: Khosla et al., "Supervised Contrastive Learning" (2020), equation 2 (the loss "out").

    Attributes:
      temperature: Divides the similarities, > 0.
      normalize: Whether to scale every projection to unit length first, which makes similarities cosines.

    Raises:
      ValueError: If the temperature is not positive.
    """

    uses_labels: ClassVar[bool] = True

    def __call__(self, projections: tf.Tensor, pairs: Pairs = Pairs()) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The loss of this replica's anchors, and how well they find their positives.

        Args:
          projections: Float tensor [V n, D], view after view; half precision is compared in float32.
          pairs: Which rows belong together, with the labels of this replica's images, and without a memory.

        Returns:
          loss: Scalar >= 0, float32 (float64 for float64 projections).
          metrics: Scalars of the same dtype: "contrastive_top_1_accuracy", the share of the anchors whose most similar
            candidate is one of their positives, and "contrastive_entropy", as in NT-Xent.

        Raises:
          ValueError: If there are no labels, or a memory, whose rows have none.
        """
        if pairs.labels is None or pairs.memory is not None:
            found = "no labels" if pairs.labels is None else "a memory"
            raise ValueError(
                "SupCon compares images by their classes: give it labels, -1 where unknown, and no memory, in which "
                f"images have no classes. Received: {found}"
            )
        groups = _groups(pairs)
        return blocked.contrast(
            projections,
            pairs,
            functools.partial(_judge, tf.tile(groups, [pairs.num_candidate_views])),
            self.metric_names,
            temperature=self.temperature,
            normalize=self.normalize,
            more_rows=lambda part: (tf.gather(groups, part.images),),
        )


def _groups(pairs: Pairs) -> tf.Tensor:
    """Numbers that images of the global batch share if they are positives of one another: int64 [N]."""
    labels = tf.cast(pairs.labels, tf.int64)
    num_local = tf.size(labels, tf.int64)
    images = tf.cast(pairs.replica_id, tf.int64) * num_local + tf.range(num_local)
    return pairs.of_all_replicas(tf.where(labels >= 0, labels, -1 - images), num_views=1)


def _judge(
    of_candidates: tf.Tensor, products: tf.Tensor, itself: tf.Tensor, positives: tf.Tensor, of_anchors: tf.Tensor
) -> blocked.Judged:
    """Cross entropy of anchors that choose among candidates [M] of which those of their own group [b] are right."""
    logits = blocked.mask(products, itself)
    is_positive = tf.equal(of_anchors[:, tf.newaxis], of_candidates) & ~blocked.is_row(itself, products)
    weights = mining.weigh_all(is_positive, products.dtype)
    targets = positives[:, 0]  # Any one: it is replaced by all positives.
    losses, slopes = blocked.cross_entropy(logits, targets)
    entropies = losses - tf.einsum("ij,ij->i", slopes, logits)
    losses += tf.gather(logits, targets, batch_dims=1) - tf.einsum("ij,ij->i", weights, products)
    slopes = blocked.add(slopes, 1.0, targets) - weights
    hits = tf.gather(is_positive, tf.argmax(logits, axis=-1), batch_dims=1)
    return blocked.Judged(losses, slopes, (tf.cast(hits, losses.dtype), entropies))

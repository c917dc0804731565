"""DCLW, the decoupled contrastive loss with weights for the positive pairs."""

import dataclasses

import tensorflow as tf

from tf_simclr.losses import blocked
from tf_simclr.losses.dcl import DCL
from tf_simclr.losses.pairs import Pairs


@dataclasses.dataclass(frozen=True)
class DCLW(DCL):
    """DCL in which positive pairs that are far apart weigh more.

    The term -s_ip of a positive pair in DCL becomes -w_ip s_ip, with the negative von Mises-Fisher weights

        w_ip = 2 - exp(z_i . z_p / sigma) / mean exp(z_j . z_q / sigma)

    where the mean is over all positive pairs (j, q) of the global batch, so the mean weight is 1. The gradient flows
    through the weights, as in the authors' code. It is log(V (N - 1)) when all projections are equal.

    Source: Yeh et al., "Decoupled Contrastive Learning" (2021), equation 7.

    Attributes:
      temperature: Divides the similarities s, > 0.
      normalize: Whether to scale every projection to unit length first.
      sigma: Divides the similarities in the weights, > 0.

    Raises:
      ValueError: If the temperature or sigma is not positive.
    """

    sigma: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma > 0:
            raise ValueError(f"sigma must be positive. Received: {self.sigma}")

    def __call__(self, projections: tf.Tensor, pairs: Pairs = Pairs()) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        loss, metrics = super().__call__(projections, pairs)
        projections = blocked.prepare(projections, self.normalize)
        # All views of an image are on one replica, whose own rows suffice.
        here = Pairs(pairs.num_views, num_large=pairs.num_large)
        candidates = here.candidates(projections)
        parts = here.parts(projections, candidates)
        near = [tf.einsum("md,mpd->mp", part.anchors, tf.gather(candidates, part.positives)) for part in parts]
        log_mean = self._log_mean([part.share for part in parts], near, pairs)
        for part, similarities in zip(parts, near, strict=True):
            changes = tf.exp(similarities / self.sigma - log_mean) - 1  # 1 - w
            loss += part.share * tf.reduce_mean(changes * similarities) / self.temperature
        return loss, metrics

    def _log_mean(self, shares: list[float], near: list[tf.Tensor], pairs: Pairs) -> tf.Tensor:
        """The logarithm of the mean of exp(similarity / sigma) over the positive pairs of all replicas."""
        means = [
            tf.math.log(tf.cast(share, some.dtype) / tf.cast(tf.size(some), some.dtype))
            + tf.reduce_logsumexp(some / self.sigma)
            for share, some in zip(shares, near, strict=True)
        ]
        of_replicas = tf.reduce_logsumexp(tf.stack(means))[tf.newaxis]
        if pairs.gather is not None:
            of_replicas = pairs.gather(of_replicas)
        return tf.reduce_logsumexp(of_replicas) - tf.math.log(tf.cast(tf.size(of_replicas), of_replicas.dtype))

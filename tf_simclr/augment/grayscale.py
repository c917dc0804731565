"""Random conversion to grayscale."""

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_simclr.augment.operator import Operator, Planes, select

# As in tf.image.rgb_to_grayscale (ITU-R BT.601).
_LUMA_WEIGHTS = (0.2989, 0.5870, 0.1140)


@dataclasses.dataclass(frozen=True)
class RandomGrayscale(Operator):
    """Replaces some images by their luma, in all three channels (paper, appendix A).

    Attributes:
      probability: Share of the images to replace. The others stay unchanged.
      stream: Stream of its random numbers.

    Raises:
      ValueError: If `probability` is not between 0 and 1.
    """

    num_draws: ClassVar[int] = 1

    probability: float = 0.2
    stream: int = 3

    def __call__(self, planes: Planes, draws: tf.Tensor) -> Planes:
        """Applies the operator.

        Args:
          planes: Three times float32 `[n, H, W]`.
          draws: float32 `[n, 1]`, uniform in [0, 1): whether to replace the image.

        Returns:
          Three times float32 `[n, H, W]`.
        """
        luma = tf.add_n([weight * plane for weight, plane in zip(_LUMA_WEIGHTS, planes, strict=True)])
        return select(draws[:, :, tf.newaxis] < self.probability, (luma, luma, luma), planes)

"""Random rotations by multiples of 90 degrees."""

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_simclr.augment.fusion import fused_on_cpu
from tf_simclr.augment.operator import Operator


@dataclasses.dataclass(frozen=True)
class RandomRotation(Operator):
    """Rotates some images by 90, 180 or 270 degrees, each equally likely.

    One of the operators that SimCLR compares. With the default probability, 0 degrees are as likely as each of the
    other angles, as in table 3 of the paper; a probability of 1 leaves no image upright, as in figure 4.

    Attributes:
      probability: Share of the images to rotate. The others stay unchanged.
      stream: Stream of its random numbers.

    Raises:
      ValueError: If `probability` is not between 0 and 1.
    """

    num_draws: ClassVar[int] = 2
    on_planes: ClassVar[bool] = False

    probability: float = 0.75
    stream: int = 6

    def __call__(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Applies the operator.

        Args:
          images: float32 `[n, 3, S, S]`.
          draws: float32 `[n, 2]`, uniform in [0, 1): whether to rotate, and the angle.

        Returns:
          float32 `[n, 3, S, S]`.
        """
        turns = 1 + tf.cast(3.0 * draws[:, 1], tf.int32)
        return rotate(images, tf.where(draws[:, 0] < self.probability, turns, 0))


@fused_on_cpu
def rotate(images: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
    """Rotates square images, `[n, 3, S, S]`, counterclockwise by `turns` quarters of a circle, int32 `[n]`, 0 to 3."""
    turns = turns[:, tf.newaxis, tf.newaxis, tf.newaxis]
    images = tf.where(turns % 2 == 1, tf.transpose(images, (0, 1, 3, 2)), images)
    images = tf.where((turns == 1) | (turns == 2), tf.reverse(images, axis=(2,)), images)
    return tf.where(turns >= 2, tf.reverse(images, axis=(3,)), images)

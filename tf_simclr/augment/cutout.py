"""Cutout: a grey square in a random place."""

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_simclr.augment.operator import Operator, Planes, select

# The paper prints neither the size of the square nor its colour.
_SHARE_OF_SIDE = 0.5
_GREY = 0.5


@dataclasses.dataclass(frozen=True)
class Cutout(Operator):
    """Covers a square of some images with grey, 0.5.

    One of the operators that SimCLR compares (figures 4 and 5 of the paper, which gives no numbers). The square's side
    is half the image's, rounded to an even number of pixels. Its centre is equally likely in every pixel, so that the
    square may reach beyond the border, as in DeVries and Taylor, "Improved Regularization of Convolutional Neural
    Networks with Cutout" (2017).

    Attributes:
      probability: Share of the images to cover. The others stay unchanged.
      stream: Stream of its random numbers.

    Raises:
      ValueError: If `probability` is not between 0 and 1.
    """

    num_draws: ClassVar[int] = 3

    probability: float = 1.0
    stream: int = 7

    def __call__(self, planes: Planes, draws: tf.Tensor) -> Planes:
        """Applies the operator.

        Args:
          planes: Three times float32 `[n, H, W]`.
          draws: float32 `[n, 3]`, uniform in [0, 1): whether to cover a square, and the row and column of its centre.

        Returns:
          Three times float32 `[n, H, W]`.
        """
        height, width = planes[0].shape[1:]
        rows = _covered(draws[:, 1], height)[:, :, tf.newaxis]
        columns = _covered(draws[:, 2], width)[:, tf.newaxis, :]
        chosen = draws[:, 0, tf.newaxis, tf.newaxis] < self.probability
        grey = tf.fill(tf.shape(planes[0]), _GREY)
        return select(chosen & rows & columns, [grey] * len(planes), planes)


def _covered(draws: tf.Tensor, size: int) -> tf.Tensor:
    """Which of an axis' pixels the square covers: bool `[n, size]`, from uniform draws of its centre, `[n]`."""
    radius = round(_SHARE_OF_SIDE * size / 2)
    offsets = tf.range(size, dtype=tf.float32) - tf.floor(draws * size)[:, tf.newaxis]
    return (-radius <= offsets) & (offsets < radius)

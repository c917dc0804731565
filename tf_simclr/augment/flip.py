"""Random horizontal flips."""

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_simclr.augment.operator import Operator


@dataclasses.dataclass(frozen=True)
class RandomFlip(Operator):
    """Mirrors some images left and right (paper, appendix A).

    Attributes:
      probability: Share of the images to mirror.
      stream: Stream of its random numbers.

    Raises:
      ValueError: If `probability` is not between 0 and 1.
    """

    num_draws: ClassVar[int] = 1
    on_planes: ClassVar[bool] = False

    probability: float = 0.5
    stream: int = 1

    def chosen(self, draws: tf.Tensor) -> tf.Tensor:
        """Which images to mirror: bool `[n]`, from `draws`, float32 `[n, 1]`."""
        return draws[:, 0] < self.probability

    def __call__(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Applies the operator to float32 `[n, 3, H, W]`; `draws` are float32 `[n, 1]`, uniform in [0, 1)."""
        return mirror(images, self.chosen(draws))


def mirror(images: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
    """Mirrors images, `[n, 3, H, W]`, left and right where `flips`, bool `[n]`, is true."""
    return tf.where(flips[:, tf.newaxis, tf.newaxis, tf.newaxis], tf.reverse(images, axis=(3,)), images)

"""Gaussian noise."""

import dataclasses
import math
from typing import ClassVar

import tensorflow as tf

from tf_simclr.augment.draws import philox, to_uniform
from tf_simclr.augment.operator import Operator, Planes, select


@dataclasses.dataclass(frozen=True)
class GaussianNoise(Operator):
    """Adds normal noise to some images, independent in every pixel and channel, and clips to [0, 1].

    One of the operators that SimCLR compares (figures 4 and 5 of the paper, which gives no numbers). Each image has its
    own standard deviation, uniform in [0, `max_sigma`], for pixels from 0 to 1.

    Attributes:
      probability: Share of the images to add noise to. The others stay unchanged.
      max_sigma: Largest standard deviation, >= 0.
      stream: Stream of its random numbers.

    Raises:
      ValueError: If a value is out of its range.
    """

    num_draws: ClassVar[int] = 5

    probability: float = 0.5
    max_sigma: float = 0.2
    stream: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.max_sigma >= 0:
            raise ValueError(f"`GaussianNoise.max_sigma` must not be negative. Received: {self.max_sigma!r}")

    @property
    def is_identity(self) -> bool:
        return super().is_identity or self.max_sigma == 0

    def __call__(self, planes: Planes, draws: tf.Tensor) -> Planes:
        """Applies the operator.

        Args:
          planes: Three times float32 `[n, H, W]`.
          draws: float32 `[n, 5]`, uniform in [0, 1): whether to add noise, its standard deviation, and the key of the
            generator that makes the noise of an image.

        Returns:
          Three times float32 `[n, H, W]`.
        """
        shape = tf.shape(planes[0])
        noise = _normal(draws[:, 2:], len(planes) * shape[1] * shape[2])
        noise *= self.max_sigma * draws[:, 1:2]
        noise = tf.unstack(tf.reshape(noise, (shape[0], len(planes), shape[1], shape[2])), axis=1)
        noisy = [tf.clip_by_value(plane + part, 0.0, 1.0) for plane, part in zip(planes, noise, strict=True)]
        return select(draws[:, 0, tf.newaxis, tf.newaxis] < self.probability, noisy, planes)


def _normal(keys: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Draws numbers from the standard normal distribution.

    Uses the generator of the draws with a counter of (block, key), because an image has more pixels than an operator
    may draw numbers. Each half of a block's four words makes two numbers (Box and Muller, 1958).

    Args:
      keys: float32 `[n, 3]`, uniform in [0, 1) in steps of 2^-23.
      count: int32 scalar, numbers for each key.

    Returns:
      float32 `[n, count]`.
    """
    blocks = tf.cast(tf.range((count + 3) // 4), tf.uint32)[tf.newaxis]
    words = tf.cast(keys * 2.0**23, tf.uint32)
    bits = philox((blocks, *tf.split(words, 3, axis=1)), seed=0)
    # Half a step above 0, where the logarithm is not finite.
    uniform = [to_uniform(part) + 2.0**-24 for part in bits]
    numbers = []
    for first, second in (uniform[:2], uniform[2:]):
        radius, angle = tf.sqrt(-2.0 * tf.math.log(first)), 2.0 * math.pi * second
        numbers += [radius * tf.cos(angle), radius * tf.sin(angle)]
    return tf.reshape(tf.stack(numbers, axis=2), (tf.shape(keys)[0], -1))[:, :count]

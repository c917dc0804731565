"""Sobel filter: edges in place of colours."""

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_simclr.augment.operator import Operator, Planes, select

# A straight edge from black to white is 1. An image without a stronger edge than this is noise, and stays dark.
_FAINTEST = 0.1


@dataclasses.dataclass(frozen=True)
class Sobel(Operator):
    """Replaces some images by the strength of their edges: in each channel, the magnitude of the Sobel gradient.

    One of the operators that SimCLR compares (figures 4 and 5 of the paper, which gives no numbers). The strongest edge
    of an image, in whichever channel, becomes 1, unless it is fainter than a tenth of one from black to white.

    Attributes:
      probability: Share of the images to replace. The others stay unchanged.
      stream: Stream of its random numbers.

    Raises:
      ValueError: If `probability` is not between 0 and 1.
    """

    num_draws: ClassVar[int] = 1

    probability: float = 0.5
    stream: int = 8

    def __call__(self, planes: Planes, draws: tf.Tensor) -> Planes:
        """Applies the operator.

        Args:
          planes: Three times float32 `[n, H, W]`, at least 2 pixels high and wide.
          draws: float32 `[n, 1]`, uniform in [0, 1): whether to replace the image.

        Returns:
          Three times float32 `[n, H, W]`.
        """
        edges = [_magnitude(plane) for plane in planes]
        strongest = tf.reduce_max(tf.stack([tf.reduce_max(plane, (1, 2), keepdims=True) for plane in edges]), axis=0)
        edges = [plane / tf.maximum(strongest, _FAINTEST) for plane in edges]
        return select(draws[:, :, tf.newaxis] < self.probability, edges, planes)


def _magnitude(plane: tf.Tensor) -> tf.Tensor:
    """A quarter of the length of the gradient that `tf.image.sobel_edges` returns: float32 `[n, H, W]`."""
    padded = tf.pad(plane, ((0, 0), (1, 1), (1, 1)), mode="REFLECT")
    smooth_rows = padded[:, :-2] + 2.0 * padded[:, 1:-1] + padded[:, 2:]
    smooth_columns = padded[:, :, :-2] + 2.0 * padded[:, :, 1:-1] + padded[:, :, 2:]
    horizontal = smooth_rows[:, :, 2:] - smooth_rows[:, :, :-2]
    vertical = smooth_columns[:, 2:] - smooth_columns[:, :-2]
    return 0.25 * tf.sqrt(horizontal * horizontal + vertical * vertical)

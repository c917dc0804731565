"""Gaussian blur over batches, with a sigma per image."""

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_simclr.augment.fusion import fused_on_cpu
from tf_simclr.augment.operator import Operator
from tf_simclr.devices import on_accelerator

SIGMA_RANGE = (0.1, 2.0)

# Up to this width, matrices are at least as fast on a CPU too.
MAX_MATRIX_SIZE_PX = 160


@dataclasses.dataclass(frozen=True)
class GaussianBlur(Operator):
    """Blurs some images, each with its own sigma, uniform in [0.1, 2] pixels (paper, appendix A).

    The reference shares one sigma among all images of a batch.

    Attributes:
      probability: Share of the images to blur. The others stay unchanged.
      stream: Stream of its random numbers.

    Raises:
      ValueError: If `probability` is not between 0 and 1.
    """

    num_draws: ClassVar[int] = 2
    on_planes: ClassVar[bool] = False

    probability: float = 0.5
    stream: int = 4

    def __call__(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Applies the operator.

        Args:
          images: float32 `[n, 3, S, S]`.
          draws: float32 `[n, 2]`, uniform in [0, 1): whether to blur, and the sigma.

        Returns:
          float32 `[n, 3, S, S]`.
        """
        low, high = SIGMA_RANGE
        sigma = low + (high - low) * draws[:, 1]
        return gaussian_blur(images, sigma, draws[:, 0] < self.probability, kernel_radius(images.shape[-1]))


def gaussian_blur(images: tf.Tensor, sigma: tf.Tensor, where: tf.Tensor, radius: int) -> tf.Tensor:
    """Convolves the images with a Gaussian.

    As in the reference, the kernel is normalised and the image is padded with zeros, so it darkens towards its border.

    Args:
      images: float32 `[n, 3, H, W]`, channels first.
      sigma: float32 `[n]`, positive, in pixels.
      where: bool `[n]`, the images to blur.
      radius: Taps of the kernel on each side of the middle one.

    Returns:
      float32 `[n, 3, H, W]`.
    """
    by_taps = not on_accelerator() and images.shape[-1] > MAX_MATRIX_SIZE_PX
    return (blur_by_taps if by_taps else blur_by_matrices)(images, sigma, where, radius)


def blur_by_matrices(images: tf.Tensor, sigma: tf.Tensor, where: tf.Tensor, radius: int) -> tf.Tensor:
    """`gaussian_blur` as two products with banded matrices per plane, which suits accelerators."""
    height, width = images.shape[-2:]
    rows = _blur_matrices(sigma, where, height, radius)
    columns = rows if height == width else _blur_matrices(sigma, where, width, radius)
    return tf.matmul(tf.matmul(rows, images), columns)  # The matrices are symmetric.


def blur_by_taps(images: tf.Tensor, sigma: tf.Tensor, where: tf.Tensor, radius: int) -> tf.Tensor:
    """`gaussian_blur` as two weighted sums of shifted images, three times as fast on a CPU at 224 px."""
    kernel = tf.exp(-(0.5 / sigma**2)[:, tf.newaxis] * tf.range(radius + 1, dtype=tf.float32) ** 2)
    kernel /= 2.0 * tf.reduce_sum(kernel, axis=1, keepdims=True) - kernel[:, :1]
    kernel = tf.where(where[:, tf.newaxis], kernel, tf.one_hot(0, radius + 1))
    for axis in (2, 3):
        # Padded here, because XLA would pad again for every tap.
        padding = [[radius, radius] if other == axis else [0, 0] for other in range(4)]
        images = _sum_of_shifts(tf.pad(images, padding), kernel, axis)
    return images


@fused_on_cpu
def _sum_of_shifts(padded: tf.Tensor, kernel: tf.Tensor, axis: int) -> tf.Tensor:
    """Sums `padded` along `axis`, weighted by a symmetric kernel; `kernel` is one half, float32 `[n, radius + 1]`."""
    radius = kernel.shape[1] - 1
    size = padded.shape[axis] - 2 * radius

    def shifted(start: int) -> tf.Tensor:
        return padded[:, :, start : start + size] if axis == 2 else padded[:, :, :, start : start + size]

    weights = tf.unstack(kernel[:, :, tf.newaxis, tf.newaxis, tf.newaxis], axis=1)
    total = weights[0] * shifted(radius)
    for distance in range(1, radius + 1):
        total += weights[distance] * (shifted(radius - distance) + shifted(radius + distance))
    return total


def _blur_matrices(sigma: tf.Tensor, where: tf.Tensor, size: int, radius: int) -> tf.Tensor:
    """Banded matrices `[n, 1, size, size]` that convolve an axis, or leave it unchanged."""
    precision = (0.5 / sigma**2)[:, tf.newaxis]
    offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
    total = tf.reduce_sum(tf.exp(-precision * offsets**2), axis=1, keepdims=True)[:, tf.newaxis]
    positions = tf.range(size, dtype=tf.float32)
    distances = tf.abs(positions - positions[:, tf.newaxis])
    band = tf.cast(distances <= radius, tf.float32)
    blur = band * tf.exp(-precision[:, tf.newaxis] * distances**2) / total
    return tf.where(where[:, tf.newaxis, tf.newaxis], blur, tf.eye(size))[:, tf.newaxis]


def kernel_radius(size: int) -> int:
    """Taps on each side of the middle one, for images of `size` pixels: the kernel is a tenth of the image wide.

    As in the reference, it has 3 taps at 32 px and 23 taps at 224 px.
    """
    return size // 10 // 2

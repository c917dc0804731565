"""Gaussian blur over batches, with a sigma per image."""

import tensorflow as tf

BLUR_DRAWS = 2
SIGMA_RANGE = (0.1, 2.0)


def random_blur(images: tf.Tensor, draws: tf.Tensor, *, probability: float = 0.5) -> tf.Tensor:
    """Blurs some images, each with a sigma of its own, uniform in `SIGMA_RANGE` (paper, appendix A).

    The reference shares one sigma among all images of a batch.

    Args:
      images: float32 `[n, 3, S, S]`, channels first.
      draws: float32 `[n, BLUR_DRAWS]`, uniform in [0, 1): whether to blur, and the sigma.
      probability: Share of the images to blur. The others come back as they are.

    Returns:
      float32 `[n, 3, S, S]`.
    """
    low, high = SIGMA_RANGE
    sigma = low + (high - low) * draws[:, 1]
    return gaussian_blur(images, sigma, where=draws[:, 0] < probability)


def gaussian_blur(images: tf.Tensor, sigma: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
    """Convolves the images with a Gaussian, as two products with banded matrices per plane.

    The kernel is the reference's: a tenth of the image wide (32 px: 3 taps, 224 px: 23 taps), normalised, and
    the image is padded with zeros, so that it darkens towards its border.

    Args:
      images: float32 `[n, 3, S, S]`, channels first.
      sigma: float32 `[n]`, positive, in pixels.
      where: bool `[n]`, the images to blur.

    Returns:
      float32 `[n, 3, S, S]`.
    """
    size = images.shape[-1]
    radius = kernel_radius(size)
    precision = (0.5 / sigma**2)[:, tf.newaxis]
    offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
    total = tf.reduce_sum(tf.exp(-precision * offsets**2), axis=1, keepdims=True)[:, tf.newaxis]
    positions = tf.range(size, dtype=tf.float32)
    distances = tf.abs(positions - positions[:, tf.newaxis])
    band = tf.cast(distances <= radius, tf.float32)
    blur = band * tf.exp(-precision[:, tf.newaxis] * distances**2) / total
    blur = tf.where(where[:, tf.newaxis, tf.newaxis], blur, tf.eye(size))[:, tf.newaxis]
    # The matrices are symmetric: rows first, then columns.
    return tf.matmul(tf.matmul(blur, images), blur)


def kernel_radius(size: int) -> int:
    """Taps on each side of the middle one, for images of `size` pixels."""
    return size // 10 // 2

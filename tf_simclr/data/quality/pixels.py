"""Compares two images pixel by pixel, to tell whether they are the same picture.

Pictures of one layout differ in their details: the strokes of two drawings on white sheets, the words of two pages, the
ribs of two chests. So only details are compared: what is left of an image without its mean over a few pixels. A copy
may be trimmed, so one image is first moved and stretched onto the other, along each axis, by Gauss-Newton steps (S.
Baker and I. Matthews, "Lucas-Kanade 20 years on", 2004, inverse compositional). Then the details are correlated block
by block. In a copy nearly all of them agree, all but those under a watermark; so the likeness is the correlation that
is exceeded in blocks with nine tenths of the details.
"""

import functools

import numpy as np
import tensorflow as tf

THUMBNAIL_PX = 128

# The least likeness of two copies at each size at which images are compared (docs/checking.md has the measurements).
# Small images lose more of their details when they are compressed.
MIN_LIKENESS = {32: 0.6, 64: 0.7, 128: 0.7}

_STEPS = 3  # At the size of the comparison, and before at half of it, from where larger shifts are found.
_MAX_TRIM = 0.06  # Of the side, at each end.
_BLOCKS = 7  # Along each axis.
_DETAIL_PX = 9
_IGNORED_SHARE = 0.1
# Added to the standard deviations of a block's details; those of the whole image have 1.
_NOISE = 0.02
_PAIRS_AT_ONCE = 64


def thumbnail(images: tf.Tensor) -> tf.Tensor:
    """uint8 [b, H, W, 3] -> uint8 [b, 128, 128], grey levels stretched to the whole range."""
    grey = tf.image.resize(tf.image.rgb_to_grayscale(tf.cast(images, tf.float32)), [THUMBNAIL_PX] * 2, "area")[..., 0]
    low, high = (reduce(grey, axis=[1, 2], keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    return tf.cast(tf.round((grey - low) * (255 / tf.maximum(high - low, 1e-3))), tf.uint8)


def are_same(thumbnails: np.ndarray, first: np.ndarray, second: np.ndarray, resolutions_px: np.ndarray) -> np.ndarray:
    """Whether two images show the same picture, for n pairs.

    Args:
      thumbnails: uint8 [N, 128, 128].
      first: int64 [n], position of one image of each pair.
      second: int64 [n], position of the other.
      resolutions_px: int [n], the shortest side of either image: what is smaller than a pixel is not compared.

    Returns:
      bool [n].
    """
    found = np.zeros(len(first), bool)
    sizes = np.array(list(MIN_LIKENESS))
    sizes = sizes[np.abs(np.log2(resolutions_px[:, np.newaxis] / sizes)).argmin(axis=1)]
    for size, least in MIN_LIKENESS.items():
        members = np.flatnonzero(sizes == size)
        for start in range(0, len(members), _PAIRS_AT_ONCE):
            batch = members[start : start + _PAIRS_AT_ONCE]
            found[batch] = likeness(thumbnails[first[batch]], thumbnails[second[batch]], size).numpy() >= least
    return found


@functools.partial(tf.function, autograph=False, reduce_retracing=True)
def likeness(first: tf.Tensor, second: tf.Tensor, size: int) -> tf.Tensor:
    """How much the details of pairs of thumbnails agree at a size S: float32 [n], up to 1."""
    place = tf.tile([[1.0, 0.0, 1.0, 0.0]], [tf.shape(first)[0], 1])
    for scale in (size // 2, size):
        place = _align(_details(_reduce(first, scale)), _details(_reduce(second, scale)), place)
    first, second = _reduce(first, size), _move(_reduce(second, size), place)
    margin = size // 16
    inside = slice(margin, size - margin)
    first, second = (_unit(_details(images)[:, inside, inside]) for images in (first, second))
    side = (size - 2 * margin) // _BLOCKS

    def mean(values: tf.Tensor) -> tf.Tensor:
        return tf.nn.avg_pool2d(values[..., tf.newaxis], side, side, "VALID")[..., 0]

    variances = [tf.nn.relu(mean(details**2) - mean(details) ** 2) for details in (first, second)]
    deviations = [tf.sqrt(variance) for variance in variances]
    covariance = mean(first * second) - mean(first) * mean(second)
    correlations = tf.reshape(covariance / (deviations[0] * deviations[1] + _NOISE), [-1, _BLOCKS**2])
    weights = tf.reshape(tf.maximum(*deviations), [-1, _BLOCKS**2])
    order = tf.argsort(correlations, axis=1)
    sums = tf.cumsum(tf.gather(weights, order, batch_dims=1), axis=1)
    ignored = tf.reduce_sum(tf.cast(sums < _IGNORED_SHARE * sums[:, -1:], tf.int32), axis=1)
    ignored = tf.minimum(ignored, _BLOCKS**2 - 1)
    return tf.gather(tf.gather(correlations, order, batch_dims=1), ignored, batch_dims=1)


def _reduce(thumbnails: tf.Tensor, size: int) -> tf.Tensor:
    """uint8 [n, 128, 128] -> float32 [n, S, S]."""
    factor = THUMBNAIL_PX // size
    images = tf.cast(thumbnails, tf.float32)[..., tf.newaxis]
    return tf.nn.avg_pool2d(images, factor, factor, "VALID")[..., 0]


def _smooth(images: tf.Tensor, width: int) -> tf.Tensor:
    """The mean over a square of an odd width around every pixel."""
    images = tf.pad(images, [[0, 0], [width // 2] * 2, [width // 2] * 2], "SYMMETRIC")[..., tf.newaxis]
    return tf.nn.avg_pool2d(tf.nn.avg_pool2d(images, [width, 1], 1, "VALID"), [1, width], 1, "VALID")[..., 0]


def _details(images: tf.Tensor) -> tf.Tensor:
    images = _smooth(images, 3)
    return images - _smooth(images, _DETAIL_PX)


def _unit(images: tf.Tensor) -> tf.Tensor:
    return images / tf.maximum(tf.math.reduce_std(images, axis=[1, 2], keepdims=True), 1e-3)


def _move(images: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Looks up every pixel (x, y), as offsets from the middle in sides, at (scale_x * x + shift_x, ...).

    Args:
      images: float32 [n, S, S].
      place: float32 [n, 4], (scale_x, shift_x, scale_y, shift_y).
    """
    size = images.shape[1]
    middle = (size - 1) / 2
    scale_x, shift_x, scale_y, shift_y = tf.unstack(place, axis=1)
    zero = tf.zeros_like(scale_x)
    left, top = (middle - scale * middle + shift * size for scale, shift in ((scale_x, shift_x), (scale_y, shift_y)))
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images[..., tf.newaxis],
        transforms=tf.stack([scale_x, zero, left, zero, scale_y, top, zero, zero], axis=1),
        output_shape=[size, size],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )[..., 0]


def _align(first: tf.Tensor, second: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Improves the place in the second image of every pixel of the first, float32 [n, 4] as in `_move`."""
    size = first.shape[1]
    first, second = _unit(first), _unit(second)
    offsets = (np.arange(size, dtype=np.float32) - (size - 1) / 2) / size
    is_inside = (np.abs(offsets) < 0.5 - 1 / 16).astype(np.float32)
    slope_x = (tf.roll(first, -1, 2) - tf.roll(first, 1, 2)) * (size / 2)
    slope_y = (tf.roll(first, -1, 1) - tf.roll(first, 1, 1)) * (size / 2)
    slopes = tf.stack([slope_x * offsets, slope_x, slope_y * offsets[:, np.newaxis], slope_y], axis=1)
    slopes = tf.reshape(slopes * is_inside * is_inside[:, np.newaxis], [-1, 4, size * size])
    products = tf.matmul(slopes, slopes, transpose_b=True)
    # A little of the diagonal is added, because plain images leave the place open.
    inverse = tf.linalg.inv(products + 1e-3 * tf.linalg.diag(tf.linalg.diag_part(products) + 1.0))
    for _ in range(_STEPS):
        errors = tf.reshape(_move(second, place) - first, [-1, size * size, 1])
        step = tf.matmul(inverse, tf.matmul(slopes, errors))[..., 0]
        scale = place[:, ::2] / (1 + step[:, ::2])
        shift = place[:, 1::2] - scale * step[:, 1::2]
        scale = tf.clip_by_value(scale, 1 - 2 * _MAX_TRIM, 1 / (1 - 2 * _MAX_TRIM))
        shift = tf.clip_by_value(shift, -_MAX_TRIM, _MAX_TRIM)
        place = tf.reshape(tf.stack([scale, shift], axis=2), [-1, 4])
    return place

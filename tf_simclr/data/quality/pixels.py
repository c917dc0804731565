"""Compares two images pixel by pixel, to tell whether they are the same picture.

Pictures of one layout differ in their details: the strokes of two drawings on white sheets, the words of two pages, the
ribs of two chests. So only details are compared: what is left of an image without its mean over a few pixels. A copy
may be trimmed, so one image is first moved and stretched onto the other, along each axis, by Gauss-Newton steps (S.
Baker and I. Matthews, "Lucas-Kanade 20 years on", 2004, inverse compositional). Then the details are correlated block
by block. In a copy nearly all of them agree, all but those under a watermark; so the likeness is the correlation that
is exceeded in blocks with nine tenths of the details. Besides, the place of a copy must be that of a trimmed image, the
hues of two coloured images must agree, and no block may hold strong details in both images that differ strongly.
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

# A place may reach this much of the side beyond the larger image on one side and stay within on the other.
_MAX_OVERHANG = 0.01
# A block refutes a pair if both images have details of this strength there, and the mean square of their difference
# is larger than this; the details of a whole image have 1. A watermark on a plain ground is in one image only.
_MIN_STRENGTH = 0.3
_MAX_DIFFERENCE = 1.5
_COLOR_PX = 16
# Root mean square of U and V, as in `thumbnail`, from which an image is coloured.
_MIN_COLOR = 5.0
_MIN_COLOR_LIKENESS = 0.97


def thumbnail(images: tf.Tensor) -> tf.Tensor:
    """uint8 [b, H, W, 3] -> uint8 [b, 128, 128, 3], grey levels stretched to the whole range, U and V around 128."""
    yuv = tf.image.rgb_to_yuv(tf.image.resize(tf.cast(images, tf.float32), [THUMBNAIL_PX] * 2, "area"))
    grey, colors = yuv[..., :1], yuv[..., 1:]
    low, high = (reduce(grey, axis=[1, 2], keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    grey = (grey - low) * (255 / tf.maximum(high - low, 1e-3))
    return tf.cast(tf.round(tf.concat([grey, 128 + 0.8 * colors], axis=-1)), tf.uint8)


def are_same(thumbnails: np.ndarray, first: np.ndarray, second: np.ndarray, resolutions_px: np.ndarray) -> np.ndarray:
    """Whether two images show the same picture, for n pairs.

    Args:
      thumbnails: uint8 [N, 128, 128, 3].
      first: int64 [n], position of one image of each pair.
      second: int64 [n], position of the other.
      resolutions_px: int [n], the shortest side of either image: what is smaller than a pixel is not compared.

    Returns:
      bool [n].
    """
    found = np.zeros(len(first), bool)
    sizes = np.array(list(MIN_LIKENESS))
    sizes = sizes[np.abs(np.log2(resolutions_px[:, np.newaxis] / sizes)).argmin(axis=1)]
    for size in MIN_LIKENESS:
        members = np.flatnonzero(sizes == size)
        for start in range(0, len(members), _PAIRS_AT_ONCE):
            batch = members[start : start + _PAIRS_AT_ONCE]
            found[batch] = _agree(thumbnails[first[batch]], thumbnails[second[batch]], size).numpy()
    return found


@functools.partial(tf.function, autograph=False, reduce_retracing=True)
def _agree(first: tf.Tensor, second: tf.Tensor, size: int) -> tf.Tensor:
    """Whether pairs of thumbnails show the same at a size S: bool [n]."""
    grey = [thumbnails[..., 0] for thumbnails in (first, second)]
    place = tf.tile([[1.0, 0.0, 1.0, 0.0]], [tf.shape(first)[0], 1])
    for scale in (size // 2, size):
        place = _align(_details(_reduce(grey[0], scale)), _details(_reduce(grey[1], scale)), place)
    likeness, difference = _compare(_reduce(grey[0], size), _move(_reduce(grey[1], size), place))
    agree = (likeness >= MIN_LIKENESS[size]) & (difference <= _MAX_DIFFERENCE) & _is_part(place)
    return agree & (_color_likeness(first[..., 1:], second[..., 1:], place) >= _MIN_COLOR_LIKENESS)


def _compare(first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Compares the details of aligned images, float32 [n, S, S], block by block.

    Returns:
      (likeness float32 [n], up to 1, the largest difference where both have details float32 [n]).
    """
    size = first.shape[1]
    margin = size // 16
    inside = slice(margin, size - margin)
    first, second = (_unit(_details(images)[:, inside, inside]) for images in (first, second))
    side = (size - 2 * margin) // _BLOCKS

    def mean(values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.nn.avg_pool2d(values[..., tf.newaxis], side, side, "VALID"), [-1, _BLOCKS**2])

    variances = [tf.nn.relu(mean(details**2) - mean(details) ** 2) for details in (first, second)]
    deviations = [tf.sqrt(variance) for variance in variances]
    covariance = mean(first * second) - mean(first) * mean(second)
    correlations = covariance / (deviations[0] * deviations[1] + _NOISE)
    order = tf.argsort(correlations, axis=1)
    sums = tf.cumsum(tf.gather(tf.maximum(*deviations), order, batch_dims=1), axis=1)
    ignored = tf.reduce_sum(tf.cast(sums < _IGNORED_SHARE * sums[:, -1:], tf.int32), axis=1)
    ignored = tf.minimum(ignored, _BLOCKS**2 - 1)
    likeness = tf.gather(tf.gather(correlations, order, batch_dims=1), ignored, batch_dims=1)
    is_in_both = tf.cast(tf.minimum(*deviations) > _MIN_STRENGTH, tf.float32)
    return likeness, tf.reduce_max(is_in_both * mean((first - second) ** 2), axis=1)


def _is_part(place: tf.Tensor) -> tf.Tensor:
    """Whether along each axis, one image lies inside the other, as a trimmed copy does: bool [n]."""
    overhang = tf.abs(place[:, 1::2]) - tf.abs(place[:, ::2] - 1) / 2
    return tf.reduce_max(overhang, axis=1) <= _MAX_OVERHANG


def _color_likeness(first: tf.Tensor, second: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """The cosine between the colours, uint8 [n, 128, 128, 2]; 1 if an image is grey: float32 [n]."""
    first, second = (
        [_reduce(images[..., channel], _COLOR_PX) - 128 for channel in (0, 1)] for images in (first, second)
    )
    second = [_move(channel, place) for channel in second]
    inside = slice(1, _COLOR_PX - 1)
    first, second = (tf.stack(channels, axis=1)[:, :, inside, inside] for channels in (first, second))
    lengths = [tf.sqrt(2 * tf.reduce_mean(colors**2, axis=[1, 2, 3])) for colors in (first, second)]
    cosine = 2 * tf.reduce_mean(first * second, axis=[1, 2, 3]) / tf.maximum(lengths[0] * lengths[1], 1e-3)
    return tf.where(tf.minimum(*lengths) >= _MIN_COLOR, cosine, 1.0)


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

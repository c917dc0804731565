"""Decodes images.

Everything here uses core TensorFlow operations, takes dynamic shapes and keeps no Python state, so an exported
SavedModel can include it.

No branch runs beside one that may fail. TensorFlow would cancel it, and may report its CancelledError instead of the
error. `Dataset.ignore_errors` leaves out elements with an error, but stops at that one.
"""

import functools
from typing import Any

import tensorflow as tf

from tf_simclr.data.formats import details, headers
from tf_simclr.data.formats.headers import MAX_PIXELS

# TensorFlow decodes by content, not by name; the suffixes only distinguish images from other files.
IMAGE_SUFFIXES: tuple[str, ...] = (".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png")
if hasattr(tf.io, "decode_webp"):  # TensorFlow 2.15 has no WebP decoder.
    IMAGE_SUFFIXES += (".webp",)


def is_image_name(name: str) -> bool:
    """Whether the suffix of a file's name is that of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def decode_image(encoded: tf.Tensor, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Decodes one JPEG, PNG, GIF (its first frame), BMP or, where TensorFlow can, WebP image.

    Args:
      encoded: The content of an image file, string [].
      max_pixels: Images with more pixels are refused by their header, before memory is allocated for them.

    Returns:
      uint8 [H, W, 3], upright according to a JPEG's EXIF orientation. Grey images have three equal channels, CMYK and
      palettes become RGB, 16 bits become 8, and an alpha channel is dropped.

    Raises:
      tf.errors.InvalidArgumentError: If the bytes are not a complete image of a known format, or it is too large.
    """
    image = headers.either(headers.is_plain_jpeg(encoded), *_decoders(max_pixels), encoded)
    return tf.ensure_shape(image, [None, None, 3])


@functools.cache
def _decoders(max_pixels: int) -> tuple[Any, Any]:
    """Decoders of the files that `headers.is_plain_jpeg` says are JPEGs, and of all others."""

    def check(num_pixels: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
        is_known = tf.Assert(num_pixels > 0, ["not a JPEG, PNG, GIF, BMP or still WebP image"])
        fits = tf.Assert(num_pixels <= max_pixels, [f"more than {max_pixels} pixels (data.max_pixels):", num_pixels])
        with tf.control_dependencies([is_known, fits]):
            return tf.identity(encoded)

    def decode_plain_jpeg(encoded: tf.Tensor) -> tf.Tensor:
        return _decode(check(headers.jpeg_pixels(encoded), encoded))

    def decode_other(encoded: tf.Tensor) -> tf.Tensor:
        header = headers.read_header(encoded)
        still = check(header.num_pixels, header.still)
        return headers.either(header.is_plain, _decode_plainly, _decode_with_care, still)

    return headers.branch(decode_plain_jpeg), headers.branch(decode_other)


def _decode(still: tf.Tensor, channels: int = 3, dtype: tf.DType = tf.uint8) -> tf.Tensor:
    image = tf.io.decode_image(still, channels=channels, dtype=dtype, expand_animations=False)
    return tf.ensure_shape(image, [None, None, channels or None])


_decode_plainly = headers.branch(lambda still: _decode(still))


@headers.branch
def _decode_with_care(still: tf.Tensor) -> tf.Tensor:
    """Decodes a file that is not plain, see `headers.Header`."""
    all_details = details.read(still)
    orientation, bits, has_own_channels, palette = all_details
    with tf.control_dependencies(all_details):
        still = tf.identity(still)
    image = tf.case(
        [
            (bits < 16, lambda: _upper_eight(_decode(still, dtype=tf.uint16), bits)),
            (has_own_channels, lambda: _decode(still, channels=0)[..., :3]),
        ],
        default=lambda: _decode(still),
    )
    image = tf.cond(tf.size(palette) > 0, lambda: tf.gather(palette, tf.cast(image[..., 0], tf.int32)), lambda: image)
    return _turn(image, orientation)


def _upper_eight(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """The upper eight of the significant bits of an image, uint16 [H, W, 3] -> uint8.

    The PNG specification wants the significant bits to be the upper ones of the sixteen. Many files of scanners and
    microscopes have them in the lower ones: no value has more bits, and the bits that would be padding are not zero.
    """
    image = tf.cast(image, tf.int32)
    unit = tf.bitwise.left_shift(1, 16 - bits)
    are_lower = tf.reduce_all(image * unit < 1 << 16) & tf.reduce_any(image % unit > 0)
    return tf.cast(tf.where(are_lower, image * unit, image) // 256, tf.uint8)


def try_decode_image(encoded: tf.Tensor, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """The image as `decode_image` returns it, or uint8 [0, 0, 3] if it raises an error."""
    image = tf.data.Dataset.from_tensors(encoded).map(lambda encoded: decode_image(encoded, max_pixels))
    no_image = tf.data.Dataset.from_tensors(tf.zeros([0, 0, 3], tf.uint8))
    return image.ignore_errors().concatenate(no_image).take(1).get_single_element()


def _turn(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undoes an EXIF orientation (int32 scalar, 1 to 8): a transposition, then flips."""

    def is_one_of(*values: int) -> tf.Tensor:
        return tf.reduce_any(orientation == tf.constant(values))

    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    image = tf.cond(is_one_of(2, 3, 6, 7), lambda: image[:, ::-1], lambda: image)
    return tf.cond(is_one_of(3, 4, 7, 8), lambda: image[::-1], lambda: image)


def crop_and_resize(image: tf.Tensor, box: tf.Tensor, image_size: int) -> tf.Tensor:
    """Cuts a box out of one image and resizes it as the reference does (bicubic, half-pixel centres).

    Args:
      image: Pixels, uint8 [H, W, 3].
      box: int32 [4], (top, left, height, width), inside the image.
      image_size: Side S of the result in pixels.

    Returns:
      uint8 [S, S, 3], rounded to the nearest level.
    """
    top, left, height, width = tf.unstack(box)
    crop = image[top : top + height, left : left + width]
    resized = tf.image.resize(crop, [image_size, image_size], tf.image.ResizeMethod.BICUBIC)
    return tf.cast(tf.round(tf.clip_by_value(resized, 0.0, 255.0)), tf.uint8)

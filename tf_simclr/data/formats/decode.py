"""Decodes images, and preprocesses them for evaluation and serving.

Everything here uses core TensorFlow operations, takes dynamic shapes and keeps no Python state, so an exported
SavedModel can include it.
"""

import tensorflow as tf

# What follows the decoding; models evaluate with it as well, and may not import the data.
from tf_simclr.augment.center import (  # noqa: F401
    CROP_PROPORTION,
    MAX_UNCROPPED_SIZE,
    central_crop,
    preprocess_for_eval,
)
from tf_simclr.data.formats import headers
from tf_simclr.data.formats.headers import MAX_PIXELS

# TensorFlow decodes by content, not by name; the suffixes only distinguish images from other files.
IMAGE_SUFFIXES: tuple[str, ...] = (".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png")
if hasattr(tf.io, "decode_webp"):  # TensorFlow 2.15 has no WebP decoder.
    IMAGE_SUFFIXES += (".webp",)


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
    num_pixels, orientation, palette, still = headers.read_header(encoded)
    is_known = tf.Assert(num_pixels > 0, ["not a JPEG, PNG, GIF, BMP or WebP image"])
    fits = tf.Assert(num_pixels <= max_pixels, [f"more than {max_pixels} pixels (data.max_pixels):", num_pixels])
    with tf.control_dependencies([] if tf.executing_eagerly() else [is_known, fits]):
        image = tf.io.decode_image(still, channels=3, expand_animations=False)
    image = tf.ensure_shape(image, [None, None, 3])
    is_done = (tf.size(palette) == 0) & (orientation == 1)
    image = tf.cond(is_done, lambda: image, lambda: _color_and_turn(image, palette, orientation))
    return tf.ensure_shape(image, [None, None, 3])


@headers.rare_branch(
    tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([None, 3], tf.uint8), tf.TensorSpec([], tf.int32)
)
def _color_and_turn(image: tf.Tensor, palette: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Looks the colours up in the palette, if there is one, and undoes the EXIF orientation."""
    image = tf.cond(tf.size(palette) > 0, lambda: tf.gather(palette, tf.cast(image[..., 0], tf.int32)), lambda: image)
    return _turn(image, orientation)


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

"""Reads the headers of image files: what decides whether and how they are decoded.

Uses core TensorFlow operations on the encoded bytes, without decoding, so that an exported SavedModel can include them;
only a few, because they run for every image.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

# Twice a 48-megapixel photo; its pixels take 300 MB.
MAX_PIXELS = 100_000_000

_SEARCHED_BYTES = 1 << 17  # two JPEG segments of the largest size
# EXIF data, or the first of several segments of a colour profile, behind which they may be.
_MAY_HAVE_EXIF = r"\C*(?:Exif\x00|ICC_PROFILE\x00\x01[\x02-\x7f])\C*"
_ANIMATION_FLAG = 0x02  # of a WebP file
_GIF_PADDING = 2048  # more than two palettes, so that reads stay in bounds when a truncated file announces them
PALETTE_END = 14 + 124 + 4 * 256  # of a BMP file with the longest header

# Integers at fixed places of the first 32 bytes: first byte, last byte (below the first: big-endian).
_FIELDS = {
    "png_height": (23, 20), "png_width": (19, 16), "gif_height": (8, 9), "gif_width": (6, 7),
    "bmp_height": (22, 25), "bmp_width": (18, 21), "bmp_header": (14, 17), "bmp_bits": (28, 29),
    "vp8_height": (28, 29), "vp8_width": (26, 27), "vp8l_bits": (21, 24),
    "vp8x_height": (27, 29), "vp8x_width": (24, 26), "vp8x_flags": (20, 20), "png_bits": (24, 24),
}  # fmt: skip
_WEIGHTS = np.zeros([len(_FIELDS), 32], np.int64)
for _row, (_first, _last) in enumerate(_FIELDS.values()):
    _step = 1 if _last >= _first else -1
    for _place, _byte in enumerate(range(_first, _last + _step, _step)):
        _WEIGHTS[_row, _byte] = 256**_place
_JPEG = b"\xff\xd8\xff"
_SIGNATURES = {
    "png": b"\x89PNG", "gif": b"GIF8", "bmp": b"BM",
    "vp8": b"RIFF....WEBPVP8 ", "vp8l": b"RIFF....WEBPVP8L", "vp8x": b"RIFF....WEBPVP8X",
}  # fmt: skip
_SIGNATURE_BYTES = np.array([list(text.ljust(16, b".")) for text in _SIGNATURES.values()], np.int64)
_IS_ANY_BYTE = np.equal(_SIGNATURE_BYTES, ord("."))


class Header(NamedTuple):
    """What decides whether and how an image file is decoded.

    Attributes:
      num_pixels: Height times width as the file states them, int64 []; 0 if its format is unknown or an animation of
        WebP.
      is_plain: Whether decoding takes no more than TensorFlow's decoder, bool []; if not, see `details`.
      still: The file, string []; for a GIF, only the part with its first frame.
    """

    num_pixels: tf.Tensor
    is_plain: tf.Tensor
    still: tf.Tensor


def branch(function: Callable[[tf.Tensor], Any]) -> Any:
    """Decorates a function of a file's content, string [], that `either` calls. It is traced only once."""
    return tf.function(function, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def either(condition: tf.Tensor, then: Any, otherwise: Any, encoded: tf.Tensor) -> Any:
    """What one of two branches returns for the content of a file, string [].

    TensorFlow inlines both branches of a `tf.cond` and all that they call, even functions marked as not to be, and
    skips each operation of one of them for every image. Here, the other branch stays a function that is not run.
    """
    if tf.executing_eagerly():
        return (then if condition else otherwise).python_function(encoded)
    then, otherwise = (function.get_concrete_function() for function in (then, otherwise))
    specs = tf.nest.flatten(otherwise.structured_outputs)
    outputs = tf.raw_ops.If(
        cond=condition,
        input=[encoded],
        Tout=[spec.dtype for spec in specs],
        then_branch=then,
        else_branch=otherwise,
        output_shapes=[spec.shape for spec in specs],
    )
    return tf.nest.pack_sequence_as(otherwise.structured_outputs, outputs)


def is_plain_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Whether a file is a JPEG without an EXIF orientation, as most are, bool []."""
    is_jpeg = _is_jpeg(encoded)
    searched = tf.strings.substr(encoded, 0, tf.where(is_jpeg, _SEARCHED_BYTES, 0))
    return is_jpeg & ~tf.strings.regex_full_match(searched, _MAY_HAVE_EXIF)


def _is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return tf.strings.substr(encoded, 0, len(_JPEG)) == _JPEG


def jpeg_pixels(encoded: tf.Tensor) -> tf.Tensor:
    """Height times width of a JPEG, int64 []."""
    return tf.reduce_prod(tf.image.extract_jpeg_shape(encoded, tf.int64)[:2])


def read_header(encoded: tf.Tensor) -> Header:
    """Reads the header of an image file.

    Args:
      encoded: The content of the file, string [].

    Raises:
      tf.errors.InvalidArgumentError: If the header of a JPEG is broken.
    """
    return either(_is_jpeg(encoded), _read_jpeg, _read_other, encoded)


@branch
def _read_other(encoded: tf.Tensor) -> Header:
    """What `read_header` returns for a file that is not a JPEG."""
    head = first_bytes(tf.strings.substr(encoded, 0, PALETTE_END))
    start = head[:32]
    matches = tf.reduce_all((start[:16] == _SIGNATURE_BYTES) | _IS_ANY_BYTE, axis=1)
    is_kind = dict(zip(_SIGNATURES, tf.unstack(matches, num=len(_SIGNATURES)), strict=True))
    field = dict(zip(_FIELDS, tf.unstack(tf.reduce_sum(start * _WEIGHTS, axis=1), num=len(_FIELDS)), strict=True))
    bits = field["vp8l_bits"]

    def signed(value: tf.Tensor) -> tf.Tensor:
        return tf.bitcast(tf.cast(value, tf.uint32), tf.int32)

    pixels = tf.stack(
        [
            field["png_height"] * field["png_width"],
            field["gif_height"] * field["gif_width"],
            tf.cast(tf.abs(signed(field["bmp_height"])), tf.int64) * field["bmp_width"],
            field["vp8_height"] % (1 << 14) * (field["vp8_width"] % (1 << 14)),
            (bits % (1 << 14) + 1) * (bits // (1 << 14) % (1 << 14) + 1),
            (field["vp8x_height"] + 1) * (field["vp8x_width"] + 1),
        ]
    )
    flags = tf.where(is_kind["vp8x"], field["vp8x_flags"], 0)
    pixels = tf.reduce_sum(tf.where(matches & (flags & _ANIMATION_FLAG == 0), pixels, 0))
    still, pixels = tf.cond(is_kind["gif"], lambda: _first_frame(encoded, pixels), lambda: (encoded, pixels))

    is_indexed = is_kind["bmp"] & (field["bmp_bits"] == 8)
    is_transparent = is_kind["vp8l"] & (bits // (1 << 28) % 2 == 1)
    is_deep = is_kind["png"] & (field["png_bits"] == 16)
    # A text may hold eXIf, too. A split by bytes is several times faster than a regular expression.
    may_have_exif = tf.size(tf.raw_ops.StringSplitV2(input=[encoded], sep=b"eXIf", maxsplit=1).values) > 1
    is_plain = ~(is_deep | is_indexed | is_transparent | is_kind["vp8x"] | (is_kind["png"] & may_have_exif))
    return Header(pixels, is_plain, still)


def _first_frame(encoded: tf.Tensor, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts off a GIF file after its first frame, because the decoder unpacks all frames before it returns the first.

    Returns:
      (a GIF file of one frame, or less if it is broken; the larger of `pixels` and the pixels of that frame, which
      states its own size, independent of the file's header).
    """
    size = tf.strings.length(encoded)
    content = tf.pad(tf.ensure_shape(tf.io.decode_raw(encoded, tf.uint8), [None]), [[0, _GIF_PADDING]])

    def at(place: tf.Tensor | int) -> tf.Tensor:
        return tf.cast(content[place], tf.int32)

    def skip_colors(place: tf.Tensor, flags: tf.Tensor) -> tf.Tensor:
        return place + tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)

    def skip_blocks(place: tf.Tensor) -> tf.Tensor:
        """The place after blocks that start with their length. The last block is empty; most have 255 bytes."""

        def step(place: tf.Tensor) -> tuple[tf.Tensor]:
            is_short = tf.concat([content[place:size:256] != 255, [True]], axis=0)
            place += 256 * tf.argmax(is_short, output_type=tf.int32)
            place = tf.minimum(place, size)
            length = at(place)
            return (tf.minimum(place + tf.where(length > 0, length + 1, 0), size),)

        return tf.while_loop(lambda place: at(place) > 0, step, [place])[0] + 1

    place = skip_colors(tf.constant(13), at(10))
    (place,) = tf.while_loop(
        lambda place: (at(place) == 0x21) & (place < size), lambda place: (skip_blocks(place + 2),), [place]
    )
    width, height = (at(place + low) + 256 * at(place + low + 1) for low in (5, 7))
    end = skip_blocks(skip_colors(place + 10, at(place + 9)) + 1)
    frame_pixels = tf.cast(width, tf.int64) * tf.cast(height, tf.int64)
    return tf.strings.substr(encoded, 0, end) + b";", tf.maximum(pixels, frame_pixels)


@branch
def _read_jpeg(encoded: tf.Tensor) -> Header:
    """What `read_header` returns for a JPEG file."""
    return Header(jpeg_pixels(encoded), is_plain_jpeg(encoded), encoded)


def first_bytes(content: tf.Tensor) -> tf.Tensor:
    """The bytes of a string as int64 [n], padded with zeros to at least `PALETTE_END`."""
    head = tf.ensure_shape(tf.io.decode_raw(content, tf.uint8), [None])
    return tf.pad(tf.cast(head, tf.int64), [[0, tf.maximum(PALETTE_END - tf.size(head), 0)]])

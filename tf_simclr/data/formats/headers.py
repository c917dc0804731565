"""Reads the headers of image files: size, palette and camera orientation.

Uses core TensorFlow operations on the encoded bytes, without decoding, so that an exported SavedModel can include them;
only a few, because they run for every image.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

# Twice a 48-megapixel photo; its pixels take 300 MB.
MAX_PIXELS = 100_000_000

_EXIF_BYTES = 1 << 17  # two JPEG segments of the largest size
_EXIF = np.array(list(b"\xff\xe1\0\0Exif\0\0"), np.int64)  # The two zeros after the marker stand for the length.
_ORIENTATION_TAG = 0x0112
_MAX_SEGMENTS = 3  # The EXIF segment is the first, or follows that of JFIF or Adobe.
_IS_LENGTH = np.arange(10) // 2 == 1
_GIF_PADDING = 2048  # more than two palettes, so that reads stay in bounds when a truncated file announces them
_PALETTE_END = 14 + 124 + 4 * 256  # of a BMP file with the longest header

# Integers at fixed places of the first 32 bytes: first byte, last byte (below the first: big-endian).
_FIELDS = {
    "png_height": (23, 20), "png_width": (19, 16), "gif_height": (8, 9), "gif_width": (6, 7),
    "bmp_height": (22, 25), "bmp_width": (18, 21), "bmp_header": (14, 17), "bmp_bits": (28, 29),
    "vp8_height": (28, 29), "vp8_width": (26, 27), "vp8l_bits": (21, 24),
    "vp8x_height": (27, 29), "vp8x_width": (24, 26),
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


def rare_branch(*arguments: tf.TensorSpec) -> Callable[..., Any]:
    """Decorates a function that a `tf.cond` seldom calls: it stays one operation, which costs little to skip.

    Otherwise TensorFlow inlines all its operations and skips each of them for every image.

    Args:
      *arguments: The function's arguments. It is traced only once.
    """
    return tf.function(input_signature=arguments, autograph=False, experimental_attributes={"_noinline": True})


def read_header(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Reads the header of an image file.

    Args:
      encoded: The content of the file, string [].

    Returns:
      num_pixels: Height times width as the header states them, int64 []; 0 if the format is unknown.
      orientation: The EXIF orientation of a JPEG, int32 [] from 1 to 8; 1, upright, if it has none.
      palette: The colours of a BMP file with eight bits per pixel, uint8 [256, 3]; [0, 3] for every other file.
      still: The file; for a GIF, only the part with its first frame.

    Raises:
      tf.errors.InvalidArgumentError: If the header of a JPEG is broken.
    """
    is_jpeg = tf.strings.substr(encoded, 0, len(_JPEG)) == _JPEG  # Most files are JPEGs, so they get the short path.
    no_palette = tf.zeros([0, 3], tf.uint8)
    return tf.cond(is_jpeg, lambda: (*_read_jpeg(encoded), no_palette, encoded), lambda: _read_other(encoded))


@rare_branch(tf.TensorSpec([], tf.string))
def _read_other(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """What `read_header` returns for a file that is not a JPEG."""
    head = _bytes(encoded, _PALETTE_END)
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
    pixels = tf.reduce_sum(tf.where(matches, pixels, 0))
    still, pixels = tf.cond(is_kind["gif"], lambda: _first_frame(encoded, pixels), lambda: (encoded, pixels))

    def read_palette() -> tf.Tensor:
        colors = tf.reshape(head[14 + field["bmp_header"] :][: 4 * 256], [256, 4])
        return tf.cast(colors[:, 2::-1], tf.uint8)

    is_indexed = is_kind["bmp"] & (field["bmp_bits"] == 8) & (field["bmp_header"] <= 124)
    palette = tf.cond(is_indexed, read_palette, lambda: tf.zeros([0, 3], tf.uint8))
    return pixels, tf.constant(1), palette, still


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


def _read_jpeg(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(number of pixels int64, orientation int32) of a JPEG file."""
    pixels = tf.reduce_prod(tf.image.extract_jpeg_shape(encoded, tf.int64)[:2])
    may_have_exif = tf.strings.regex_full_match(tf.strings.substr(encoded, 0, _EXIF_BYTES), r"\C*Exif\x00\C*")
    return pixels, tf.cond(may_have_exif, lambda: _orientation_in_jpeg(encoded), lambda: tf.constant(1))


@rare_branch(tf.TensorSpec([], tf.string))
def _orientation_in_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Looks the orientation up in the EXIF segment, if it is among the first segments; else 1."""
    head = _bytes(encoded, _EXIF_BYTES)
    at, is_open, place = tf.constant(2, tf.int64), tf.constant(True), tf.constant(0, tf.int64)
    for _ in range(_MAX_SEGMENTS):  # Unrolled: a loop in the graph takes longer than decoding a small image.
        window = head[at : at + 10]
        is_exif = tf.reduce_all((window == _EXIF) | _IS_LENGTH)
        place = tf.where(is_open & is_exif, at + 10, place)
        is_open &= (window[0] == 0xFF) & (window[1] // 16 == 0xE)
        at = tf.minimum(at + 2 + 256 * window[2] + window[3], tf.size(head, tf.int64) - 10)
    return tf.cond(place > 0, lambda: _orientation_in_tiff(head[place:]), lambda: tf.constant(1))


def _orientation_in_tiff(tiff: tf.Tensor) -> tf.Tensor:
    """Looks the orientation up in the first directory of a TIFF structure, int64 [n]; 1 if it has none."""
    tiff = tf.pad(tiff, [[0, 16]])
    is_big_endian = tiff[0] == ord("M")

    def read_words(at: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
        pairs = tiff[at : at + 2 * count]
        pairs = tf.reshape(pairs[: tf.size(pairs) // 2 * 2], [-1, 2])
        return tf.where(is_big_endian, 256 * pairs[:, 0] + pairs[:, 1], pairs[:, 0] + 256 * pairs[:, 1])

    offset = tf.reduce_sum(read_words(4, 2) * tf.where(is_big_endian, tf.constant([65536, 1], tf.int64), [1, 65536]))
    directory = tf.minimum(offset, tf.size(tiff, tf.int64) - 2)
    words = read_words(directory + 2, 6 * read_words(directory, 1)[0])
    entries = tf.reshape(words[: tf.size(words) // 6 * 6], [-1, 6])
    # Of the six words of an entry, the first is its tag and the fifth holds a short value.
    value = tf.reduce_max(
        tf.concat([tf.constant([1], tf.int64), tf.where(entries[:, 0] == _ORIENTATION_TAG, entries[:, 4], 1)], axis=0)
    )
    return tf.cast(tf.where(value <= 8, value, 1), tf.int32)


def _bytes(encoded: tf.Tensor, count: int) -> tf.Tensor:
    """The first `count` bytes of a file as int64 [n], padded with zeros to at least `_PALETTE_END`."""
    head = tf.ensure_shape(tf.io.decode_raw(tf.strings.substr(encoded, 0, count), tf.uint8), [None])
    return tf.pad(tf.cast(head, tf.int64), [[0, tf.maximum(_PALETTE_END - tf.size(head), 0)]])

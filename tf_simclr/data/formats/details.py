"""Reads what TensorFlow's decoder does not heed: orientation, significant bits, and palettes of BMP files.

Uses core TensorFlow operations on the encoded bytes, so that an exported SavedModel can include them.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_simclr.data.formats.headers import PALETTE_END, first_bytes

_BLOCK_BYTES = 16  # of the start of a block, to know it by
_TIFF_BYTES = 1 << 16  # as many as a JPEG file has room for
_ORIENTATION_TAG = 0x0112
_EXIF_SEGMENT = np.array(list(b"\xff\xe1..Exif\0\0"), np.int32)  # The dots stand for the length.
_IS_LENGTH = np.arange(10) // 2 == 1
_START_OF_SCAN, _END_OF_IMAGE, _FILL = 0xDA, 0xD9, 0xFF


class Details(NamedTuple):
    """What TensorFlow's decoder does not heed.

    Attributes:
      orientation: The EXIF orientation, int32 [] from 1 to 8; 1, upright, if the file has none.
      bits: The significant bits of a value that a 16-bit PNG file states, int32 []; 16 for every other file.
      has_own_channels: Whether the decoder only yields as many channels as the file has, bool []: WebP.
      palette: The colours of a BMP file with eight bits per pixel, uint8 [256, 3]; [0, 3] for every other file.
    """

    orientation: tf.Tensor
    bits: tf.Tensor
    has_own_channels: tf.Tensor
    palette: tf.Tensor


def read(still: tf.Tensor) -> Details:
    """Reads what a decoder has to heed besides the pixels, from a file that `headers.read_header` returned."""
    start = _start_of_block(still, tf.constant(0))
    is_png, is_webp, is_bmp = (_is(start, text) for text in (b"\x89PNG", b"RIFF", b"BM"))
    place = tf.case(
        [
            (is_png, lambda: _find(still, 8, _look_for_png_chunk(b"eXIf"))),
            (is_webp, lambda: _find(still, 12, _look_for_webp_exif)),
            (is_bmp, lambda: tf.constant(0)),
        ],
        default=lambda: _find(still, 2, _look_for_jpeg_exif),
    )
    return Details(
        _orientation_at(still, place),
        tf.cond(is_png, lambda: _significant_bits(still), lambda: tf.constant(16)),
        is_webp,
        tf.cond(is_bmp, lambda: _palette(still), lambda: tf.zeros([0, 3], tf.uint8)),
    )


def _look_for_jpeg_exif(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Looks at a segment of a JPEG file, for `_find`; EXIF data come before the pixels."""
    is_exif = tf.reduce_all((start[:10] == _EXIF_SEGMENT) | _IS_LENGTH)
    is_last = (start[0] != 0xFF) | (start[1] == _START_OF_SCAN) | (start[1] == _END_OF_IMAGE)
    length = tf.where(start[1] == _FILL, 1, 2 + 256 * start[2] + start[3])
    return tf.where(is_last, 0, length), tf.where(is_exif, 10, 0)


def _look_for_webp_exif(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Looks at a chunk of a WebP file, for `_find`."""
    length = tf.reduce_sum(start[4:8] * [1, 1 << 8, 1 << 16, 1 << 24])
    place = tf.where(_is(start[8:], b"Exif\0\0"), 14, 8)  # Some writers copy the start of a JPEG's segment.
    return 8 + length + length % 2, tf.where(_is(start, b"EXIF"), place, 0)


def _look_for_png_chunk(name: bytes) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Looks at a chunk of a PNG file, for `_find`."""

    def look(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        length = tf.reduce_sum(start[:4] * [1 << 24, 1 << 16, 1 << 8, 1])
        return 12 + length, tf.where(_is(start[4:], name), 8, 0)

    return look


def _significant_bits(encoded: tf.Tensor) -> tf.Tensor:
    """The significant bits of a value that the sBIT chunk of a 16-bit PNG file states, int32 []; 16 if it has none."""
    place = _find(encoded, 8, _look_for_png_chunk(b"sBIT"))
    bits = _start_of_block(encoded, place)[0]
    is_deep = _start_of_block(encoded, tf.constant(24))[0] == 16
    return tf.where(is_deep & (place > 0) & (bits >= 8) & (bits < 16), bits, 16)


def _palette(encoded: tf.Tensor) -> tf.Tensor:
    """The palette of a BMP file with eight bits per pixel, uint8 [256, 3]; [0, 3] behind an overlong header."""
    head = first_bytes(tf.strings.substr(encoded, 0, PALETTE_END))
    header_size = tf.reduce_sum(head[14:18] * [1, 1 << 8, 1 << 16, 1 << 24])
    colors = head[14 + tf.minimum(header_size, 124) :][: 4 * 256]
    colors = tf.cast(tf.reshape(colors, [256, 4])[:, 2::-1], tf.uint8)
    return tf.cond(header_size <= 124, lambda: colors, lambda: colors[:0])


def _find(encoded: tf.Tensor, first: int, look: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]) -> tf.Tensor:
    """Looks through the blocks of a file, one by one.

    Args:
      encoded: The content of the file, string [].
      first: The place of the first block.
      look: Maps the first bytes of a block, int32 [_BLOCK_BYTES], to two int32 []: the length of the block, or 0 if it
        is the last one to look at; and the place in the block of what is looked for, or 0 if it is not in there.

    Returns:
      The place in the file of what is looked for, int32 []; 0 if there is none.
    """
    size = tf.strings.length(encoded)

    def step(at: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        length, place = look(_start_of_block(encoded, at))
        is_inside = (length > 0) & (length < size - at)  # A damaged length may be negative.
        return tf.where(is_inside, at + length, size), tf.where((place > 0) & (at + place < size), at + place, 0)

    return tf.while_loop(lambda at, place: (place == 0) & (at < size), step, [first, 0])[1]


def _start_of_block(encoded: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """The bytes from a place in a file on, int32 [_BLOCK_BYTES]; zeros behind its end."""
    content = tf.strings.substr(encoded, tf.minimum(at, tf.strings.length(encoded)), _BLOCK_BYTES)
    return tf.cast(tf.io.decode_raw(content, tf.uint8, fixed_length=_BLOCK_BYTES), tf.int32)


def _is(content: tf.Tensor, text: bytes) -> tf.Tensor:
    return tf.reduce_all(content[: len(text)] == list(text))


def _orientation_at(encoded: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Looks the orientation up in the TIFF structure at a place in a file; 1 if the place is 0."""
    return tf.cond(
        place > 0,
        lambda: _orientation_in_tiff(first_bytes(tf.strings.substr(encoded, place, _TIFF_BYTES))),
        lambda: tf.constant(1),
    )


def _orientation_in_tiff(tiff: tf.Tensor) -> tf.Tensor:
    """Looks the orientation up in the first directory of a TIFF structure, int64 [n]; 1 if it has none."""
    tiff = tf.pad(tiff, [[0, 16]])
    is_big_endian = tiff[0] == ord("M")
    is_tiff = is_big_endian | (tiff[0] == ord("I"))

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
    return tf.cast(tf.where(is_tiff & (value <= 8), value, 1), tf.int32)

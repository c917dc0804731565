"""Reads the headers of image files: size, palette, significant bits and camera orientation.

Uses core TensorFlow operations on the encoded bytes, without decoding, so that an exported SavedModel can include them;
only a few, because they run for every image.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

# Twice a 48-megapixel photo; its pixels take 300 MB.
MAX_PIXELS = 100_000_000

_BLOCK_BYTES = 16  # of the start of a block, to know it by
_TIFF_BYTES = 1 << 16  # as many as a JPEG file has room for
_ORIENTATION_TAG = 0x0112
_SEARCHED_BYTES = 1 << 17  # two JPEG segments of the largest size
# EXIF data, or the first of several segments of a colour profile, behind which they may be.
_MAY_HAVE_EXIF = r"\C*(?:Exif\x00|ICC_PROFILE\x00\x01[\x02-\x7f])\C*"
_EXIF_SEGMENT = np.array(list(b"\xff\xe1..Exif\0\0"), np.int32)  # The dots stand for the length.
_IS_LENGTH = np.arange(10) // 2 == 1
_START_OF_SCAN, _END_OF_IMAGE, _FILL = 0xDA, 0xD9, 0xFF
_ANIMATION_FLAG = 0x02  # of a WebP file
_GIF_PADDING = 2048  # more than two palettes, so that reads stay in bounds when a truncated file announces them
_PALETTE_END = 14 + 124 + 4 * 256  # of a BMP file with the longest header

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
      is_plain: Whether decoding takes no more than TensorFlow's decoder, bool []; if not, see `read_details`.
      still: The file, string []; for a GIF, only the part with its first frame.
    """

    num_pixels: tf.Tensor
    is_plain: tf.Tensor
    still: tf.Tensor


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


def branch(function: Callable[[tf.Tensor], Any]) -> Any:
    """Decorates a function of a file's content, string [], that `either` calls. It is traced only once."""
    return tf.function(function, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def either(condition: tf.Tensor, then: Any, otherwise: Any, encoded: tf.Tensor) -> Any:
    """What one of two branches returns for the content of a file, string [].

    TensorFlow inlines both branches of a `tf.cond`, and all that they call, and skips each operation of one of them for
    every image, which takes longer than to decode a small one. Here, the other branch costs nothing.
    """
    if tf.executing_eagerly():
        return then(encoded) if condition else otherwise(encoded)
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
    head = _bytes(tf.strings.substr(encoded, 0, _PALETTE_END))
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


def read_details(still: tf.Tensor) -> Details:
    """Reads what a decoder has to heed besides the pixels, from a file that `read_header` returned."""
    start = _start_of_block(still, tf.constant(0))
    is_png, is_webp, is_bmp = (_is(start, _SIGNATURES[kind][:2]) for kind in ("png", "vp8", "bmp"))
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
    head = _bytes(tf.strings.substr(encoded, 0, _PALETTE_END))
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
    content = tf.strings.substr(encoded, at, _BLOCK_BYTES)
    return tf.cast(tf.io.decode_raw(content, tf.uint8, fixed_length=_BLOCK_BYTES), tf.int32)


def _is(content: tf.Tensor, text: bytes) -> tf.Tensor:
    return tf.reduce_all(content[: len(text)] == list(text))


def _orientation_at(encoded: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Looks the orientation up in the TIFF structure at a place in a file; 1 if the place is 0."""
    return tf.cond(
        place > 0,
        lambda: _orientation_in_tiff(_bytes(tf.strings.substr(encoded, place, _TIFF_BYTES))),
        lambda: tf.constant(1),
    )


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


def _bytes(content: tf.Tensor) -> tf.Tensor:
    """The bytes of a string as int64 [n], padded with zeros to at least `_PALETTE_END`."""
    head = tf.ensure_shape(tf.io.decode_raw(content, tf.uint8), [None])
    return tf.pad(tf.cast(head, tf.int64), [[0, tf.maximum(_PALETTE_END - tf.size(head), 0)]])

"""Finds 16-bit PNG files whose values take so few bits that their upper eight are nearly black."""

from collections.abc import Iterable

import tensorflow as tf

from tf_simclr.data.formats import details, headers

# Values up to this many bits are at most a quarter of the full range.
_MAX_DARK_BITS = 14


def describe_dark(contents: Iterable[bytes]) -> str | None:
    """Says that images are nearly black, and how to scale them; None if they are not.

    Args:
      contents: Image files of any format; the broken ones do not count.
    """
    largest = [value for content in contents if (value := _largest_value(content)) is not None]
    bits = max(largest, default=0).bit_length()
    if not 0 < bits <= _MAX_DARK_BITS:
        return None
    return (
        f"The 16-bit PNG images look nearly black, because their values only reach {max(largest):,} of 65,535 "
        f"({bits} bits): multiply the values by {2 ** (16 - bits)} and save the images again"
    )


def _largest_value(content: bytes) -> int | None:
    """The largest value of a PNG file of 16 bits per value that states no fewer significant bits, else None."""
    if not content.startswith(b"\x89PNG") or content[24:25] != b"\x10":
        return None
    header = headers.read_header(content)
    if header.num_pixels > headers.MAX_PIXELS or details.read(tf.constant(content)).bits < 16:
        return None
    try:
        return int(tf.reduce_max(tf.io.decode_png(content, channels=3, dtype=tf.uint16)))
    except tf.errors.OpError:
        return None

"""Small pictures of images, all in one file."""

import math
import os

import numpy as np
import tensorflow as tf

from tf_simclr import files
from tf_simclr.augment import center
from tf_simclr.data import sources

SIZE_PX = 48
_QUALITY = 85
# What stands for an image that cannot be read any more.
_GREY = 128


def columns_of(count: int) -> int:
    """How many thumbnails stand in a row: the sheet is a square, which TensorBoard's projector asks for."""
    return math.ceil(math.sqrt(count))


def write(source: sources.Source, positions: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Writes the central squares of some images to a JPEG file, row by row.

    Args:
      source: The images.
      positions: Which of them, as `Source.eval_examples` counts, int64 [N] and increasing.
      path: The file, written as `files.replacing` does.
    """
    columns = columns_of(len(positions))
    sheet = np.full([columns * SIZE_PX, columns * SIZE_PX, 3], _GREY, np.uint8)
    for position, thumbnail in _read(source, positions).as_numpy_iterator():
        row, column = divmod(int(np.searchsorted(positions, position)), columns)
        top, left = row * SIZE_PX, column * SIZE_PX
        sheet[top : top + SIZE_PX, left : left + SIZE_PX] = thumbnail
    with files.replacing(path) as beside:
        beside.write_bytes(tf.io.encode_jpeg(sheet, quality=_QUALITY).numpy())


def _read(source: sources.Source, positions: np.ndarray) -> tf.data.Dataset:
    """Dataset of (position, thumbnail uint8 [S, S, 3]) of those images that can be read."""

    def shrink(position: tf.Tensor, key: tf.Tensor, image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        square = center.central_crop(image, 1.0)
        small = tf.image.resize(square, [SIZE_PX, SIZE_PX], antialias=True)
        return position, tf.saturate_cast(tf.round(small), tf.uint8)

    with tf.device("CPU:0"):
        numbers, examples = tf.constant(positions), source.subset(positions).eval_examples()
        examples = examples.map(lambda row, *example: (tf.gather(numbers, row), *example))
        return examples.map(shrink, num_parallel_calls=tf.data.AUTOTUNE)

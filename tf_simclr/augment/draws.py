"""Uniform random numbers for every image of a batch, determined by the image's own key.

The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), as in
`tf.random`. It maps a counter to a block of four random words, so any image's numbers can be drawn without those of the
others, on any device, in any part of a batch. TensorFlow's own operation draws for one key at a time.

The counter of a block is (block | view << 8 | stream << 16, epoch, example's lower word, example's upper word). Every
operator has its own stream, so its numbers depend neither on the other operators nor on the number of views.
"""

import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

MAX_VIEWS = 2**8
# Small views are numbered from here, so that their numbers do not depend on how many large ones there are.
FIRST_SMALL_VIEW = MAX_VIEWS // 2
MAX_STREAMS = 2**16
MAX_DRAWS = 4 * 2**8

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_NUM_ROUNDS = 10


def example_keys(epoch: tf.Tensor | int, first_example: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
    """Keys of consecutive examples: int64 `[count, 2]`, (epoch, first_example), (epoch, first_example + 1), ..."""
    examples = tf.cast(first_example, tf.int64) + tf.range(tf.cast(count, tf.int64))
    return tf.stack((tf.fill(tf.shape(examples), tf.cast(epoch, tf.int64)), examples), axis=1)


def content_keys(images: tf.Tensor) -> tf.Tensor:
    """Keys that follow from the pixels alone, wherever an image lies in whatever batch: int64 `[n, 2]`.

    Different images with equal keys would share random numbers, no more.

    Args:
      images: uint8, or float in [0, 1], `[n, ...]`; floats count as the nearest bytes.
    """
    pixels = tf.image.convert_image_dtype(images, tf.uint8, saturate=True)
    pixels = tf.cast(tf.reshape(pixels, (tf.shape(images)[0], math.prod(images.shape[1:]))), tf.int64)
    examples = tf.reduce_sum(pixels * tf.range(1, pixels.shape[1] + 1, dtype=tf.int64), axis=1)
    return tf.stack((tf.zeros_like(examples), examples), axis=1)


def uniform(seed: int, keys: tf.Tensor, views: Sequence[int], counts: Mapping[int, int]) -> dict[int, tf.Tensor]:
    """Draws float32 numbers, uniform in [0, 1): the same on every device, with and without XLA.

    Args:
      seed: Any integer; only its lower 64 bits are used.
      keys: integer `[n, 2]`, (epoch, example) of every image. Only the lower 32 bits of the epoch are used.
      views: Numbers of the V views to draw for.
      counts: Numbers to draw for every image and view, by stream.

    Returns:
      float32 `[V n, count]` by stream, view after view. A row follows from the seed and its key, view and stream alone;
      a longer row starts with the shorter one.

    Raises:
      ValueError: If a view, a stream or a count is out of the counter's range.
    """
    check_ranges(views, counts)
    if not counts:
        return {}
    num_blocks = {stream: -(-count // 4) for stream, count in counts.items()}
    words = [
        [[block | view << 8 | stream << 16 for stream, number in num_blocks.items() for block in range(number)]]
        for view in views
    ]
    epochs, examples = tf.split(tf.cast(keys, tf.int64), 2, axis=1)
    # All numbers at once: each step of the generator is one operation, whose overhead is paid once.
    bits = philox((tf.constant(words, tf.uint32), _words(epochs)[0], *_words(examples)), seed)
    bits = tf.reshape(tf.stack(bits, axis=3), (-1, 4 * sum(num_blocks.values())))
    rows = tf.split(to_uniform(bits), [4 * number for number in num_blocks.values()], axis=1)
    return {stream: row[:, :count] for (stream, count), row in zip(counts.items(), rows, strict=True)}


def to_uniform(bits: tf.Tensor) -> tf.Tensor:
    """Numbers in [0, 1), float32 in steps of 2^-23, from random bits, uint32 of any shape."""
    bits = tf.cast(tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32)), tf.int32)
    return tf.cast(bits, tf.float32) * 2.0**-23


def check_ranges(views: Sequence[int], counts: Mapping[int, int]) -> None:
    """Raises ValueError unless the counter has room for these views, and these numbers of draws by stream."""
    for view in views:
        if not 0 <= view < MAX_VIEWS:
            raise ValueError(f"An image has at most {MAX_VIEWS} views, numbered from 0. Received: view {view}")
    for stream, count in counts.items():
        if not 0 <= stream < MAX_STREAMS:
            raise ValueError(f"`stream` must be between 0 and {MAX_STREAMS - 1}. Received: {stream}")
        if not 0 < count <= MAX_DRAWS:
            raise ValueError(
                f"An operator draws between 1 and {MAX_DRAWS} numbers for each image. "
                f"Received: {count} in stream {stream}"
            )


def philox(counter: tuple[tf.Tensor, ...], seed: int) -> tuple[tf.Tensor, ...]:
    """Four uint32 tensors of random bits for four uint32 tensors of counters, whose shapes are broadcast."""
    first, second, third, fourth = counter
    for number in range(_NUM_ROUNDS):
        low, high = (
            tf.constant(((seed >> shift) + number * step) % 2**32, tf.uint32)
            for shift, step in zip((0, 32), _KEY_STEPS, strict=True)
        )
        low_1, high_1 = _words(tf.cast(first, tf.int64), _MULTIPLIERS[0])
        low_2, high_2 = _words(tf.cast(third, tf.int64), _MULTIPLIERS[1])
        first, second, third, fourth = high_2 ^ second ^ low, low_2, high_1 ^ fourth ^ high, low_1
    return first, second, third, fourth


def _words(numbers: tf.Tensor, factor: int = 1) -> tuple[tf.Tensor, tf.Tensor]:
    """The lower and the upper 32 bits of int64 numbers times a factor, as uint32."""
    product = tf.bitcast(numbers, tf.uint64) * tf.constant(factor, tf.uint64)
    upper = tf.bitwise.right_shift(product, tf.constant(32, tf.uint64))
    return tf.cast(product, tf.uint32), tf.cast(upper, tf.uint32)

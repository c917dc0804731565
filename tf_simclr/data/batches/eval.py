"""Makes evaluation batches from a source."""

import tensorflow as tf

from tf_simclr.augment import center
from tf_simclr.data.batches.elements import finish
from tf_simclr.data.sources import Source

# Images that are handed over whole may be large.
_MAX_WHOLE = 16


def eval_dataset(
    source: Source, *, image_size: int | None, batch_size: int, start: int = 0, stop: int | None = None
) -> tf.data.Dataset:
    """Reads a source once, in order, and preprocesses it with `center.preprocess_for_eval`.

    Args:
      source: N examples. Broken files are left out and named in the log once.
      image_size: Side S of the images in pixels; None hands over the images as they are, as PNG files.
      batch_size: Examples in a batch, or fewer where images as they are may be large; the last batch has the remaining
        ones.
      start: The position in the source to start from.
      stop: The position to stop before; by default the end.

    Returns:
      Dataset of (positions int64 [b], keys string [b], images float32 [b, S, S, 3] in [0, 1] or PNG files string [b],
      labels int64 [b], -1 where there is none), as in `Source.eval_examples`.
    """

    def preprocess(
        positions: tf.Tensor, keys: tf.Tensor, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        if image_size is None:  # Without compression, which would take longer than most encoders.
            return positions, keys, tf.io.encode_png(images, compression=0), labels
        return positions, keys, center.preprocess_for_eval(images, image_size), labels

    with tf.device("CPU:0"):
        examples = source.eval_examples(start)
        if stop is not None:
            examples = examples.take_while(lambda position, *_: position < stop)
        if source.has_one_size:
            return finish(examples.batch(batch_size).map(preprocess, num_parallel_calls=tf.data.AUTOTUNE))
        if image_size is None:
            batch_size = min(batch_size, _MAX_WHOLE)
        return finish(examples.map(preprocess, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size))

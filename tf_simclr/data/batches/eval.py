"""Makes evaluation batches from a source."""

import tensorflow as tf

from tf_simclr.augment import center
from tf_simclr.data.batches.elements import finish
from tf_simclr.data.sources import Source


def eval_dataset(
    source: Source, *, image_size: int, batch_size: int, start: int = 0, stop: int | None = None
) -> tf.data.Dataset:
    """Reads a source once, in order, and preprocesses it with `center.preprocess_for_eval`.

    Args:
      source: N examples. Broken files are left out and named in the log once.
      image_size: Side S of the images in pixels.
      batch_size: Examples in a batch; the last batch has the remaining ones.
      start: The position in the source to start from.
      stop: The position to stop before; by default the end.

    Returns:
      Dataset of (positions int64 [b], keys string [b], images float32 [b, S, S, 3] in [0, 1], labels int64 [b], -1
      where there is none), as in `Source.eval_examples`.
    """

    def preprocess(
        positions: tf.Tensor, keys: tf.Tensor, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        return positions, keys, center.preprocess_for_eval(images, image_size), labels

    with tf.device("CPU:0"):
        examples = source.eval_examples(start)
        if stop is not None:
            examples = examples.take_while(lambda position, *_: position < stop)
        if source.has_one_size:
            return finish(examples.batch(batch_size).map(preprocess, num_parallel_calls=tf.data.AUTOTUNE))
        return finish(examples.map(preprocess, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size))

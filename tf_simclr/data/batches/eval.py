"""Makes evaluation batches from a source."""

from typing import Any

import tensorflow as tf

from tf_simclr.augment import center
from tf_simclr.data.batches.elements import as_element, finish
from tf_simclr.data.sources import Source


def eval_dataset(source: Source, *, image_size: int, batch_size: int) -> tf.data.Dataset:
    """Reads a source once, in order, and preprocesses it with `center.preprocess_for_eval`.

    Args:
      source: N examples. Broken files are left out and named in the log once.
      image_size: Side S of the images in pixels.
      batch_size: Examples in a batch; the last batch has the remaining ones.

    Returns:
      Dataset of (images float32 [b, S, S, 3] in [0, 1], labels int64 [b]), or images alone without labels.
    """

    def preprocess(images: tf.Tensor, *labels: tf.Tensor) -> Any:
        return as_element(center.preprocess_for_eval(images, image_size), *labels)

    with tf.device("CPU:0"):
        examples = source.eval_examples()
        if source.has_one_size:
            return finish(examples.batch(batch_size).map(preprocess, num_parallel_calls=tf.data.AUTOTUNE))
        return finish(examples.map(preprocess, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size))

"""What training and evaluation batches have in common."""

from typing import Any

import tensorflow as tf


def as_element(images: Any, *labels: tf.Tensor) -> Any:
    """(images, labels), or images alone if there are no labels."""
    return (images, *labels) if labels else images


def finish(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Keeps the order of the batches, lets every worker read all of them, and prefetches."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)

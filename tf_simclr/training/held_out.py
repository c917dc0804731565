"""The images that a run's health is measured on: the same ones, and the same views of them, every time."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_simclr.augment import Augmentation
from tf_simclr.augment.center import preprocess_for_eval
from tf_simclr.data import sources
from tf_simclr.data.batches.views import crop_views

# Images that are compared by their views; kNN takes twice as many.
NUM_VIEWED = 256

# Training has the epochs from 0 on, so these views are none of its own.
_EPOCH = -1

_AT_ONCE = 64


class HeldOut(NamedTuple):
    """A fixed sample of images.

    Attributes:
      views: V views of n images, uint8 [V, n, S, S, 3].
      images: The same images and others, without augmentation, as the encoder takes them: uint8 [m, S, S, 3].
      labels: Those of the images, int64 [m], -1 where there is none; None if an image may have several.
    """

    views: np.ndarray
    images: np.ndarray
    labels: np.ndarray | None


def draw(source: sources.Source, augmentation: Augmentation, image_size: int, num_viewed: int = NUM_VIEWED) -> HeldOut:
    """Reads a sample of a source: images spread over it, or its first ones if their order is random.

    Args:
      source: The images.
      augmentation: Makes the views, which follow from its seed and the place of an image in the sample.
      image_size: Height and width in pixels of the images that the encoder is for.
      num_viewed: Images to make views of; there are as many others.
    """
    count = min(2 * num_viewed, source.num_examples)
    if not source.is_shuffled:
        source = source.subset(np.linspace(0, source.num_examples - 1, count).astype(int))
    views, plain, labels = [], [], []
    for batch in _read(source, augmentation, image_size, count):
        made = augmentation(batch[0][::2], batch[1][::2])
        views.append(_to_bytes(made).reshape(augmentation.num_views, -1, *made.shape[1:]))
        plain.append(_to_bytes(batch[2]))
        labels.append(batch[3].numpy())
    all_labels = np.concatenate(labels)
    return HeldOut(np.concatenate(views, axis=1), np.concatenate(plain), all_labels if all_labels.ndim == 1 else None)


def _read(source: sources.Source, augmentation: Augmentation, image_size: int, count: int) -> tf.data.Dataset:
    """Batches of images as training takes them, keys, images as an evaluation takes them, and labels."""

    def prepare(position: tf.Tensor, _: tf.Tensor, image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, ...]:
        key = tf.stack([tf.constant(_EPOCH, tf.int64), tf.cast(position, tf.int64)])
        plain = preprocess_for_eval(image, image_size)
        if not source.has_one_size:
            image = crop_views(image, key, augmentation)
        return image, key, plain, label

    with tf.device("CPU:0"):
        examples = source.eval_examples().take(count)
        return examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(_AT_ONCE)


def _to_bytes(images: tf.Tensor) -> np.ndarray:
    """Images in [0, 1] as uint8, of the same shape."""
    return tf.image.convert_image_dtype(images, tf.uint8, saturate=True).numpy()

"""Crops the views out of single images, on the host."""

import tensorflow as tf

from tf_simclr.augment import Augmentation
from tf_simclr.data.formats import decode


def crop_views(image: tf.Tensor, key: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """The views of an image, cropped and resized, for an `Augmentation` that does the rest on the device.

    Args:
      image: uint8 [H, W, 3].
      key: int64 [2], (epoch, example).
      augmentation: Draws the crops, V of S x S pixels.

    Returns:
      uint8 [V, S, S, 3].
    """
    boxes = augmentation.crop_boxes(key[tf.newaxis], tf.shape(image)[0], tf.shape(image)[1])
    boxes = tf.unstack(boxes, num=augmentation.num_views)
    return tf.stack([decode.crop_and_resize(image, box, augmentation.image_size) for box in boxes])

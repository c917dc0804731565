"""Images for evaluation and serving: their centre, at the encoder's size, without randomness.

Everything here takes dynamic shapes and keeps no Python state, so an exported SavedModel can include it.
"""

import tensorflow as tf

CROP_PROPORTION = 0.875
# Images up to this size in pixels have no margin to cut off.
MAX_UNCROPPED_SIZE = 32


def central_crop(images: tf.Tensor, proportion: float = CROP_PROPORTION) -> tf.Tensor:
    """Cuts out the central square whose side is `proportion` of the shorter side.

    The side is rounded half to even and an odd margin leaves the extra row or column at the top and left, as
    in the reference (`tf2/data_util.py`, `center_crop` with a square target).

    Args:
      images: [..., H, W, C] of any dtype.
      proportion: Side of the square as a fraction of the shorter side, in (0, 1].

    Returns:
      [..., side, side, C], same dtype.
    """
    height, width = tf.unstack(tf.shape(images)[-3:-1])
    shorter_side = tf.cast(tf.minimum(height, width), tf.float32)
    side = tf.maximum(tf.cast(tf.math.rint(proportion * shorter_side), tf.int32), 1)
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    return images[..., top : top + side, left : left + side, :]


def preprocess_for_eval(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """Turns images into the input of the encoder, without randomness.

    Above 32 px, cuts out the central 87.5 % square; at 32 px and below, keeps the whole image, because small images
    have no margin. Then resizes bicubically (half-pixel centres, no antialiasing), which leaves images that already
    have the right size untouched. Does not normalise by mean or standard deviation.

    Args:
      images: uint8, or float in [0, 1]: one image [H, W, 3] or a batch of one size [B, H, W, 3].
      image_size: Side S of the encoder's input in pixels.

    Returns:
      float32 [S, S, 3] or [B, S, S, 3] in [0, 1].
    """
    if image_size > MAX_UNCROPPED_SIZE:
        images = central_crop(images)  # First, since floats take four times the memory.
    images = tf.image.convert_image_dtype(images, tf.float32)
    images = tf.image.resize(images, [image_size, image_size], tf.image.ResizeMethod.BICUBIC)
    return tf.clip_by_value(images, 0.0, 1.0)  # Bicubic weights overshoot at edges.

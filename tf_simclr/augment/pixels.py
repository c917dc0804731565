"""What counts as pixels: uint8 from 0 to 255, or float from 0 to 1."""

from typing import Any

import numpy as np
import tensorflow as tf

FLOATS = (tf.float16, tf.bfloat16, tf.float32, tf.float64)

# Resizing, and halves of other precision, may miss 0 and 1 by their rounding.
_ROUNDING = 1e-3

OUT_OF_RANGE = (
    "Float images must be in [0, 1]: divide what goes to 255 by 255 or cast it to uint8, turn [-1, 1] into "
    "(x + 1) / 2, clip what a resize overshoots, and leave out NaN"
)


def check_dtype(dtype: tf.DType) -> None:
    """Raises a `ValueError` unless pixels may be of this type."""
    if dtype != tf.uint8 and dtype not in FLOATS:
        raise ValueError(
            "Images must be uint8 from 0 to 255, or float from 0 to 1: cast other integers from 0 to 255 to uint8, and "
            f"divide those of more bits by their largest value. Received: {dtype.name}"
        )


def check_spec(images: tf.Tensor | tf.TensorSpec) -> None:
    """Raises a `ValueError` unless images have the shape [B, H, W, 3] and a dtype of pixels."""
    check_dtype(images.dtype)
    if images.shape.rank != 4 or images.shape[3] not in (3, None) or 0 in images.shape[1:]:
        raise ValueError(
            "Images must have the shape [B, H, W, 3]: put the channels last, repeat a grey one three times, and leave "
            f"out alpha. Received: {images.shape}"
        )


def check_range(images: np.ndarray | tf.Tensor) -> None:
    """Checks that float images are in [0, 1], up to rounding; uint8 images need no look.

    Raises:
      ValueError: If they are not.
      tf.errors.InvalidArgumentError: The same, when a graph runs. XLA leaves the check out.
    """
    if tf.as_dtype(images.dtype) == tf.uint8 or 0 in images.shape:
        return
    in_numpy = isinstance(images, np.ndarray)
    low, high = (np.min(images), np.max(images)) if in_numpy else (tf.reduce_min(images), tf.reduce_max(images))
    if not in_numpy and not tf.executing_eagerly():
        tf.debugging.Assert(are_unit(low, high), [OUT_OF_RANGE, low, high])
    elif not are_unit(low, high):
        raise ValueError(out_of_range(f"{float(low):g}", f"{float(high):g}"))


def are_unit(low: Any, high: Any) -> Any:
    """Whether floats with this smallest and largest value are in [0, 1], up to rounding."""
    # Comparisons with NaN are false. Without images, the smallest is infinite.
    return (low >= -_ROUNDING) & ((high <= 1 + _ROUNDING) | (low > high))


def out_of_range(low: str, high: str) -> str:
    """The sentence about float images with these smallest and largest values."""
    return f"{OUT_OF_RANGE}. Received: values from {low} to {high}"


def to_unit(images: tf.Tensor) -> tf.Tensor:
    """Images [B, H, W, 3] as an encoder takes them: uint8 become float32 in [0, 1], floats stay as they are.

    Raises:
      ValueError: If they are of another type or shape.
    """
    check_spec(images)
    return tf.image.convert_image_dtype(images, tf.float32) if images.dtype == tf.uint8 else images

"""Random crops: draws their boxes, and cuts them out of a batch by matrix products."""

import dataclasses
import math
from typing import ClassVar

import tensorflow as tf

from tf_simclr.augment.operator import check_choice

SAMPLERS = ("tensorflow", "uniform_area")

# The reference's min_object_covered. Its object is the whole image, so this is also a minimum area.
MIN_COVERED_AREA = 0.1

# The reference tries 100 times and then takes the whole image. With its settings 5 % of the tries are rejected, so 16
# tries, made at once, differ from 100 in fewer than one image in 1e20.
_ATTEMPTS = 16

# TensorFlow's bicubic kernel looks its weights up in a table of this many steps per pixel.
_SUBPIXEL_STEPS = 1024.0


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Chooses where the views lie in their images; the first operator of every chain (paper, appendix A).

    Unlike the operators that follow, it is not called: it draws the boxes, and `crop_and_resize` cuts them out on the
    device, or the data pipeline does if the sizes of the images vary.

    `"tensorflow"` draws from the distribution of `tf.image.sample_distorted_bounding_box` with the arguments of the
    reference: the aspect ratio is uniform, the height is uniform over what the area range allows, crops under a tenth
    of the image are rejected, and a crop never touches the last row (column) unless it has full height (width).
    `"uniform_area"` is the sampler of the paper: the area is uniform, the aspect ratio log-uniform, and every position
    equally likely. If no attempt fits, the box is the whole image.

    Attributes:
      sampler: `"tensorflow"` (the reference's) or `"uniform_area"` (the paper's).
      area: Smallest and largest area of a crop, as a fraction of the image's.
      aspect_ratio: Smallest and largest width / height of a crop in pixels.
      stream: Stream of its random numbers, see `Operator`.

    Raises:
      ValueError: If a value is out of its range.
    """

    num_draws: ClassVar[int] = 2 * _ATTEMPTS + 2

    sampler: str = "tensorflow"
    area: tuple[float, float] = (0.08, 1.0)
    aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    stream: int = 0

    def __post_init__(self) -> None:
        # JSON has lists only, and operators are compared and hashed.
        object.__setattr__(self, "area", tuple(self.area))
        object.__setattr__(self, "aspect_ratio", tuple(self.aspect_ratio))
        check_choice("RandomCrop.sampler", self.sampler, SAMPLERS)
        low, high = self.area
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"`RandomCrop.area` must be two fractions, 0 < smallest <= largest <= 1. Received: {self.area!r}"
            )
        if self.sampler == "tensorflow" and high < MIN_COVERED_AREA:
            raise ValueError(
                f"`RandomCrop.area` must reach {MIN_COVERED_AREA}, because sampler='tensorflow' takes no smaller "
                f"crops; 'uniform_area' does. Received: {self.area!r}"
            )
        low, high = self.aspect_ratio
        if not 0 < low <= high:
            raise ValueError(
                "`RandomCrop.aspect_ratio` must be two ratios, 0 < smallest <= largest. "
                f"Received: {self.aspect_ratio!r}"
            )

    def boxes(self, draws: tf.Tensor, heights: tf.Tensor, widths: tf.Tensor) -> tf.Tensor:
        """Turns uniform random numbers into crop boxes.

        Args:
          draws: float32 `[n, num_draws]`, uniform in [0, 1).
          heights: integer `[n]` or scalar, image heights in pixels.
          widths: integer `[n]` or scalar, image widths in pixels.

        Returns:
          int32 `[n, 4]`: y, x, height, width, inside the image.
        """
        propose = _propose_like_tensorflow if self.sampler == "tensorflow" else _propose_uniform_area
        column = (tf.shape(draws)[0], 1)
        full_height = tf.broadcast_to(tf.reshape(tf.cast(heights, tf.float32), (-1, 1)), column)
        full_width = tf.broadcast_to(tf.reshape(tf.cast(widths, tf.float32), (-1, 1)), column)
        first, second, place_y, place_x = tf.split(draws, (_ATTEMPTS, _ATTEMPTS, 1, 1), axis=1)

        height, width, accepted = propose(first, second, full_height, full_width, self.area, self.aspect_ratio)
        chosen = tf.argmax(tf.cast(accepted, tf.int32), axis=1, output_type=tf.int32)[:, tf.newaxis]
        found = tf.reduce_any(accepted, axis=1, keepdims=True)
        height = tf.where(found, tf.gather(height, chosen, batch_dims=1), full_height)
        width = tf.where(found, tf.gather(width, chosen, batch_dims=1), full_width)

        # TensorFlow's sampler draws one of H - h positions, although there are H - h + 1.
        positions = 0.0 if self.sampler == "tensorflow" else 1.0
        y = tf.floor(place_y * (full_height - height + positions))
        x = tf.floor(place_x * (full_width - width + positions))
        return tf.cast(tf.concat((y, x, height, width), axis=1), tf.int32)


# No crop: an image that is not square is squeezed into the view.
WHOLE_IMAGE = RandomCrop(area=(1.0, 1.0), aspect_ratio=(1.0, 1.0))


def crop_and_resize(images: tf.Tensor, boxes: tf.Tensor, flips: tf.Tensor | None, size: int) -> tf.Tensor:
    """Cuts a box out of every image and resizes it, by two matrix products per image.

    Equals `tf.image.resize(image[y:y+h, x:x+w], (size, size), "bicubic")`, mirrored where `flips` says so.
    Like that call, it may exceed [0, 1] by a few hundredths at sharp edges.

    Args:
      images: float32 `[n, H, W, 3]`.
      boxes: int32 `[n, 4]`: y, x, height, width, inside the image.
      flips: bool `[n]`, whether to mirror left and right; `None` mirrors nothing.
      size: Height and width of the result in pixels.

    Returns:
      float32 `[n, 3, size, size]`, channels first: the layout of the operators that follow.
    """
    count = tf.shape(images)[0]
    height, width = images.shape[1:3]
    y, x, box_height, box_width = tf.unstack(tf.cast(boxes, tf.float32), axis=1)
    rows = _resize_matrices(y, box_height, None, height, size)
    columns = _resize_matrices(x, box_width, flips, width, size)
    images = tf.matmul(rows, tf.reshape(images, (count, height, width * 3)))
    images = tf.transpose(tf.reshape(images, (count, size, width, 3)), (0, 3, 1, 2))
    images = tf.matmul(tf.reshape(images, (count, 3 * size, width)), columns, transpose_b=True)
    return tf.reshape(images, (count, 3, size, size))


def _propose_like_tensorflow(
    aspect_draws: tf.Tensor,
    height_draws: tf.Tensor,
    full_height: tf.Tensor,
    full_width: tf.Tensor,
    area: tuple[float, float],
    aspect_ratio: tuple[float, float],
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One attempt per column, step by step as TensorFlow's sample_distorted_bounding_box_op.cc."""
    full_area = full_height * full_width
    min_area, max_area = area[0] * full_area, area[1] * full_area
    low, high = aspect_ratio
    aspect = low + (high - low) * aspect_draws

    max_height = tf.round(tf.sqrt(max_area / aspect))
    # The largest height whose width fits. The quotient can be one too large by rounding.
    fitting = tf.floor((full_width + 0.5) / aspect)
    fitting -= tf.cast(tf.round(fitting * aspect) > full_width, tf.float32)
    max_height = tf.where(tf.round(max_height * aspect) > full_width, fitting, max_height)
    max_height = tf.minimum(max_height, full_height)
    min_height = tf.minimum(tf.round(tf.sqrt(min_area / aspect)), max_height)
    height = min_height + tf.floor(height_draws * (max_height - min_height + 1.0))

    # Rounding to whole pixels may have left the range of areas: one row more or less may bring it back.
    height += tf.cast(height * tf.round(height * aspect) < min_area, tf.float32)
    height -= tf.cast(height * tf.round(height * aspect) > max_area, tf.float32)
    width = tf.round(height * aspect)
    crop_area = height * width
    accepted = (
        (crop_area >= min_area)
        & (crop_area <= max_area)
        & (crop_area >= MIN_COVERED_AREA * full_area)
        & (height <= full_height)
        & (width <= full_width)
        & (height >= 1.0)
        & (width >= 1.0)
    )
    return height, width, accepted


def _propose_uniform_area(
    area_draws: tf.Tensor,
    aspect_draws: tf.Tensor,
    full_height: tf.Tensor,
    full_width: tf.Tensor,
    area: tuple[float, float],
    aspect_ratio: tuple[float, float],
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One attempt per column: uniform area, log-uniform aspect ratio."""
    low, high = area
    target = (low + (high - low) * area_draws) * full_height * full_width
    low, high = (math.log(bound) for bound in aspect_ratio)
    aspect = tf.exp(low + (high - low) * aspect_draws)
    height, width = tf.round(tf.sqrt(target / aspect)), tf.round(tf.sqrt(target * aspect))
    accepted = (height <= full_height) & (width <= full_width) & (height >= 1.0) & (width >= 1.0)
    return height, width, accepted


def _resize_matrices(
    start: tf.Tensor, length: tf.Tensor, flips: tf.Tensor | None, in_size: int, out_size: int
) -> tf.Tensor:
    """Matrices `[n, out_size, in_size]` that cut `[start, start + length)` out of an axis, resize it, and mirror it.

    Bicubic (Keys, a = -0.5) with half-pixel centres and no antialiasing. As in TensorFlow's kernel, source positions
    are rounded to 1/1024 of a pixel, and samples outside the crop have no weight.
    """
    start, length = start[:, tf.newaxis], length[:, tf.newaxis]
    target = tf.range(out_size, dtype=tf.float32)
    if flips is not None:
        target = tf.where(flips[:, tf.newaxis], (out_size - 1.0) - target, target)
    position = (target + 0.5) * (length / out_size) - 0.5
    position = start + tf.round(position * _SUBPIXEL_STEPS) / _SUBPIXEL_STEPS

    # Twice Keys' kernel. It has knots at distances 1 and 2, hence a sum of two truncated polynomials.
    source = tf.range(in_size, dtype=tf.float32)
    outer = tf.nn.relu(2.0 - tf.abs(position[:, :, tf.newaxis] - source))
    excess = outer - 1.0
    inner = tf.nn.relu(excess)
    weights = outer * outer * excess + inner * inner * (2.0 - 4.0 * inner)
    inside = tf.cast((source >= start) & (source < start + length), tf.float32)
    weights *= inside[:, tf.newaxis, :]
    return weights / tf.reduce_sum(weights, axis=2, keepdims=True)

"""Colour jitter: every image has its own factors, applied in its own order."""

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_simclr.augment.operator import Operator, Planes, check_choice, select

BRIGHTNESS = ("multiplicative", "additive")


@dataclasses.dataclass(frozen=True)
class ColorJitter(Operator):
    """Changes brightness, contrast, saturation and hue in a random order, and clips to [0, 1] after each.

    The four are those of `tf.image`. Their ranges are the paper's (appendix A) for a strength s: factors up to 0.8 s
    away from 1, but not below 0, and a hue shift of up to 0.2 s of the colour circle.

    Saturation and hue commute, since each changes one coordinate of HSV. So all 24 orders come down to two facts: which
    of brightness and contrast is first, and whether saturation and hue come before, between or after the two. (Only
    pixels outside [0, 1] show a difference: if saturation and hue both come first, the overshoot of a bicubic crop is
    clipped after both instead of between them.)

    Attributes:
      strength: s >= 0; 0 changes nothing.
      probability: Share of the images to change. The others stay unchanged.
      brightness: `"multiplicative"`, or `"additive"` as in the reference's first version.
      stream: Stream of its random numbers.

    Raises:
      ValueError: If a value is out of its range.
    """

    num_draws: ClassVar[int] = 9

    strength: float = 1.0
    probability: float = 0.8
    brightness: str = "multiplicative"
    stream: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("ColorJitter.brightness", self.brightness, BRIGHTNESS)
        if not self.strength >= 0:
            raise ValueError(f"`ColorJitter.strength` must not be negative. Received: {self.strength!r}")

    @property
    def is_identity(self) -> bool:
        return super().is_identity or self.strength == 0

    def __call__(self, planes: Planes, draws: tf.Tensor) -> Planes:
        """Applies the operator.

        Args:
          planes: Three times float32 `[n, H, W]`, in [0, 1] apart from the overshoot of a bicubic crop.
          draws: float32 `[n, 9]`, uniform in [0, 1): whether to apply; the factors of brightness, contrast, saturation
            and hue; and one number for each of the four, whose ranks are the order.

        Returns:
          Three times float32 `[n, H, W]`.
        """
        apply, *factors, brightness_key, contrast_key, saturation_key, hue_key = tf.unstack(
            draws[:, :, tf.newaxis, tf.newaxis], num=self.num_draws, axis=1
        )
        brightness_shift = 0.8 * self.strength * (2.0 * factors[0] - 1.0)
        hue_shift = 0.2 * self.strength * (2.0 * factors[3] - 1.0)
        low, high = max(1.0 - 0.8 * self.strength, 0.0), 1.0 + 0.8 * self.strength
        brightness_factor, contrast_factor, saturation_factor = [low + (high - low) * draw for draw in factors[:3]]

        # Brightness and contrast in one form: scale * x + blend * mean(x) + shift.
        zero = tf.zeros_like(apply)
        contrast_numbers = (contrast_factor, 1.0 - contrast_factor, zero)
        brightness_numbers = (brightness_factor, zero, zero)
        if self.brightness == "additive":
            brightness_numbers = (zero + 1.0, zero, brightness_shift)
        contrast_last = brightness_key < contrast_key
        first = select(contrast_last, brightness_numbers, contrast_numbers)
        second = select(contrast_last, contrast_numbers, brightness_numbers)

        def change_between(start: tf.Tensor, end: tf.Tensor, planes: Planes) -> Planes:
            """Applies saturation and hue to the images whose order has them between these two keys."""
            shifts = (start <= hue_key) & (hue_key < end)
            saturates = (start <= saturation_key) & (saturation_key < end)
            return _shift_and_saturate(planes, tf.where(shifts, hue_shift, 0.0), saturates, saturation_factor)

        earlier, later = tf.minimum(brightness_key, contrast_key), tf.maximum(brightness_key, contrast_key)
        start_early = tf.minimum(saturation_key, hue_key) < earlier
        jittered: Planes = select(start_early, _clip(change_between(zero, earlier, planes)), planes)
        jittered = _clip(_blend_with_mean(jittered, *first))
        jittered = change_between(earlier, later, jittered)
        jittered = _clip(_blend_with_mean(jittered, *second))
        jittered = change_between(later, zero + 1.0, jittered)
        return select(apply < self.probability, jittered, planes)


def _shift_and_saturate(
    planes: Planes, hue_shift: tf.Tensor, saturates: tf.Tensor, saturation_factor: tf.Tensor
) -> Planes:
    """`tf.image.adjust_saturation` and `adjust_hue` in one, without conversion to HSV.

    With V the largest and m the smallest channel, both keep V. Saturation multiplies the chroma V - m, up to
    V. A channel lies below V by the chroma times a ramp of the distance between the hue and its own hue.
    """
    red, green, blue = planes
    value = tf.maximum(tf.maximum(red, green), blue)
    least = tf.minimum(tf.minimum(red, green), blue)
    chroma = value - least

    # The hue in sixths of the circle, from -3 to 3 and 0 at red: on the way red, yellow, green, cyan (and
    # likewise red, magenta, blue, cyan) first a channel rises by 1, then red falls by 1, then the third
    # channel rises by 1.
    hue = tf.math.divide_no_nan((green + blue - red) + (chroma - least), chroma)
    hue = tf.where(green >= blue, hue, -hue) + 6.0 * hue_shift
    hue -= 6.0 * tf.round(hue / 6.0)

    # Without saturation there is no limit, which matters only for pixels outside [0, 1].
    limit = tf.maximum(value, tf.where(saturates, 0.0, value.dtype.max))
    chroma = tf.minimum(chroma * tf.where(saturates, saturation_factor, 1.0), limit)
    ramps = (
        tf.abs(hue) - 1.0,
        2.0 - tf.abs(tf.abs(hue - 2.0) - 3.0),
        2.0 - tf.abs(tf.abs(hue + 2.0) - 3.0),
    )
    return [value - chroma * ramp for ramp in _clip(ramps)]


def _blend_with_mean(planes: Planes, scale: tf.Tensor, blend: tf.Tensor, shift: tf.Tensor) -> Planes:
    """Returns scale * x + blend * mean(x) + shift, the mean over each plane of each image."""
    means = [tf.reduce_mean(plane, (1, 2), keepdims=True) for plane in planes]
    return [scale * plane + (blend * mean + shift) for plane, mean in zip(planes, means, strict=True)]


def _clip(planes: Planes) -> list[tf.Tensor]:
    # One pass over the memory, where tf.clip_by_value makes two.
    return [tf.raw_ops.ClipByValue(t=plane, clip_value_min=0.0, clip_value_max=1.0) for plane in planes]

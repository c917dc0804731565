"""AutoAugment: one of 25 pairs of operations for each image, computed for a whole batch at once."""

import dataclasses
import functools
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from tf_simclr.augment.fusion import fused_on_cpu
from tf_simclr.augment.operator import Operator, check_choice
from tf_simclr.augment.policies import POLICIES, REFERENCES, Effect, effect

# PIL computes positions in fixed point.
_FIXED_BITS = 16
# What is moved in from outside the image.
_FILL = 128.0
# PIL's weights of red, green and blue, in 2^-16.
_LUMA_WEIGHTS = (19595.0, 38470.0, 7471.0)


@dataclasses.dataclass(frozen=True)
class AutoAugment(Operator):
    """Changes some images by a policy that was found by a supervised search (Cubuk et al., 2019).

    SimCLR compares it with its own colour distortion, whose place it takes in the chain (table 1 of the paper). Each
    image gets one of the policy's 25 sub-policies, two operations that are applied in turn, each with its own
    probability. The pixels are those of PIL, from images that are rounded to 8 bits: positions are rounded to the
    nearest pixel, and what is moved in from outside the image is grey (128).

    Every operation is a change of positions, a table of bytes for each channel, and a blend with another image; so all
    images take the same three steps, with different numbers.

    Attributes:
      policy: `"cifar10"` or `"imagenet"`, the data set that the policy was found on.
      probability: Share of the images that the policy is applied to. The others stay unchanged.
      stream: Stream of its random numbers.

    Raises:
      ValueError: If a value is out of its range.
    """

    num_draws: ClassVar[int] = 6
    on_planes: ClassVar[bool] = False

    policy: str = "imagenet"
    probability: float = 1.0
    stream: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("AutoAugment.policy", self.policy, tuple(POLICIES))

    def __call__(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Applies the operator.

        Args:
          images: float32 `[n, 3, S, S]`.
          draws: float32 `[n, 6]`, uniform in [0, 1): whether to apply the policy, the sub-policy, whether to apply each
            of its two operations, and their signs.

        Returns:
          float32 `[n, 3, S, S]`.
        """
        sub_policy = tf.cast(draws[:, 1] * len(POLICIES[self.policy]), tf.int32)
        changed = tf.round(255.0 * images)
        for position in range(2):
            chance, is_negative = draws[:, 2 + position], tf.cast(draws[:, 4 + position] < 0.5, tf.int32)
            probabilities, effects = _tables(self.policy, position, images.shape[-1])
            nothing = len(effects.tenths) - 1
            row = tf.where(chance < tf.gather(probabilities, sub_policy), 2 * sub_policy + is_negative, nothing)
            changed = apply_effects(changed, Effects(*(tf.gather(values, row) for values in effects)))
        chosen = draws[:, 0, tf.newaxis, tf.newaxis, tf.newaxis] < self.probability
        return tf.where(chosen, changed / 255.0, images)


class Effects(NamedTuple):
    """What happens to each image of a batch, see `policies.Effect`: arrays or tensors.

    Attributes:
      matrices: int64 `[n, 6]`, in fixed point.
      tables: float32 `[n, 256]`.
      stretches: bool `[n]`.
      equalizes: bool `[n]`.
      references: float32 `[n, 4]`, 1 for the reference that is blended with, 0 for the others.
      tenths: float32 `[n]`.
    """

    matrices: np.ndarray | tf.Tensor
    tables: np.ndarray | tf.Tensor
    stretches: np.ndarray | tf.Tensor
    equalizes: np.ndarray | tf.Tensor
    references: np.ndarray | tf.Tensor
    tenths: np.ndarray | tf.Tensor


def stack_effects(effects: list[Effect]) -> Effects:
    """The effects on images, one for each, as arrays."""
    matrices, tables, stretches, equalizes, references, tenths = zip(*effects, strict=True)
    a, b, c, d, e, f = np.array(matrices).T
    # PIL maps the centres of pixels.
    centred = np.stack((a, b, c + 0.5 * (a + b), d, e, f + 0.5 * (d + e)), axis=1)
    return Effects(
        np.floor(2.0**_FIXED_BITS * centred + 0.5).astype(np.int64),
        np.array(tables, np.float32),
        np.array(stretches),
        np.array(equalizes),
        np.array([[name == other for other in REFERENCES] for name in references], np.float32),
        np.array(tenths, np.float32),
    )


@functools.cache
def _tables(policy: str, position: int, size: int) -> tuple[np.ndarray, Effects]:
    """Of the first or second operations of the sub-policies, their probabilities, and the effects that a row chooses.

    Row 2 i is the i-th operation with a positive sign, the next the same with a negative one; the last does nothing.
    """
    operations = [pair[position] for pair in POLICIES[policy]]
    effects = [effect(one.name, one.level, sign, size) for one in operations for sign in (1, -1)]
    return np.array([one.probability for one in operations], np.float32), stack_effects([*effects, Effect()])


def apply_effects(images: tf.Tensor, effects: Effects) -> tf.Tensor:
    """Applies one effect to each image.

    Bytes are whole numbers in float32, which accelerators compute faster than integers. Quotients are rounded down
    exactly as integers would be: a half is added to the numerator, so that no quotient comes close to a whole number.

    Args:
      images: float32 `[n, 3, S, S]`, whole numbers from 0 to 255.
      effects: The effects.

    Returns:
      float32 `[n, 3, S, S]`, whole numbers from 0 to 255.
    """
    images = _move(images, effects.matrices)
    images = _look_up(_byte_tables(images, effects), images)
    return _blend(images, effects.references, effects.tenths)


# Compiled one by one: in a single call, XLA would repeat the first steps for every use of their results.
@fused_on_cpu
def _move(images: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """Takes each pixel from the place that the image's matrix, int64 `[n, 6]` in fixed point, says."""
    size = images.shape[-1]
    pixels = tf.range(size, dtype=tf.int64)
    xs, ys = pixels[tf.newaxis, tf.newaxis, :], pixels[tf.newaxis, :, tf.newaxis]
    a, b, c, d, e, f = tf.unstack(matrices[:, :, tf.newaxis, tf.newaxis], axis=1)
    shift = tf.constant(_FIXED_BITS, tf.int64)
    columns = tf.bitwise.right_shift(a * xs + b * ys + c, shift)
    rows = tf.bitwise.right_shift(d * xs + e * ys + f, shift)
    inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    sources = tf.where(inside, rows * size + columns, size * size)
    filled = tf.pad(_flat(images), ((0, 0), (0, 0), (0, 1)), constant_values=_FILL)
    moved = tf.gather(filled, tf.reshape(sources, (-1, size * size)), axis=2, batch_dims=1)
    return tf.reshape(moved, (-1, 3, size, size))


@fused_on_cpu
def _byte_tables(images: tf.Tensor, effects: Effects) -> tf.Tensor:
    """What each byte of each channel becomes: float32 `[n, 3, 256]`."""
    bytes_ = tf.range(256, dtype=tf.float32)
    low = tf.reduce_min(images, (2, 3))[:, :, tf.newaxis]
    high = tf.reduce_max(images, (2, 3))[:, :, tf.newaxis]
    stretched = tf.clip_by_value(_quotient(255.0 * (bytes_ - low), tf.maximum(high - low, 1.0)), 0.0, 255.0)
    stretched = tf.where(high > low, stretched, bytes_)

    counts = _histograms(images)
    step = _quotient(tf.reduce_sum(tf.where(bytes_ < high, counts, 0.0), 2, keepdims=True), 255.0)
    below = tf.cumsum(counts, axis=2, exclusive=True)
    equalized = tf.minimum(_quotient(tf.floor(0.5 * step) + below, tf.maximum(step, 1.0)), 255.0)
    equalized = tf.where(step > 0.0, equalized, bytes_)

    stretches, equalizes = effects.stretches[:, tf.newaxis, tf.newaxis], effects.equalizes[:, tf.newaxis, tf.newaxis]
    return tf.where(equalizes, equalized, tf.where(stretches, stretched, effects.tables[:, tf.newaxis]))


def _histograms(images: tf.Tensor) -> tf.Tensor:
    """How often each byte occurs in each channel: float32 `[n, 3, 256]`."""
    pixels = tf.reshape(images, (-1, images.shape[2] * images.shape[3]))
    count = tf.shape(pixels)[0]
    bins = tf.cast(pixels, tf.int32) + 256 * tf.range(count)[:, tf.newaxis]
    counts = tf.math.unsorted_segment_sum(tf.ones_like(pixels), bins, 256 * count)
    return tf.reshape(counts, (-1, 3, 256))


@fused_on_cpu
def _look_up(tables: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Replaces each byte by what its channel's table, of `[n, 3, 256]`, says."""
    found = tf.gather(tables, tf.cast(_flat(images), tf.int32), axis=2, batch_dims=2)
    return tf.reshape(found, (-1, *images.shape[1:]))


@fused_on_cpu
def _blend(images: tf.Tensor, chosen: tf.Tensor, tenths: tf.Tensor) -> tf.Tensor:
    """Blends images with their references, see `Effects`."""
    reference = _references(images, chosen)
    tenths = tenths[:, tf.newaxis, tf.newaxis, tf.newaxis]
    return _quotient(tf.clip_by_value(10.0 * reference + tenths * (images - reference), 0.0, 2550.0), 10.0)


def _references(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """The images to blend with, float32 `[n, 3, S, S]`; `chosen`, `[n, 4]`, is 1 for one of `REFERENCES`."""
    _, mean, luma, smooth = tf.unstack(chosen[:, :, tf.newaxis, tf.newaxis, tf.newaxis], axis=1)
    weights = tf.constant(_LUMA_WEIGHTS)[:, tf.newaxis, tf.newaxis]
    lumas = tf.floor((tf.reduce_sum(weights * images, axis=1, keepdims=True) + 2.0**15) * 2.0**-16)
    pixels = images.shape[2] * images.shape[3]
    sums = tf.reduce_sum(tf.cast(lumas, tf.int64), (1, 2, 3), keepdims=True)
    means = tf.cast((2 * sums + pixels) // (2 * pixels), tf.float32)
    return mean * means + luma * lumas + smooth * _smooth(images)


def _smooth(images: tf.Tensor) -> tf.Tensor:
    """Averages each pixel, of weight 5, with its eight neighbours, of weight 1; the border stays."""
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4.0 * images[:, :, 1:-1, 1:-1]
    means = tf.floor(sums / 13.0 + 0.5)  # Never close to a whole number, as 13 is odd.
    border = ((0, 0), (0, 0), (1, 1), (1, 1))
    return tf.where(tf.pad(tf.ones_like(means), border) > 0.0, tf.pad(means, border), images)


def _quotient(numerator: tf.Tensor, denominator: tf.Tensor | float) -> tf.Tensor:
    """The quotient of whole numbers, rounded down."""
    return tf.floor((numerator + 0.5) / denominator)


def _flat(images: tf.Tensor) -> tf.Tensor:
    """`[n, 3, S, S]` -> `[n, 3, S * S]`."""
    return tf.reshape(images, (-1, 3, images.shape[2] * images.shape[3]))

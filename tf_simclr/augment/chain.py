"""Chains of operators, each of which makes one view of an image."""

import itertools
from collections.abc import Mapping, Sequence

import tensorflow as tf

from tf_simclr.augment.blur import GaussianBlur
from tf_simclr.augment.crop import RandomCrop
from tf_simclr.augment.flip import RandomFlip
from tf_simclr.augment.fusion import fused_on_cpu
from tf_simclr.augment.grayscale import RandomGrayscale
from tf_simclr.augment.jitter import ColorJitter
from tf_simclr.augment.operator import Operator

Chain = tuple[RandomCrop | Operator, ...]

# What a run calls the operators of `simclr_chain`, in order.
SIMCLR_NAMES = ("crop", "flip", "jitter", "grayscale", "blur")


def simclr_chain(
    *,
    crop_sampler: str = "tensorflow",
    crop_area: tuple[float, float] = (0.08, 1.0),
    crop_aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip_probability: float = 0.5,
    jitter_strength: float = 1.0,
    jitter_probability: float = 0.8,
    brightness: str = "multiplicative",
    grayscale_probability: float = 0.2,
    blur_probability: float = 0.5,
) -> Chain:
    """The chain of SimCLR (paper, appendix A), with the reference's values as defaults.

    Append operators by adding a tuple of them: `simclr_chain() + (operator,)`.

    Args:
      crop_sampler: `"tensorflow"` (the reference's) or `"uniform_area"` (the paper's), see `RandomCrop`.
      crop_area: Smallest and largest area of a crop, as a fraction of the image's.
      crop_aspect_ratio: Smallest and largest width / height of a crop in pixels.
      flip_probability: Share of the views that are mirrored left and right.
      jitter_strength: s >= 0: brightness, contrast and saturation change by up to 0.8 s, hue by up to 0.2 s.
      jitter_probability: Share of the views whose colours are jittered.
      brightness: `"multiplicative"`, or `"additive"` as in the reference's first version.
      grayscale_probability: Share of the views without colour.
      blur_probability: Share of the views that are blurred, each with its own sigma.

    Raises:
      ValueError: If a value is out of its range.
    """
    return (
        RandomCrop(crop_sampler, crop_area, crop_aspect_ratio),
        RandomFlip(flip_probability),
        ColorJitter(jitter_strength, jitter_probability, brightness),
        RandomGrayscale(grayscale_probability),
        GaussianBlur(blur_probability),
    )


def check_chain(chain: Chain, shared_crop: RandomCrop | None = None) -> None:
    """Checks that the operators of a chain fit together, and to a crop that comes before it.

    Raises:
      ValueError: If the first operator is not a crop, another one is, or two operators share a stream.
    """
    split_chain(chain)
    for one, other in itertools.combinations((shared_crop, *chain) if shared_crop else chain, 2):
        if one.stream == other.stream:
            raise ValueError(
                "The operators of a branch need different streams, or they would get the same random numbers. "
                f"Received: stream={one.stream} for {type(one).__name__} and {type(other).__name__}"
            )


def split_chain(chain: Chain) -> tuple[RandomCrop, RandomFlip | None, list[Operator]]:
    """Splits a chain into its crop, the flip right after it (if any), and the other operators that change something.

    The flip is separate for speed. Crops are matrix products, which mirror for free when their rows are reversed; in
    views that are already cropped, the flip shares one pass with the change of layout. Anywhere else in a chain, a flip
    takes a pass of its own.

    Raises:
      ValueError: If the first operator is not a crop, or another one is.
    """
    crop, *others = chain or (None,)
    operators = [operator for operator in others if isinstance(operator, Operator)]
    if not isinstance(crop, RandomCrop) or len(operators) < len(others):
        names = ", ".join(type(operator).__name__ for operator in chain)
        raise ValueError(f"A branch must be a RandomCrop, followed by other operators. Received: ({names})")
    operators = [operator for operator in operators if not operator.is_identity]
    if operators and isinstance(operators[0], RandomFlip):
        return crop, operators[0], operators[1:]
    return crop, None, operators


def apply_operators(operators: Sequence[Operator], views: tf.Tensor, draws: Mapping[int, tf.Tensor]) -> tf.Tensor:
    """Applies operators in order.

    Args:
      operators: The operators after crop and flip.
      views: float32 `[n, 3, S, S]`, in [0, 1] apart from the overshoot of a bicubic crop.
      draws: float32 `[n, num_draws]`, uniform in [0, 1), by stream of the operators.

    Returns:
      float32 `[n, 3, S, S]`.
    """
    if operators and not operators[0].on_planes:
        views = tf.clip_by_value(views, 0.0, 1.0)  # Only operators on planes see the crop's overshoot.
    for on_planes, group in itertools.groupby(operators, lambda operator: operator.on_planes):
        if on_planes:
            row = tuple(group)
            views = _apply_on_planes(views, [draws[operator.stream] for operator in row], row)
        else:
            for operator in group:
                views = operator(views, draws[operator.stream])
    return views


@fused_on_cpu
def _apply_on_planes(views: tf.Tensor, draws: list[tf.Tensor], operators: tuple[Operator, ...]) -> tf.Tensor:
    """`[n, 3, S, S]` -> `[n, 3, S, S]`, in [0, 1]. Compiled once for equal operators: they are hashable."""
    planes = tf.unstack(views, axis=1)
    for operator, numbers in zip(operators, draws, strict=True):
        planes = operator(planes, numbers)
    return tf.clip_by_value(tf.stack(planes, axis=1), 0.0, 1.0)

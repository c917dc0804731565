"""The policies that AutoAugment found, and what their operations do to an image.

Source: Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data" (CVPR 2019), whose appendix has the
policies and the ranges of the magnitudes. A range has ten values, evenly spaced. The paper leaves their order open; as
in torchvision, higher levels are stronger, and shear, translation, rotation and the four enhancements go either way,
by a random sign.
"""

import math
from typing import NamedTuple

import numpy as np


class Operation(NamedTuple):
    """An operation of a policy: its name, the probability that it is applied, and its level from 0 to 9."""

    name: str
    probability: float
    level: int = 0


class Effect(NamedTuple):
    """What an operation does to an image of bytes, in this order. The defaults change nothing.

    Attributes:
      matrix: a, b, c, d, e, f: the pixel at (x, y) becomes the one at (a x + b y + c, d x + e y + f), as PIL counts.
      table: What each byte becomes, 256 numbers.
      stretches: Whether each channel's contrast is stretched to the whole range.
      equalizes: Whether each channel's histogram is equalized.
      reference: What the image is blended with, one of `REFERENCES`.
      tenths: Ten times the image's share in the blend, a whole number; above 10 it moves away from the reference.
    """

    matrix: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    table: np.ndarray = np.arange(256)
    stretches: bool = False
    equalizes: bool = False
    reference: str = "black"
    tenths: int = 10


# Black, the mean luma, the luma of each pixel, and a smoothed image.
REFERENCES = ("black", "mean", "luma", "smooth")
_REFERENCE_OF = {"brightness": "black", "contrast": "mean", "color": "luma", "sharpness": "smooth"}

_MAX_LEVEL = 9
_MAX_SHEAR = 0.3
_MAX_TRANSLATION = 150 / 331  # of the image's side
_MAX_DEGREES = 30


def effect(name: str, level: int, sign: int, size: int) -> Effect:
    """What an operation does.

    Args:
      name: The operation, such as "shear_x".
      level: 0 to 9.
      sign: 1 or -1, the direction of those that have one.
      size: Height and width of the image in pixels.
    """
    share, values = level / _MAX_LEVEL, np.arange(256)
    shear, shift = sign * share * _MAX_SHEAR, sign * share * _MAX_TRANSLATION * size
    threshold, lost_bits = 256 * (1 - share), round(4 * share)
    effects = {
        "shear_x": Effect(matrix=(1.0, shear, 0.0, 0.0, 1.0, 0.0)),
        "shear_y": Effect(matrix=(1.0, 0.0, 0.0, shear, 1.0, 0.0)),
        "translate_x": Effect(matrix=(1.0, 0.0, shift, 0.0, 1.0, 0.0)),
        "translate_y": Effect(matrix=(1.0, 0.0, 0.0, 0.0, 1.0, shift)),
        "rotate": Effect(matrix=_rotation(sign * share * _MAX_DEGREES, size)),
        "invert": Effect(table=255 - values),
        "solarize": Effect(table=np.where(values >= threshold, 255 - values, values)),
        "posterize": Effect(table=values >> lost_bits << lost_bits),
        "autocontrast": Effect(stretches=True),
        "equalize": Effect(equalizes=True),
    }
    if name in _REFERENCE_OF:
        return Effect(reference=_REFERENCE_OF[name], tenths=10 + sign * level)
    return effects[name]


def _rotation(degrees: float, size: int) -> tuple[float, ...]:
    """The matrix that rotates a square image about its centre, counterclockwise."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    centre = size / 2
    return (
        cosine, -sine, centre * (1 - cosine + sine),
        sine, cosine, centre * (1 - cosine - sine),
    )  # fmt: skip


def _policy(*sub_policies: tuple[tuple[str, float, int], tuple[str, float, int]]) -> tuple[tuple[Operation, ...], ...]:
    return tuple(tuple(Operation(*operation) for operation in pair) for pair in sub_policies)


# A level of 0 stands for none.
POLICIES = {
    "cifar10": _policy(
        (("invert", 0.1, 0), ("contrast", 0.2, 6)),
        (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
        (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
        (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
        (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
        (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
        (("color", 0.4, 3), ("brightness", 0.6, 7)),
        (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
        (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
        (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
        (("color", 0.7, 7), ("translate_x", 0.5, 8)),
        (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
        (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
        (("brightness", 0.9, 6), ("color", 0.2, 8)),
        (("solarize", 0.5, 2), ("invert", 0.0, 0)),
        (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
        (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
        (("color", 0.9, 9), ("equalize", 0.6, 0)),
        (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
        (("brightness", 0.1, 3), ("color", 0.7, 0)),
        (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
        (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
        (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
        (("equalize", 0.8, 0), ("invert", 0.1, 0)),
        (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
    ),
    "imagenet": _policy(
        (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
        (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
        (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
        (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
        (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
        (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
        (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
        (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
        (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
        (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
        (("rotate", 0.8, 8), ("color", 0.4, 0)),
        (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
        (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
        (("invert", 0.6, 0), ("equalize", 1.0, 0)),
        (("color", 0.6, 4), ("contrast", 1.0, 8)),
        (("rotate", 0.8, 8), ("color", 1.0, 2)),
        (("color", 0.8, 8), ("solarize", 0.8, 7)),
        (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
        (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
        (("color", 0.4, 0), ("equalize", 0.6, 0)),
        (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
        (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
        (("invert", 0.6, 0), ("equalize", 1.0, 0)),
        (("color", 0.6, 4), ("contrast", 1.0, 8)),
        (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    ),
}

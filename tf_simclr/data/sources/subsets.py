"""Class-balanced parts of labelled images, for training and judging with few labels."""

import fractions
import math
from collections.abc import Iterable

import numpy as np

from tf_simclr import files


def class_balanced(keys: Iterable[str], labels: np.ndarray, fraction: float, draw: int = 0) -> np.ndarray:
    """The positions of a fraction of the labelled images, of every class alike.

    In each class, takes the images with the smallest hashes of (draw, key): `fraction` of the class, rounded up, so at
    least one. Within a draw, a smaller part therefore lies in every larger one; the parts are the same on every machine
    and for every seed; and adding images replaces few of those that were chosen.

    >>> class_balanced(["a", "b", "c", "d", "e"], np.array([0, 0, 1, 1, -1]), 0.5)
    array([0, 3])

    Args:
      keys: N names, as in `Source.keys`.
      labels: Integers [N], -1 for an image without a label, which is never taken.
      fraction: The fraction to take, in (0, 1].
      draw: Number of the draw: others take other images.

    Returns:
      int64 [M], increasing.

    Raises:
      ValueError: If the fraction is out of range, or no image has a label.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"The fraction of the labels must be above 0, at most 1. Received: {fraction}")
    classes = np.unique(labels[labels >= 0])
    if not len(classes):
        raise ValueError("A fraction of the labels needs images with labels. Received: images without labels")
    exact = fractions.Fraction(str(fraction))  # 0.07 of 100 images are 7, not the 8 of floating point, rounded up.
    hashes = np.array([_hash(draw, key) for key in keys], np.uint64)
    chosen = []
    for label in classes:
        members = np.flatnonzero(labels == label)
        order = np.argsort(hashes[members], kind="stable")
        chosen.append(members[order[: math.ceil(exact * len(members))]])
    return np.sort(np.concatenate(chosen))


def _hash(draw: int, key: str) -> int:
    return int(files.digest(f"{draw}:{key}".encode("utf-8", "surrogateescape")), 16)

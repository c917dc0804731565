"""Class-balanced parts of images: for training and judging with few labels, and to look at some of many."""

import fractions
import math
from collections.abc import Iterable, Sequence

import numpy as np

from tf_simclr import files


def class_balanced(keys: Iterable[str], labels: np.ndarray, fraction: float, draw: int = 0) -> np.ndarray:
    """The positions of a fraction of the labelled images, of every class alike.

    In each class, takes the images with the smallest hashes of (draw, key): `fraction` of the class, rounded up, so at
    least one. Within a draw, a smaller part therefore lies in every larger one; the parts are the same on every machine
    and for every seed; and adding images replaces few of those that were chosen.

    >>> class_balanced(["a", "b", "c", "d", "e"], np.array([0, 0, 1, 1, -1]), 0.5)
    array([1, 2])

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


def spread(keys: Sequence[str], labels: np.ndarray | None, count: int) -> np.ndarray:
    """The positions of at most so many images, of every class as many as of any other as far as it has them.

    In each class, takes the images with the smallest hashes of their keys, so the choice is the same on every machine,
    and adding images replaces few of those that were chosen.

    >>> spread(["a", "b", "c", "d", "e"], np.array([0, 0, 0, 0, 1]), 3)
    array([1, 2, 4])

    Args:
      keys: N names, as in `Source.keys`.
      labels: Integers [N]; None if all images are of one class.
      count: How many to take at most.

    Returns:
      int64 [M], increasing.
    """
    number = len(keys)
    if number <= count:
        return np.arange(number)
    hashes = np.array([_hash(0, key) for key in keys], np.uint64)
    classes = np.zeros(number, np.int64) if labels is None else labels
    by_class = np.lexsort((hashes, classes))
    starts = np.flatnonzero(np.diff(classes[by_class], prepend=classes[by_class[0]] - 1))
    ranks = np.arange(number) - np.repeat(starts, np.diff(starts, append=number))  # Within the class.
    by_rank = by_class[np.lexsort((hashes[by_class], ranks))]
    return np.sort(by_rank[:count])


def _hash(draw: int, key: str) -> int:
    return int(files.digest(f"{draw}:{key}".encode("utf-8", "surrogateescape")), 16)

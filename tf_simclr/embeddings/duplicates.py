"""Groups of near duplicates."""

import collections
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Group(NamedTuple):
    """Near duplicates.

    Attributes:
      keep: The image to keep.
      others: Those that look like it, the most similar first.
      likenesses: Their similarities to it.
    """

    keep: int
    others: list[int]
    likenesses: list[float]


def group(pairs: np.ndarray, likenesses: np.ndarray, worth: Callable[[int], float]) -> list[Group]:
    """Groups images around those that are worth most; every member looks like the one to keep.

    Pairs are not followed from image to image: a few wrong ones would join a whole set.

    Args:
      pairs: int64 [n, 2].
      likenesses: float [n].
      worth: What an image is worth, such as the size of its file; of equals, the first is kept.

    Returns:
      The groups, the largest first. An image is in one at most.
    """
    partners: dict[int, dict[int, float]] = collections.defaultdict(dict)
    for (first, second), likeness in zip(pairs.tolist(), likenesses.tolist(), strict=True):
        partners[first][second] = partners[second][first] = likeness
    taken: set[int] = set()
    groups = []
    for image in sorted(partners, key=lambda image: (-worth(image), image)):
        others = [] if image in taken else [other for other in partners[image] if other not in taken]
        if others:
            others.sort(key=lambda other: (-partners[image][other], other))
            groups.append(Group(image, others, [partners[image][other] for other in others]))
            taken |= {image, *others}
    return sorted(groups, key=lambda one: (-len(one.others), one.keep))

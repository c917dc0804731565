"""Nearest neighbours of single images: where they agree with its class, where not, and which labels that questions."""

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tf_simclr.report.images import ImageMap

_SHOWN = 6  # images of a gallery
_SHOWN_SUSPECTS = 12
_NEIGHBORS = 8  # neighbours of each that are shown
_MOST_OF_A_CLASS = 2  # images of one class in a gallery
# Neighbours that must agree on another label: this share of them, of at least so many.
_AGREEMENT, _LEAST_LABELLED = 0.8, 5


class Neighbor(NamedTuple):
    """An image near another; `agrees` is None unless both classes are known."""

    row: int
    name: str
    label: str | None
    distance: float
    agrees: bool | None


class Retrieval(NamedTuple):
    """An image and its neighbours.

    Attributes:
      row: Its row in the map.
      name: Its path.
      label: Its class, or None.
      predicted: The class that the evaluation predicts, or None.
      agreement: Neighbours of the same class; None without classes.
      other: The class that its neighbours agree on instead, for label suspects.
      neighbors: Those that are shown, nearest first.
      num_neighbors: How many neighbours there are.
      distance: Their mean cosine distance.
    """

    row: int
    name: str
    label: str | None
    predicted: str | None
    agreement: int | None
    other: str | None
    neighbors: Sequence[Neighbor]
    num_neighbors: int
    distance: float


class Gallery(NamedTuple):
    """The retrievals of a map.

    Attributes:
      best: Those whose neighbours are of their class, or else the closest.
      worst: Those whose neighbours are of other classes, or else the farthest; without the suspects.
      suspects: The first of those whose neighbours agree on another class.
      num_suspects: How many of these there are.
    """

    best: Sequence[Retrieval]
    worst: Sequence[Retrieval]
    suspects: Sequence[Retrieval]
    num_suspects: int


def gallery(images: ImageMap) -> Gallery:
    """Picks the retrievals to show."""
    every = [_retrieval(images, row) for row in range(len(images)) if images.neighbors[row]]
    if not images.has_labels:
        by_distance = sorted(every, key=lambda one: one.distance)
        return Gallery(_apart(by_distance), _apart(by_distance[::-1]), [], 0)
    judged = [one for one in every if one.agreement is not None]
    suspects = sorted(filter(lambda one: one.other is not None, judged), key=lambda one: one.distance)
    best = _first(judged, lambda one: (-_share(one), one.distance), 1)
    worst = _first([one for one in judged if one.other is None and _share(one) < 1],
                   lambda one: (_share(one), one.distance), _MOST_OF_A_CLASS)  # fmt: skip
    return Gallery(best, worst, suspects[:_SHOWN_SUSPECTS], len(suspects))


def _first(
    retrievals: Sequence[Retrieval], key: Callable[[Retrieval], tuple[float, float]], most_of_a_class: int
) -> list[Retrieval]:
    """The first ones in the order of a key, but not all of one class."""
    seen: collections.Counter[str | None] = collections.Counter()
    chosen: list[Retrieval] = []
    for one in sorted(retrievals, key=key):
        if len(chosen) < _SHOWN and seen[one.label] < most_of_a_class:
            seen[one.label] += 1
            chosen.append(one)
    return chosen


def _apart(retrievals: Iterable[Retrieval]) -> list[Retrieval]:
    """The first ones that are not shown as a neighbour of one before."""
    chosen: list[Retrieval] = []
    shown: set[int] = set()
    for one in retrievals:
        if len(chosen) < _SHOWN and one.row not in shown:
            chosen.append(one)
            shown |= {near.row for near in one.neighbors}
    return chosen


def _share(one: Retrieval) -> float:
    return (one.agreement or 0) / one.num_neighbors


def _retrieval(images: ImageMap, row: int) -> Retrieval:
    label, rows, distances = images.labels[row], images.neighbors[row], images.distances[row]
    labels = [images.labels[other] for other in rows]
    known = collections.Counter(other for other in labels if other is not None)
    neighbors = [
        Neighbor(other, images.names[other], name, distance, None if None in (label, name) else name == label)
        for other, name, distance in list(zip(rows, labels, distances, strict=True))[:_NEIGHBORS]
    ]
    return Retrieval(
        row, images.names[row], label, images.predicted[row],
        agreement=known[label] if label is not None and known else None,
        other=_agreed(known, label), neighbors=neighbors, num_neighbors=len(rows), distance=sum(distances) / len(rows),
    )  # fmt: skip


def _agreed(known: collections.Counter[str], label: str | None) -> str | None:
    """The label other than its own that most neighbours have."""
    total = known.total()
    if label is None or total < _LEAST_LABELLED:
        return None
    other, count = known.most_common(1)[0]
    return other if other != label and count >= _AGREEMENT * total else None

"""Exact neighbours by cosine similarity, block by block in bounded memory."""

from collections.abc import Iterable, Iterator

import numpy as np

# The similarity of equal vectors falls short of 1 by about this much.
_ROUNDING = 1e-6
# 4096 * 8192 similarities take 128 MiB.
_QUERIES, _CANDIDATES = 4096, 8192
MAX_PAIRS = 10_000_000


def search(queries: np.ndarray, blocks: Iterable[tuple[int, np.ndarray]], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds the vectors most similar to each query.

    Args:
      queries: float32 [Q, F] of unit length.
      blocks: (row of the first one, vectors float32 [n, F] of unit length) of all candidates.
      count: How many to find, at most.

    Returns:
      (rows int64 [Q, k], similarities float32 [Q, k]), the most similar first.
    """
    rows, likenesses = np.empty([len(queries), 0], np.int64), np.empty([len(queries), 0], np.float32)
    for first, vectors in blocks:
        found = queries @ vectors.T
        best = _largest(found, count)
        rows = np.concatenate([rows, best + first], axis=1)
        likenesses = np.concatenate([likenesses, np.take_along_axis(found, best, 1)], axis=1)
        kept = _largest(likenesses, count)
        rows, likenesses = np.take_along_axis(rows, kept, 1), np.take_along_axis(likenesses, kept, 1)
    order = np.lexsort((rows, -likenesses), axis=1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(likenesses, order, 1)


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """The columns of the `count` largest values of each row, in increasing order."""
    if values.shape[1] <= count:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    return np.sort(np.argpartition(values, -count, axis=1)[:, -count:], axis=1)


def split(vectors: np.ndarray, size: int = _CANDIDATES) -> Iterator[tuple[int, np.ndarray]]:
    """(row of the first one, vectors) block by block."""
    for first in range(0, len(vectors), size):
        yield first, vectors[first : first + size]


def nearest(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest others of each of N vectors, as `search` does: (rows [N, k], similarities [N, k])."""
    found, similarities = [], []
    for first, queries in split(vectors, _QUERIES):
        rows, likenesses = search(queries, split(vectors), count + 1)
        is_other = rows != np.arange(first, first + len(queries))[:, None]
        # Among more than `count` copies of itself, a vector may be missing.
        is_other[is_other.all(axis=1), -1] = False
        shape = [len(queries), rows.shape[1] - 1]
        found.append(rows[is_other].reshape(shape))
        similarities.append(likenesses[is_other].reshape(shape))
    return np.concatenate(found), np.concatenate(similarities)


def pairs(vectors: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Finds all pairs of at least this similarity: (rows int64 [n, 2], the lower first; similarities float32 [n]).

    Raises:
      ValueError: If there are too many to keep.
    """
    count = 0
    found, likenesses = [np.empty([0, 2], np.int64)], [np.empty(0, np.float32)]
    for first, queries in split(vectors, _QUERIES):
        for place, block in split(vectors[first:]):
            alike = queries @ block.T
            left, right = np.nonzero(alike >= threshold - _ROUNDING)
            is_after = right + place > left
            left, right = left[is_after], right[is_after]
            found.append(np.stack([left + first, right + place + first], axis=1))
            likenesses.append(alike[left, right])
            count += len(left)
            if count > MAX_PAIRS:
                raise ValueError(f"More than {MAX_PAIRS:,} pairs are so similar: raise it. Received: {threshold}")
    return np.concatenate(found), np.concatenate(likenesses)

"""Weighted k-nearest-neighbour classification of representations.

Source: Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (2018),
section 3.4.
"""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow as tf

from tf_simclr.evaluation.features import Features, check_one_label
from tf_simclr.evaluation.scores import Scores

# Features, and similarities, held at a time: 128 MiB of float32 each, whatever the size of the training set.
_BLOCK_ELEMENTS = 2**25


@dataclasses.dataclass(frozen=True)
class KNN:
    """Judges representations by the classes of the nearest training images; see `nearest_images` and `votes`.

    Attributes:
      k: Number of neighbours, at least 1; capped at the number of training images. Wu et al. use 200.
      temperature: Positive. Wu et al. use 0.07, which later work rounds to 0.1.
    """

    k: int = 200
    temperature: float = 0.1

    name: ClassVar[str] = "knn"
    title: ClassVar[str] = "kNN (k={k})"

    def __call__(self, train: Features, test: np.ndarray) -> Scores:
        """The shares of the classes in the votes, with the settings `k` (capped) and `temperature`.

        Raises:
          ValueError: If an image may have several labels, or `k` or `temperature` is not positive.
        """
        check_one_label(train, "kNN evaluation")
        if self.k < 1 or self.temperature <= 0:
            raise ValueError(
                f"kNN needs k >= 1 and a positive temperature. Received: k={self.k}, temperature={self.temperature}"
            )
        k = min(self.k, len(train))
        similarities, neighbors = nearest_images(train.representations, test, k)

        def shares(rows: slice) -> np.ndarray:
            classes = train.labels[neighbors[rows]]
            found = votes(similarities[rows], classes, num_classes=train.num_classes, temperature=self.temperature)
            return found / found.sum(axis=1, keepdims=True)

        return Scores(shares, (len(test), train.num_classes), {"k": k, "temperature": self.temperature})


def votes(similarities: np.ndarray, classes: np.ndarray, *, num_classes: int, temperature: float) -> np.ndarray:
    """The votes of neighbours for their classes, each with weight exp(similarity / temperature).

    Args:
      similarities: Of the neighbours of an image, the nearest first, float32 [M, k].
      classes: Theirs, integers [M, k] in [0, num_classes).
      num_classes: Number of classes C.
      temperature: Positive; the smaller, the more the nearest neighbours count.

    Returns:
      Scores, float64 [M, C], >= 0. Only the order of the classes in a row has meaning, not its scale.
    """
    # Relative to the nearest one, which keeps a row's order and makes its largest weight 1.
    weights = np.exp((similarities - similarities[:, :1]) / temperature)
    # One histogram for all: row r votes in the bins from r * num_classes on.
    bins = num_classes * np.arange(len(weights))[:, None] + classes
    found = np.bincount(bins.ravel(), weights.ravel(), minlength=num_classes * len(weights))
    return found.reshape(-1, num_classes)


def nearest_images(references: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest references of each query by cosine similarity, the nearest first; of equal ones, the first.

    Args:
      references: float32 [N, F].
      queries: float32 [M, F].
      k: From 1 to N.

    Returns:
      The similarities, float32 [M, k], and which references these are, int64 [M, k].
    """
    nearest = np.full([len(queries), k], -np.inf, np.float32)
    neighbors = np.zeros([len(queries), k], np.int64)
    for start, block in _normalized_blocks(references, _BLOCK_ELEMENTS // references.shape[1]):
        for first, some in _normalized_blocks(queries, _BLOCK_ELEMENTS // len(block)):
            rows = slice(first, first + len(some))
            found = tf.math.top_k(tf.matmul(some, block, transpose_b=True), min(k, len(block)))
            # Beside those of the blocks before; of equal ones, the first stays first.
            similarities = np.concatenate([nearest[rows], found.values], axis=1)
            places = np.concatenate([neighbors[rows], start + found.indices.numpy().astype(np.int64)], axis=1)
            best = tf.math.top_k(similarities, k).indices.numpy()
            nearest[rows] = np.take_along_axis(similarities, best, axis=1)
            neighbors[rows] = np.take_along_axis(places, best, axis=1)
    return nearest, neighbors


def _normalized_blocks(features: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of unit length, about `size` at a time, after the place of the first one.

    Equal rows stay equal, whatever their place: TensorFlow's l2_normalize rounds some otherwise than others.
    """
    for start in range(0, len(features), max(1, size)):
        block = features[start : start + max(1, size)]
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        yield start, block / np.maximum(lengths, np.finfo(np.float32).tiny)

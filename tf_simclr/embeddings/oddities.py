"""Images unlike all others, and images whose label is unlike that of their neighbours."""

from typing import NamedTuple

import numpy as np

from tf_simclr.embeddings import neighbors

# Whose similarity says how unlike the others an image is.
NEIGHBORS = 10
# Who vote on a label; docs/embedding.md has the measurements.
VOTERS = 50


class Suspects(NamedTuple):
    """Images whose label the neighbours contradict, the surest first.

    Attributes:
      rows: int64 [n].
      proposed: The label of most neighbours, object [n].
      agreement: Share of the neighbours' weight for the image's own label, float [n].
      confidence: The share for the proposed one, float [n].
    """

    rows: np.ndarray
    proposed: np.ndarray
    agreement: np.ndarray
    confidence: np.ndarray


def outliers(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The images with the smallest mean similarity to their nearest neighbours: (rows [count], similarities)."""
    _, alike = neighbors.nearest(vectors, min(NEIGHBORS, len(vectors) - 1))
    means = alike.mean(axis=1) if alike.size else np.zeros(len(vectors), np.float32)
    rows = np.argsort(means, kind="stable")[:count]
    return rows, means[rows]


def suspects(vectors: np.ndarray, labels: np.ndarray) -> Suspects:
    """Finds the images for which another label has more votes of the neighbours than their own.

    The nearest labelled images vote, each with the similarity by which it is nearer than the last of them.

    Args:
      vectors: float32 [N, F] of unit length.
      labels: Names of classes, object [N], None where unknown.

    Raises:
      ValueError: If fewer than two classes are known.
    """
    labelled = np.flatnonzero([label is not None for label in labels])
    names, classes = np.unique(labels[labelled].astype(str), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"Suspect labels can be found among at least two classes. Received: {len(names)}")
    rows, alike = neighbors.nearest(vectors[labelled], min(VOTERS, len(labelled) - 1))
    weights = np.maximum(alike - alike[:, -1:], 0) + 1e-6
    votes = np.zeros([len(labelled), len(names)])
    for place in range(rows.shape[1]):
        np.add.at(votes, (np.arange(len(labelled)), classes[rows[:, place]]), weights[:, place])
    votes /= votes.sum(axis=1, keepdims=True)
    places = np.arange(len(labelled))
    own, best = votes[places, classes], votes.argmax(axis=1)
    doubt = votes[places, best] - own
    order = np.argsort(-doubt, kind="stable")
    order = order[doubt[order] > 0]
    return Suspects(labelled[order], names[best[order]].astype(object), own[order], votes[order, best[order]])

"""Which images to label first."""

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from tf_simclr.embeddings import neighbors

# Neighbours in its cluster that say how typical an image is, as in the paper.
_NEIGHBORS = 20
_BLOCK = 1 << 16
# Images that the means of the clusters are found from.
_MAX_FITTED = 100_000


def typical(vectors: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Takes the most typical image of each of `count` clusters: TypiClust (Hacohen et al., 2022) with k-means.

    An image is typical whose nearest neighbours in its cluster are near on average.

    Args:
      vectors: float32 [N, F] of unit length.
      count: At most N.
      seed: Seed of the clusters.

    Returns:
      Rows, int64 [count], those of the largest clusters first.
    """
    rng = np.random.default_rng(seed)
    fitted = vectors
    if len(vectors) > (most := max(_MAX_FITTED, count)):
        fitted = vectors[np.sort(rng.choice(len(vectors), most, replace=False))]
    means = MiniBatchKMeans(count, batch_size=4096, n_init=3, random_state=seed).fit(fitted)
    clusters = np.concatenate([means.predict(block) for _, block in neighbors.split(vectors, _BLOCK)])
    chosen, sizes = [], []
    for cluster in range(count):
        members = np.flatnonzero(clusters == cluster)
        if members.size:
            _, alike = neighbors.nearest(vectors[members], min(_NEIGHBORS, len(members) - 1))
            density = alike.mean(axis=1) if alike.size else np.zeros(len(members))
            chosen.append(members[np.argmax(density)])
            sizes.append(len(members))
    picked = np.array(chosen, np.int64)[np.argsort(-np.array(sizes), kind="stable")]
    rest = np.setdiff1d(np.arange(len(vectors)), picked)  # Where clusters are empty.
    return np.concatenate([picked, rng.permutation(rest)[: count - len(picked)]])


def spread(vectors: np.ndarray, count: int) -> np.ndarray:
    """Takes the image farthest from all taken so far, again and again: k-centre greedy (Sener & Savarese, 2018).

    Args:
      vectors: float32 [N, F] of unit length.
      count: At most N.

    Returns:
      Rows, int64 [count]; the first is the one nearest to the mean.
    """
    mean = np.add.reduce([block.sum(axis=0) for _, block in neighbors.split(vectors, _BLOCK)]) / len(vectors)
    chosen = [int(np.argmax(_similarities(vectors, mean)))]
    nearest = np.full(len(vectors), -np.inf, np.float32)
    while len(chosen) < count:
        np.maximum(nearest, _similarities(vectors, vectors[chosen[-1]]), out=nearest)
        nearest[chosen[-1]] = np.inf
        chosen.append(int(np.argmin(nearest)))
    return np.array(chosen, np.int64)


def _similarities(vectors: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return np.concatenate([block @ vector for _, block in neighbors.split(vectors, _BLOCK)])


METHODS = {"typical": typical, "spread": spread}

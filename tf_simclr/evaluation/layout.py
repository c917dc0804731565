"""Arranges representations: places in the plane, clusters and nearest neighbours."""

import warnings
from typing import NamedTuple

import numpy as np

NUM_NEIGHBORS = 10
# t-SNE's own default is 1,000; the map of 2,000 images looks the same after half of them.
_TSNE_ITERATIONS = 500
_PERPLEXITY = 30
# With fewer images t-SNE has no neighbourhoods to keep.
_LEAST_FOR_TSNE = 5
# More are computed at once only where a map has tens of thousands of images.
_WORKING_MEMORY_MIB = 64


class Layout(NamedTuple):
    """Where N images are, one row for each.

    Attributes:
      tsne: Their places by t-SNE, float32 [N, 2].
      pca: The two first principal components, float32 [N, 2].
      clusters: The numbers of their k-means clusters, int32 [N].
      neighbors: The rows of their nearest neighbours, the nearest first, without themselves: int32 [N, K], where K is
        10, or N - 1 for fewer images.
      distances: The cosine distances of those, float32 [N, K] in [0, 2].
    """

    tsne: np.ndarray
    pca: np.ndarray
    clusters: np.ndarray
    neighbors: np.ndarray
    distances: np.ndarray


def lay_out(representations: np.ndarray, num_clusters: int) -> Layout:
    """Arranges representations by their directions: their lengths count for nothing, as in the kNN evaluation.

    The same representations give the same layout, on however many cores.

    Args:
      representations: float [N, F], N at least 1.
      num_clusters: How many clusters to make; as many as there are images, if there are fewer.
    """
    # Importing these takes a second, which an evaluation that finds its map made does not spend.
    import sklearn
    import threadpoolctl
    from sklearn.cluster import KMeans
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    points = normalize(representations.astype(np.float32))
    count = len(points)
    # Threads add up in any order, and t-SNE turns a difference in the last digit into another map.
    with threadpoolctl.threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A collapsed encoder has fewer distinct points than clusters.
        pca = _principal_components(points)
        tsne = _tsne(points) if count >= _LEAST_FOR_TSNE and pca.any() else pca
        clusters = KMeans(min(num_clusters, count), n_init=4, random_state=0).fit(points).labels_
        neighbors, distances = np.zeros([2, count, 0])
        if count > 1:
            search = NearestNeighbors(n_neighbors=min(NUM_NEIGHBORS, count - 1), metric="cosine", algorithm="brute")
            with sklearn.config_context(working_memory=_WORKING_MEMORY_MIB):
                distances, neighbors = search.fit(points).kneighbors()
    return Layout(
        tsne.astype(np.float32),
        pca.astype(np.float32),
        clusters.astype(np.int32),
        neighbors.astype(np.int32),
        np.maximum(distances, 0).astype(np.float32),
    )


def _principal_components(points: np.ndarray) -> np.ndarray:
    """The two first ones, [N, 2]; what does not vary is 0."""
    from sklearn.decomposition import PCA

    if not np.ptp(points, axis=0).any():
        return np.zeros([len(points), 2])
    found = PCA(min(2, *points.shape), random_state=0).fit_transform(points)
    return np.pad(found, [(0, 0), (0, 2 - found.shape[1])])


def _tsne(points: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(points) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", max_iter=_TSNE_ITERATIONS, random_state=0)
    return tsne.fit_transform(points)

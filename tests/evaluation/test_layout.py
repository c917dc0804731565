"""The arrangement of representations, against the plain formulas."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.pairwise import cosine_distances

from tf_simclr.evaluation.layout import lay_out

CLASSES = np.arange(60) % 3


@pytest.fixture(scope="module")
def groups():
    """Three groups of directions, each at lengths that differ by far: float32 [60, 8]."""
    rng = np.random.default_rng(0)
    directions = np.eye(3, 8)[CLASSES] + 0.05 * rng.normal(size=[60, 8])
    return (directions * rng.uniform(0.1, 50, [60, 1])).astype(np.float32)


def test_neighbours_clusters_and_components_are_those_of_the_directions(groups):
    found = lay_out(groups, 3)
    distances = cosine_distances(groups.astype(np.float64))
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(found.neighbors, np.argsort(distances, axis=1)[:, :10])
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :10], atol=1e-5)
    assert adjusted_rand_score(CLASSES, found.clusters) == 1
    unit = groups / np.linalg.norm(groups, axis=1, keepdims=True)
    left, values, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    expected = left[:, :2] * values[:2]
    np.testing.assert_allclose(np.abs(found.pca), np.abs(expected), atol=1e-4)
    centres = np.array([found.tsne[one == CLASSES].mean(axis=0) for one in range(3)])
    nearest = np.argmin(np.linalg.norm(found.tsne[:, None] - centres, axis=2), axis=1)
    np.testing.assert_array_equal(nearest, CLASSES)
    assert [part.dtype.name for part in found] == ["float32", "float32", "int32", "int32", "float32"]


def test_the_same_representations_give_the_same_map(groups):
    for first, again in zip(lay_out(groups, 3), lay_out(groups.copy(), 3), strict=True):
        np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    "representations",
    [np.ones([30, 4]), np.zeros([30, 4]), np.ones([1, 4]), np.eye(2), np.eye(4, 6), np.arange(1, 31)[:, None] * 1.0],
    ids=["collapsed", "zeros", "one image", "two images", "four images", "one dimension"],
)
def test_what_cannot_be_arranged_still_has_places(representations):
    count = len(representations)
    found = lay_out(representations, 5)
    assert found.tsne.shape == found.pca.shape == (count, 2) and found.clusters.shape == (count,)
    assert found.neighbors.shape == found.distances.shape == (count, min(10, count - 1))
    assert all(np.isfinite(part).all() for part in found)
    assert all(row not in neighbors for row, neighbors in enumerate(found.neighbors))

"""The numbers about representations, against transcriptions of their definitions and values that are known."""

import itertools
import math

import numpy as np
import pytest
from scipy import special, stats

from tf_simclr.metrics import representation
from tf_simclr.metrics.representation import NUM_BINS, compare


@pytest.fixture(params=[2, 3], ids=lambda num_views: f"{num_views} views")
def features(request):
    """Views that resemble one another: float32 [V, 7, 5]."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=[1, 7, 5]) + 0.7 * rng.normal(size=[request.param, 7, 5])).astype(np.float32)


def pairs_of(features):
    """The pairs of views, as unit vectors in float64: those of one image, those of two."""
    points = [(image, v / np.linalg.norm(v)) for view in features.astype(np.float64) for image, v in enumerate(view)]
    pairs = list(itertools.combinations(points, 2))
    return [[(a, b) for (i, a), (j, b) in pairs if (i == j) is same] for same in (True, False)]


def test_alignment_and_uniformity_are_their_definitions(features):
    positive, negative = pairs_of(features)
    found = compare(features)
    assert representation.alignment(found) == pytest.approx(np.mean([np.sum((a - b) ** 2) for a, b in positive]))
    potentials = [math.exp(-2 * np.sum((a - b) ** 2)) for a, b in negative]
    assert representation.uniformity(found) == pytest.approx(math.log(np.mean(potentials)))
    np.testing.assert_allclose(sorted(found.positive), sorted(a @ b for a, b in positive))
    np.testing.assert_allclose(sorted(found.negative), sorted(a @ b for a, b in negative))


def test_uniformity_of_the_uniform_distribution_on_the_sphere():
    """E exp(2 * 2 cos) - 4, a Bessel function of the first kind: Wang and Isola, appendix A."""
    dimensions = 8
    points = np.random.default_rng(0).normal(size=[2, 600, dimensions])
    order = dimensions / 2 - 1
    expected = math.log(special.gamma(order + 1) * (2 / 4) ** order * special.iv(order, 4)) - 4
    assert representation.uniformity(compare(points)) == pytest.approx(expected, abs=0.02)


def test_contrastive_accuracy_is_that_of_random_batches(features):
    """The mean over many draws of negatives, in place of its expectation."""
    num_views, num_images, _ = features.shape
    rows = features.reshape(-1, features.shape[-1]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    image = np.tile(np.arange(num_images), num_views)
    rng = np.random.default_rng(0)
    hits = []
    for anchor in range(len(rows)):
        cosines = rows @ rows[anchor]
        best = max(cosines[(image == image[anchor]) & (np.arange(len(rows)) != anchor)])
        drawn = rng.choice(cosines[image != image[anchor]], [4000, 4])
        hits.append(np.mean(best > drawn.max(axis=1)))
    found = representation.contrastive_accuracy(compare(features), num_negatives=4)
    assert found == pytest.approx(np.mean(hits), abs=0.01)
    assert 0.2 < found < 0.98


def test_ranks_of_known_spectra():
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=[40, 6]))[0] for _ in range(2))
    values = np.array([8.0, 4.0, 2.0, 1.0, 1.0, 0.0])
    matrix = (left * values) @ right.T
    shares = values[:5] / values.sum()
    expected = math.exp(-sum(shares * np.log(shares)))
    for shape in ([40, 40], [2, 20, 40]):
        assert representation.rankme(matrix.reshape(shape)) == pytest.approx(expected, rel=1e-5)
    assert representation.rankme(matrix[:, :5]) == pytest.approx(
        math.exp(stats.entropy(np.linalg.svd(matrix[:, :5], compute_uv=False)))
    )
    centered = matrix - matrix.mean(axis=0)
    eigenvalues = np.maximum(np.linalg.eigvalsh(np.cov(centered.T)), 0)
    assert representation.effective_rank(matrix) == pytest.approx(math.exp(stats.entropy(eigenvalues)))
    # A mean does not count as a direction; the same features for all have one direction.
    assert representation.effective_rank(matrix + 100) == pytest.approx(representation.effective_rank(matrix), rel=1e-5)
    assert representation.effective_rank(np.ones([2, 9, 4])) == 1.0
    assert representation.rankme(np.zeros([2, 9, 4])) == 1.0


def test_spread_is_1_on_the_sphere_and_0_at_a_point():
    points = np.random.default_rng(0).normal(size=[2, 4000, 16])
    assert representation.spread(points) == pytest.approx(1.0, abs=0.01)
    assert representation.spread(points + 1e6) == pytest.approx(0.0, abs=1e-5)


def test_dead_dimensions_are_counted_whatever_the_scale():
    points = np.random.default_rng(0).normal(size=[2, 50, 6])
    points[..., 1] = 0.0
    points[..., 4] = 1.0 + 1e-3 * points[..., 4]
    for scale in (1e-6, 1.0, 1e6):
        assert representation.dead_dimensions(scale * points) == 2
    assert representation.dead_dimensions(np.zeros([2, 3, 6])) == 6


def test_colours_alone_are_recognised():
    """Features that are the colours, and features that have nothing to do with them."""
    rng = np.random.default_rng(0)
    tints = rng.random([1, 60, 1, 1, 3])
    views = np.clip(tints + 0.02 * rng.normal(size=[2, 60, 8, 8, 3]), 0, 1).astype(np.float32)
    of_colors = compare(representation.colors(views))
    assert representation.contrastive_accuracy(of_colors, 118) > 0.2  # 0.01 by chance
    assert representation.correlation(compare(np.broadcast_to(tints[..., 0, 0, :] - 0.5, [2, 60, 3])), of_colors) > 0.5
    noise = compare(rng.normal(size=[2, 60, 16]))
    assert abs(representation.correlation(noise, of_colors)) < 0.1
    expected = stats.spearmanr(noise.negative, of_colors.negative).statistic
    assert representation.correlation(noise, of_colors) == pytest.approx(expected)
    assert representation.correlation(compare(np.ones([2, 60, 4])), of_colors) == 0.0
    assert np.all(representation.colors(np.full([2, 3, 4, 4, 3], 0.5)) == 0)


def test_a_line_has_every_number(features):
    views = np.random.default_rng(0).random([*features.shape[:2], 4, 4, 3])
    line = representation.measure(features, features[..., :3], compare(representation.colors(views)), 10)
    num_views, num_images, _ = features.shape
    positives = num_images * math.comb(num_views, 2)
    assert sum(line["positive_similarity_histogram"]) == positives
    assert sum(line["negative_similarity_histogram"]) == math.comb(num_views * num_images, 2) - positives
    assert len(line["negative_similarity_histogram"]) == NUM_BINS == len(representation.BIN_CENTERS)
    assert line["representation_dimensions"] == 5 and line["projection_dimensions"] == 3
    assert line["positive_similarity"] == pytest.approx(1 - line["alignment"] / 2)
    assert line["contrastive_candidates"] == 10 * num_views - 1
    accuracy = representation.contrastive_accuracy(compare(features[..., :3]), 9 * num_views)
    assert line["contrastive_top_1_accuracy"] == accuracy
    assert line["projection_rankme"] == representation.rankme(features[..., :3])
    assert line["representation_effective_rank"] == representation.effective_rank(features)

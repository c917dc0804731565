"""The regression in blocks against scikit-learn's on a standardised copy."""

import numpy as np
import pytest
from clusters import make_clusters
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tf_simclr.evaluation import regression
from tf_simclr.evaluation.regression import Objective, fit_path

GRID = (1e-3, 1e-1, 1.0)


def in_blocks(monkeypatch):
    """Several blocks of unequal length, standardised in every evaluation, in three threads."""
    monkeypatch.setattr(regression, "_BLOCK_ELEMENTS", 350)
    monkeypatch.setattr(regression, "_KEPT_ELEMENTS", 0)
    monkeypatch.setattr(regression, "_FEW_ELEMENTS", 0)
    monkeypatch.setattr("os.cpu_count", lambda: 3)


def examples(num_classes, tmp_path):
    """A memory map of features, one of them constant, with labels and the rows to fit: all but every fifth."""
    clusters = make_clusters(400, num_classes, 6, noise=2.0, seed=1)
    features = np.concatenate([clusters.representations, np.full([400, 1], 0.1, np.float32)], axis=1)
    path = tmp_path / "features.npy"
    np.save(path, features)
    rows = np.flatnonzero(np.arange(400) % 5)
    return np.load(path, mmap_mode="r"), clusters.labels, rows


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("num_classes", [2, 4])
def test_a_path_of_penalties_is_scikit_learns(num_classes, blocks, tmp_path, monkeypatch):
    if blocks:
        in_blocks(monkeypatch)
    features, labels, rows = examples(num_classes, tmp_path)
    standardized = StandardScaler().fit(features[rows]).transform(features.astype(float))
    oracle = LogisticRegression(max_iter=1000, tol=1e-9)
    targets = labels if num_classes > 2 else labels[:, None] == 1
    path = fit_path(Objective(features, targets, rows, num_classes if num_classes > 2 else 1), GRID, 100)
    for found, regularization_c in zip(path, GRID, strict=True):
        oracle.set_params(C=regularization_c).fit(standardized[rows], labels[rows])
        logits = features @ found.weights + found.bias
        expected = oracle.decision_function(standardized)
        np.testing.assert_allclose(logits[:, 0] if num_classes == 2 else logits, expected, atol=2e-3)
        assert found.is_converged and found.regularization_c == regularization_c


def test_several_labels_are_one_binary_regression_each(tmp_path, monkeypatch):
    in_blocks(monkeypatch)
    features, labels, rows = examples(4, tmp_path)
    targets = np.stack([labels == 0, labels >= 2, (labels + np.arange(400)) % 3 == 0], axis=1)
    (found,) = fit_path(Objective(features, targets, rows, 3), [0.05], 100)
    standardized = StandardScaler().fit(features[rows]).transform(features.astype(float))
    for column, of_class in enumerate(targets.T):
        oracle = LogisticRegression(C=0.05, tol=1e-9).fit(standardized[rows], of_class[rows])
        logits = features @ found.weights[:, column] + found.bias[column]
        np.testing.assert_allclose(logits, oracle.decision_function(standardized), atol=2e-3)


def test_correlated_features_take_few_evaluations():
    """Such as the pixels of images, whose moments range over orders of magnitude."""
    clusters = make_clusters(400, 4, 30, noise=3.0, seed=1)
    mixed = clusters.representations @ np.tril(np.ones([30, 30], np.float32))
    evaluations = []

    class Counted(Objective):
        def __call__(self, flat, regularization_c):
            evaluations.append(regularization_c)
            return super().__call__(flat, regularization_c)

    (found,) = fit_path(Counted(mixed, clusters.labels, np.arange(400), 4), [0.1], 100)
    assert found.is_converged and len(evaluations) < 25
    standardized = StandardScaler().fit_transform(mixed.astype(float))
    oracle = LogisticRegression(C=0.1, max_iter=5000, tol=1e-9).fit(standardized, clusters.labels)
    assert oracle.n_iter_[0] > 2 * len(evaluations)  # scikit-learn descends along the features themselves.
    np.testing.assert_allclose(mixed @ found.weights + found.bias, oracle.decision_function(standardized), atol=2e-3)


@pytest.mark.parametrize("num_classes", [2, 10])
@pytest.mark.parametrize("regularization_c", [1.0, 5e5])
def test_features_of_few_dimensions_are_fitted_with_any_penalty(num_classes, regularization_c):
    """Such as those of a collapsed encoder: nearly all of their moments are zero, but for rounding."""
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=[3000, 3]).astype(np.float32)
    features = np.maximum(hidden @ generator.normal(size=[3, 512]).astype(np.float32), 0)
    labels = np.argmax(hidden @ generator.normal(size=[3, num_classes]), axis=1)
    targets = labels if num_classes > 2 else labels[:, None] == 1
    objective = Objective(features, targets, np.arange(3000), num_classes if num_classes > 2 else 1)
    (found,) = fit_path(objective, [regularization_c], 30)
    logits = features @ found.weights + found.bias
    predicted = np.argmax(logits, axis=1) if num_classes > 2 else logits[:, 0] > 0
    assert np.mean(predicted == labels) > 0.9


def test_many_features_are_fitted_as_they_are():
    """More than examples: the products of every two would take more time and memory than all the rest."""
    clusters = make_clusters(40, 4, 60, noise=1.0, seed=1)
    objective = Objective(clusters.representations, clusters.labels, np.arange(40), 4)
    assert objective.curvature(1.0) is None
    (found,) = fit_path(objective, [0.1], 100)
    standardized = StandardScaler().fit_transform(clusters.representations.astype(float))
    oracle = LogisticRegression(C=0.1, max_iter=1000, tol=1e-9).fit(standardized, clusters.labels)
    logits = clusters.representations @ found.weights + found.bias
    np.testing.assert_allclose(logits, oracle.decision_function(standardized), atol=5e-3)


@pytest.mark.parametrize("num_labels", [1, 3])
def test_the_gradient_is_that_of_the_objective(num_labels, tmp_path, monkeypatch):
    in_blocks(monkeypatch)
    features, labels, rows = examples(3, tmp_path)
    targets = labels if num_labels == 1 else labels[:, None] <= np.arange(3)
    objective = Objective(features, targets, rows, 3)
    generator = np.random.default_rng(0)
    at, direction = generator.normal(size=[2, 24])
    value, gradient = objective(at, 0.02)
    differences = [objective(at + step * direction, 0.02)[0] for step in (-1e-2, 1e-2)]
    assert np.diff(differences)[0] / 2e-2 == pytest.approx(gradient @ direction, rel=1e-3)
    standardized = (features[rows] - features[rows].mean(0, dtype=float)) / np.maximum(features[rows].std(0), 1e-6)
    logits = standardized @ at.reshape(3, 8)[:, :-1].T + at.reshape(3, 8)[:, -1]
    if num_labels == 1:
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(rows)), labels[rows]]
    else:
        losses = (np.log1p(np.exp(logits)) - logits * targets[rows]).sum(1)
    penalty = np.square(at.reshape(3, 8)[:, :-1]).sum() / (2 * 0.02 * len(rows))
    assert value == pytest.approx(losses.mean() + penalty, rel=1e-5)


def test_a_fit_that_is_cut_short_says_so():
    clusters = make_clusters(200, 3, 6, noise=2.0, seed=1)
    objective = Objective(clusters.representations, clusters.labels, np.arange(200), 3)
    (found,) = fit_path(objective, [1.0], 2)
    assert not found.is_converged
    assert 0 < objective.seconds() < 10

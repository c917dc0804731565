"""The linear protocol against scikit-learn, and what it may not learn from."""

import dataclasses

import numpy as np
import pytest
from clusters import make_clusters
from sklearn.linear_model import LogisticRegression

from tf_simclr.evaluation import KNN, Features, Linear
from tf_simclr.evaluation.protocols.linear import fit_linear
from tf_simclr.metrics.classification import top_k_accuracy


def fit(features, seed=0):
    """The probe that the protocol judges by."""
    protocol = Linear(seed)
    return fit_linear(
        features.representations,
        features.labels,
        num_classes=features.num_classes,
        seed=protocol.seed,
        grid=protocol.regularization_grid,
        max_iterations=protocol.max_iterations,
    )


@pytest.mark.parametrize("num_classes", [2, 6])
def test_separates_what_is_separable(num_classes):
    train = make_clusters(600, num_classes, 12, noise=0.1, seed=1)
    test = make_clusters(200, num_classes, 12, noise=0.1, seed=2)
    judged = Linear(seed=3)(train, test)
    assert judged.metrics["top_1_accuracy"] == 1.0
    np.testing.assert_array_equal(judged.predictions, test.labels)
    assert judged.predictions.dtype == np.int64
    assert KNN()(train, test).metrics["k"] == 200
    assert ("top_5_accuracy" in judged.metrics) == (num_classes > 5)
    settings = {name: value for name, value in judged.metrics.items() if "accuracy" not in name}
    assert settings == {
        "regularization_c": fit(train, seed=3).regularization_c,
        "regularization_candidates": 5,
        "held_out_fraction": 0.1,
        "max_iterations": 100,
        "seed": 3,
    }


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_probe_is_scikit_learns_regression_on_standardised_features(num_classes):
    train = make_clusters(400, num_classes, 5, noise=2.0, seed=1)
    features, labels = train.representations, train.labels
    probe = fit(train)
    mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    oracle = LogisticRegression(C=probe.regularization_c, tol=1e-8, max_iter=1000)
    oracle.fit((features - mean) / deviation, labels)
    scores = probe.scores(features)
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, oracle.predict_proba((features - mean) / deviation), atol=5e-3)


def test_regularisation_is_chosen_on_examples_that_were_not_fitted():
    # More features than examples: the weakest penalty fits the labels perfectly and generalises worse.
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    features = generator.normal(size=[300, 600]).astype(np.float32)
    features[:, :60] += 0.25 * (2 * labels[:, None] - 1)
    weakest = LogisticRegression(C=1.0, max_iter=1000).fit(features, labels)
    assert weakest.score(features, labels) == 1.0  # Chosen on what was fitted, C would be 1.
    assert fit(Features(features, labels, 2)).regularization_c < 1.0


def test_test_examples_do_not_influence_the_choice():
    train = make_clusters(300, 3, 8, noise=3.0, seed=1)
    tests = [make_clusters(50, 3, 8, noise=noise, seed=2) for noise in (0.01, 3.0, 100.0)]
    assert len({Linear()(train, test).metrics["regularization_c"] for test in tests}) == 1


def test_a_class_without_examples_is_never_predicted():
    clusters = make_clusters(60, 2, 4, noise=0.5, seed=1)
    labels = np.where(clusters.labels == 0, 1, 4)  # Classes 0, 2 and 3 of five have no example.
    features = Features(clusters.representations, labels, 5)
    scores = fit(features).scores(features.representations)
    assert scores.shape == (60, 5)
    assert set(np.argmax(scores, axis=1)) == set(Linear()(features, features).predictions) == {1, 4}
    assert top_k_accuracy(scores, labels, 2) == 1.0


def test_labels_that_allow_no_evaluation():
    features = make_clusters(20, 20, 4, noise=1.0, seed=1)
    for labels, message in ((np.zeros(20, np.int64), "two classes"), (np.arange(20), "two examples")):
        train = dataclasses.replace(features, labels=labels)
        with pytest.raises(ValueError, match=message):
            Linear()(train, features)

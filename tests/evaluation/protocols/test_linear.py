"""The linear protocol against scikit-learn, and what it may not learn from."""

import dataclasses

import numpy as np
import pytest
from clusters import make_clusters
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tf_simclr.evaluation import KNN, PROTOCOLS, Features, Linear
from tf_simclr.evaluation.probe import LinearProbe
from tf_simclr.evaluation.protocols.linear import Linear45, _held_out_masks, _Task, fit_linear
from tf_simclr.evaluation.regression import fit_path
from tf_simclr.evaluation.verdict import judge
from tf_simclr.metrics.classification import top_k_accuracy
from tf_simclr.metrics.precision import mean_average_precision
from tf_simclr.settings import RunConfig, override


def fit(features, seed=0):
    """The probe that the protocol judges by."""
    protocol = Linear(seed)
    probe, _ = fit_linear(
        features.representations,
        features.labels,
        num_classes=features.num_classes,
        seed=protocol.seed,
        grid=protocol.regularization_grid,
        max_iterations=protocol.max_iterations,
    )
    return probe


@pytest.mark.parametrize("num_classes", [2, 6])
def test_separates_what_is_separable(num_classes):
    train = make_clusters(600, num_classes, 12, noise=0.1, seed=1)
    test = make_clusters(200, num_classes, 12, noise=0.1, seed=2)
    judged = Linear(seed=3)(train, test.representations)
    np.testing.assert_array_equal(np.argmax(judged.probabilities, axis=1), test.labels)
    assert KNN()(train, test.representations).settings["k"] == 200
    assert np.mean(np.max(judged.probabilities, axis=1)) > 0.99
    assert judged.chosen == {
        "regularization_c": judged.probe.regularization_c,
        "regularization_at_end": judged.probe.regularization_c in (1e-4, 1.0),
        "temperature": judged.probe.temperature,
        "converged": True,
    }
    assert judged.settings == {
        "regularization_candidates": 5,
        "regularization_least_c": 1e-4,
        "regularization_most_c": 1.0,
        "held_out_fraction": 0.1,
        "held_out_parts": 10,
        "max_iterations": 200,
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
    assert len({Linear()(train, test.representations).chosen["regularization_c"] for test in tests}) == 1


def test_a_class_without_examples_is_never_predicted():
    clusters = make_clusters(60, 2, 4, noise=0.5, seed=1)
    labels = np.where(clusters.labels == 0, 1, 4)  # Classes 0, 2 and 3 of five have no example.
    features = Features(clusters.representations, labels, 5)
    scores = fit(features).scores(features.representations)
    assert scores.shape == (60, 5)
    probabilities = Linear()(features, features.representations).probabilities
    assert set(np.argmax(scores, axis=1)) == set(np.argmax(probabilities, axis=1)) == {1, 4}
    assert not probabilities[:, [0, 2, 3]].any()
    assert top_k_accuracy(scores, labels, 2) == 1.0


@pytest.mark.parametrize("seed", [0, 1])
def test_few_labels_choose_the_best_regularisation(seed):
    """A tenth of 140 examples are 14: judged by their accuracy, a penalty wins that loses seven and nine points."""
    train = make_clusters(140, 7, 30, noise=3.0, seed=seed + 1)
    test = make_clusters(3000, 7, 30, noise=3.0, seed=1000)
    task = _Task(train.representations, train.labels, 7)
    accuracies = [
        top_k_accuracy(task.probe(found).scores(test.representations), test.labels)
        for found in fit_path(task.objective(np.arange(140)), Linear.regularization_grid, 100)
    ]
    assert accuracies[2] < max(accuracies) - 0.05  # The one with the best accuracy on the first 14 examples.
    judged = Linear(seed)(train, test.representations)
    assert top_k_accuracy(judged.probabilities, test.labels) > max(accuracies) - 0.01


def expected_calibration_error(logits, labels):
    """Guo et al. (2017), section 2: the mean distance between confidence and accuracy in ten bins of confidence."""
    probabilities = softmax(logits, axis=1)
    confidence, is_right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((10 * confidence).astype(int), 9)
    gaps = [abs(confidence[bins == i].sum() - is_right[bins == i].sum()) for i in range(10)]
    return sum(gaps) / len(labels)


def test_the_confidence_of_the_classifier_is_its_accuracy():
    train = make_clusters(600, 4, 100, noise=6.0, seed=1)
    test = make_clusters(3000, 4, 100, noise=6.0, seed=2)
    judged = Linear()(train, test.representations)
    logits = judged.probe.scores(test.representations)
    calibrated = judged.probe.to_layer()(test.representations).numpy()
    np.testing.assert_allclose(calibrated, logits / judged.probe.temperature, rtol=1e-3, atol=1e-4)
    assert expected_calibration_error(logits, test.labels) > 0.1
    assert expected_calibration_error(calibrated, test.labels) < 0.04
    found = judge(judged, test.labels).metrics
    assert found["mean_confidence"] == pytest.approx(found["top_1_accuracy"], abs=0.04)
    np.testing.assert_allclose(judged.probabilities, softmax(calibrated, axis=1), atol=1e-4)


def test_a_probe_is_kept_as_it_is(tmp_path):
    clusters = make_clusters(60, 2, 4, noise=0.5, seed=1)
    probe = fit(Features(clusters.representations, 3 * clusters.labels, 5))
    for names in (None, ("a", "b\udcff", "", "d", "e")):  # The second one is not UTF-8 in the name of its folder.
        probe = dataclasses.replace(probe, class_names=names)
        probe.save(tmp_path / "probe.npz")
        loaded = LinearProbe.load(tmp_path / "probe.npz")
        assert loaded.class_names == names and loaded.digest == probe.digest
        assert (loaded.regularization_c, loaded.temperature) == (probe.regularization_c, probe.temperature)
        np.testing.assert_array_equal(loaded.scores(clusters.representations), probe.scores(clusters.representations))
    probabilities = softmax(loaded.to_layer()(clusters.representations), axis=1)
    assert not probabilities[:, [1, 2, 4]].any() and np.isfinite(loaded.to_layer().get_weights()[1]).all()
    assert dataclasses.replace(probe, temperature=2 * probe.temperature).digest != probe.digest


def test_equal_accuracies_on_a_large_held_out_part_choose_the_more_likely_penalty():
    train = make_clusters(10_000, 4, 6, noise=0.05, seed=1)
    probe = fit(train)
    assert len(_held_out_masks(train.labels, seed=0)) == 1
    assert probe.regularization_c > Linear.regularization_grid[0]  # Every penalty but the strongest separates them.


def test_the_held_out_parts_are_disjoint_and_as_many_as_needed():
    labels = np.repeat([0, 1, 2, 3], [1, 2, 14, 123])
    parts = _held_out_masks(labels, seed=0)
    together = np.sum(parts, axis=0)
    assert together.max() == 1 and len(parts) == 10  # 1 + 10 and, of the class of 123, 12 in each part
    assert [np.sum(together[labels == label]) for label in range(4)] == [0, 2, 10, 120]
    for part in parts:  # A class is never held out whole.
        assert set(labels[~part]) == {0, 1, 2, 3}
    assert len(_held_out_masks(np.arange(3000) % 3, seed=0)) == 4  # 300 each, until there are 1,000
    (part,) = _held_out_masks(np.arange(10_000) % 4, seed=0)
    assert part.sum() == 1000


def test_labels_that_allow_no_evaluation():
    features = make_clusters(20, 20, 4, noise=1.0, seed=1)
    for labels, message in ((np.zeros(20, np.int64), "two classes"), (np.arange(20), "two examples")):
        train = dataclasses.replace(features, labels=labels)
        with pytest.raises(ValueError, match=message):
            Linear()(train, features.representations)


def test_the_papers_grid_has_45_penalties():
    protocol = PROTOCOLS["linear_45"](override(RunConfig(), {"seed": 3}))
    grid = protocol.regularization_grid
    np.testing.assert_allclose(1 / (2 * np.array(grid[::11])), [1e5, 10**2.25, 10**-0.5, 10**-3.25, 1e-6])
    assert protocol == Linear45(seed=3) and len(grid) == 45 and list(grid) == sorted(grid)


def test_the_papers_penalty_is_a_factor_of_the_squared_weights_beside_the_summed_loss():
    """The objective of google-research's linear_eval, for features that are standardised already."""
    train = make_clusters(300, 3, 4, noise=2.0, seed=1)
    features = StandardScaler().fit_transform(train.representations)
    task = _Task(features, train.labels, 3)
    place = 20
    l2 = np.logspace(5, -6, 45)[place]

    def objective(flat):
        weights, bias = flat[:12].reshape(4, 3), flat[12:]
        losses = -log_softmax(features @ weights + bias, axis=1)[np.arange(300), train.labels]
        return losses.sum() + l2 * np.square(weights).sum()

    best = minimize(objective, np.zeros(15), tol=1e-6).x
    (found,) = fit_path(task.objective(np.arange(300)), [Linear45().regularization_grid[place]], 100)
    np.testing.assert_allclose(found.weights, best[:12].reshape(4, 3), atol=2e-3)


def test_a_penalty_at_the_end_of_the_grid_is_reported():
    train = make_clusters(300, 3, 8, noise=2.0, seed=1)
    noise = dataclasses.replace(train, labels=np.random.default_rng(0).integers(0, 3, 300))
    for examples, grid, is_end in ((noise, (0.1, 1.0, 10.0), True), (train, Linear.regularization_grid, False)):
        judged = Linear(regularization_grid=grid)(examples, train.representations)
        assert judged.settings["regularization_candidates"] == len(grid)
        least, most = (judged.settings[f"regularization_{name}_c"] for name in ("least", "most"))
        assert (least, most) == (grid[0], grid[-1])
        assert judged.chosen["regularization_at_end"] == (judged.chosen["regularization_c"] in (least, most)) == is_end


def several_labels(num_examples, seed):
    """Images of one, two or no class."""
    made = make_clusters(num_examples, 4, 12, noise=1.5, seed=seed)
    labels = np.stack([made.labels == 0, made.labels >= 2, made.labels % 2 == 1], axis=1)
    return Features(made.representations, labels, 3)


def test_several_labels_get_a_regression_for_each_class():
    train, test = several_labels(500, seed=1), several_labels(300, seed=2)
    judged = Linear()(train, test.representations)
    scaler = StandardScaler().fit(train.representations)
    for column in range(3):
        oracle = LogisticRegression(C=judged.chosen["regularization_c"])
        oracle.fit(scaler.transform(train.representations), train.labels[:, column])
        expected = oracle.predict_proba(scaler.transform(test.representations))[:, 1]
        np.testing.assert_allclose(judged.probabilities[:, column], expected, atol=5e-3)
    assert judged.chosen["temperature"] == 1 and judged.settings["held_out_parts"] == 10
    verdict = judge(judged, test.labels)
    assert verdict.metrics.keys() == {f"mean_average_precision{end}" for end in ("", "_low", "_high")}
    assert verdict.metrics["mean_average_precision"] > 0.8


def test_several_labels_choose_the_penalty_of_the_best_precision():
    train = several_labels(10_000, seed=1)
    held_out = _held_out_masks(train.labels, seed=0)[0]
    assert held_out.sum() == 1000
    task = _Task(train.representations, train.labels, 3)
    path = fit_path(task.objective(np.flatnonzero(~held_out)), Linear.regularization_grid, 100)
    precisions = [
        mean_average_precision(train.representations[held_out] @ found.weights + found.bias, train.labels[held_out])
        for found in path
    ]
    chosen = Linear.regularization_grid.index(Linear()(train, train.representations[:5]).chosen["regularization_c"])
    assert precisions[chosen] == pytest.approx(max(precisions), abs=1e-5)


def test_a_long_evaluation_says_how_long_it_takes(caplog, monkeypatch):
    train = make_clusters(200, 3, 8, noise=2.0, seed=1)
    with caplog.at_level("INFO", logger="absl"):
        Linear()(train, train.representations)
        assert "will take" not in caplog.text
        monkeypatch.setattr("tf_simclr.evaluation.regression.Objective.seconds", lambda self: 0.5)
        Linear()(train, train.representations)
    # 10 parts of 5 penalties and the last fit, of 20 to 200 evaluations.
    assert "51 fits of 180 examples with 8 features will take 08:30 to 1:25:00" in caplog.text


def test_given_validation_images_choose_the_penalty_and_are_then_learnt_from():
    """Here they want a strong penalty, which a tenth of all images would not choose."""
    train = make_clusters(60, 3, 40, noise=2.0, seed=5)
    shifted = make_clusters(30, 3, 40, noise=6.0, seed=15)
    features = np.concatenate([train.representations, shifted.representations])
    labels = np.concatenate([train.labels, shifted.labels])
    is_validation = np.arange(90) >= 60
    judged = Linear()(Features(features, labels, 3, is_validation=is_validation), features)
    grid = Linear().regularization_grid

    def logits(c, learnt, asked):
        scaler = StandardScaler().fit(features[learnt])
        oracle = LogisticRegression(C=c, max_iter=1000).fit(scaler.transform(features[learnt]), labels[learnt])
        return oracle.decision_function(scaler.transform(features[asked]))

    accuracies = [top_k_accuracy(logits(c, ~is_validation, is_validation), labels[is_validation]) for c in grid]
    assert sorted(accuracies)[-2] < max(accuracies)
    chosen = judged.chosen["regularization_c"]
    assert chosen == grid[np.argmax(accuracies)]
    assert chosen != Linear()(Features(features, labels, 3), features).chosen["regularization_c"]
    expected = softmax(logits(chosen, slice(None), slice(None)) / judged.chosen["temperature"], axis=1)
    np.testing.assert_allclose(judged.probabilities, expected, atol=5e-3)
    assert (judged.settings["held_out_parts"], judged.settings["held_out_fraction"]) == (1, pytest.approx(1 / 3))

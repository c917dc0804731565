"""The metrics of probabilities against scikit-learn and loops."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from tf_simclr.metrics.classification import rank_of_label, top_k_accuracy
from tf_simclr.metrics.probabilities import CALIBRATION_BINS, compare, measure


@pytest.fixture(scope="module")
def judged():
    """Probabilities and labels of 400 examples of 8 classes, one of which has no example."""
    generator = np.random.default_rng(0)
    labels = generator.choice(7, 400, p=np.arange(1, 8) / 28)
    logits = generator.normal(size=[400, 8])
    logits[np.arange(400), labels] += 1.5
    return softmax(1.5 * logits, axis=1), labels


def judge(probabilities, labels):
    return measure(compare(probabilities, labels), labels, probabilities.shape[1])


def test_accuracies_are_scikit_learns(judged):
    probabilities, labels = judged
    found, predicted = judge(probabilities, labels), probabilities.argmax(axis=1)
    for k in (1, 5):
        expected = top_k_accuracy_score(labels, probabilities, k=k, labels=range(8))
        assert found[f"top_{k}_accuracy"] == pytest.approx(expected, rel=1e-12)
    with pytest.warns(UserWarning, match="not in y_true"):
        expected = balanced_accuracy_score(labels, predicted)
    assert found["mean_per_class_accuracy"] == pytest.approx(expected, rel=1e-12)
    assert found["mean_confidence"] == pytest.approx(probabilities.max(axis=1).mean())
    assert "top_5_accuracy" not in judge(np.full([4, 5], 0.2), np.arange(4))


def test_the_interval_of_the_accuracy_is_the_binomial_one(judged):
    found = judge(*judged)
    exact = stats.binom.ppf([0.025, 0.975], 400, found["top_1_accuracy"]) / 400
    np.testing.assert_allclose([found["top_1_accuracy_low"], found["top_1_accuracy_high"]], exact, atol=0.006)


def test_the_calibration_error_is_that_of_a_loop(judged):
    probabilities, labels = judged
    total = 0.0
    for number in range(CALIBRATION_BINS):
        members = [
            (row.max(), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if number <= row.max() * CALIBRATION_BINS < number + 1
        ]
        if members:
            confidence, accuracy = np.mean(members, axis=0)
            total += len(members) / len(labels) * abs(confidence - accuracy)
    assert judge(probabilities, labels)["expected_calibration_error"] == pytest.approx(total, rel=1e-12)


def test_ranks_are_those_of_a_stable_sort():
    generator = np.random.default_rng(0)
    scores, labels = generator.integers(0, 3, [50, 6]).astype(float), generator.integers(0, 6, 50)
    places = np.argsort(-scores, axis=1, kind="stable")
    expected = [list(row).index(label) for row, label in zip(places, labels, strict=True)]
    assert rank_of_label(scores, labels).tolist() == expected


def test_a_classifier_that_answers_nan_is_never_right() -> None:
    scores = np.array([[np.nan] * 3, [0.1, np.nan, 0.2], [0.1, 0.2, 0.3]])
    labels = np.array([0, 1, 2])
    assert rank_of_label(scores, labels).tolist() == [2, 2, 0]
    assert top_k_accuracy(scores, labels) == 1 / 3

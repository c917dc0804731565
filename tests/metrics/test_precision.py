"""Average precision against the development kit of VOC 2007, in loops, and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tf_simclr.metrics.precision import MeanAveragePrecision, mean_average_precision
from tf_simclr.metrics.probabilities import measure_several


def devkit(scores, labels):
    """VOCevalcls.m: sort by confidence, count true and false positives, read the precision at eleven recalls."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    precisions, recalls, hits = [], [], 0
    for place, i in enumerate(order, start=1):
        hits += labels[i]
        precisions.append(hits / place)
        recalls.append(hits / sum(labels))
    total = 0
    for tenth in range(11):
        total += max((p for p, r in zip(precisions, recalls, strict=True) if r >= tenth / 10), default=0) / 11
    return total


def ranking(num_examples, num_classes, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.random([num_examples, num_classes]) < np.linspace(0.1, 0.6, num_classes)
    scores = np.round(labels + generator.normal(size=labels.shape), 1)  # With ties.
    return scores, labels


def test_is_the_development_kits():
    scores, labels = ranking(60, 5)
    expected = np.mean([devkit(scores[:, c], labels[:, c]) for c in range(5)])
    assert mean_average_precision(scores, labels) == pytest.approx(expected, rel=1e-12)


def test_a_recall_of_three_tenths_is_reached_by_three_of_ten():
    """0.1 added up three times is more than 3 / 10; the precision falls right behind the third."""
    relevant = np.array([1] * 3 + [0] * 7 + [1] * 7, bool)[:, None]
    scores = -np.arange(17.0)[:, None]
    assert mean_average_precision(scores, relevant) == pytest.approx((4 * 1 + 7 * 10 / 17) / 11, rel=1e-12)


def test_a_class_without_an_example_is_left_out():
    scores, labels = ranking(60, 3)
    labels[:, 1] = False
    expected = np.mean([devkit(scores[:, c], labels[:, c]) for c in (0, 2)])
    assert mean_average_precision(scores, labels) == pytest.approx(expected, rel=1e-12)
    assert mean_average_precision(scores, np.zeros_like(labels)) == 0


def test_a_resample_is_ranked_as_the_examples_that_it_has():
    scores, labels = ranking(40, 4)
    metric, generator = MeanAveragePrecision(scores, labels), np.random.default_rng(1)
    drawn = generator.integers(0, 40, [5, 40])
    counts = np.stack([np.bincount(rows, minlength=40) for rows in drawn]).astype(float)
    expected = [mean_average_precision(scores[np.sort(rows)], labels[np.sort(rows)]) for rows in drawn]
    np.testing.assert_allclose(metric(counts)[:, 0], expected, rtol=1e-12)


def test_is_close_to_scikit_learns_without_interpolation():
    scores, labels = ranking(2000, 3)
    assert mean_average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=0.02)


def test_examples_with_several_labels_are_measured_by_it():
    scores, labels = ranking(300, 4)
    found = measure_several(scores, labels)
    assert found.keys() == {f"mean_average_precision{end}" for end in ("", "_low", "_high")}
    assert found["mean_average_precision"] == mean_average_precision(scores, labels)
    assert found["mean_average_precision_low"] < found["mean_average_precision"] < found["mean_average_precision_high"]

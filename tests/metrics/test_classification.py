"""Metrics of classifiers."""

import numpy as np

from tf_simclr.metrics.classification import top_k_accuracy


def test_top_k_accuracy_does_not_reward_ties():
    scores = np.array([[3, 2, 1, 0], [3, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    labels = np.array([0, 1, 0, 3])
    assert top_k_accuracy(scores, labels) == 0.5
    assert top_k_accuracy(scores, labels, 2) == 0.75
    assert top_k_accuracy(scores, labels, 4) == 1.0

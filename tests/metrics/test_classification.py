"""Metrics of classifiers."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from tf_simclr.metrics import classification
from tf_simclr.metrics.classification import calibrate, top_k_accuracy


def test_top_k_accuracy_does_not_reward_ties():
    scores = np.array([[3, 2, 1, 0], [3, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    labels = np.array([0, 1, 0, 3])
    assert top_k_accuracy(scores, labels) == 0.5
    assert top_k_accuracy(scores, labels, 2) == 0.75
    assert top_k_accuracy(scores, labels, 4) == 1.0


def test_calibration_is_the_fit_of_smoothed_labels_in_blocks(monkeypatch):
    monkeypatch.setattr(classification, "_BLOCK_ROWS", 70)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 200)
    logits = (4 * generator.normal(size=[200, 4])).astype(np.float32)
    logits[np.arange(200), labels] += 3
    logits[:, 3] = -np.inf  # A class that no label names.
    targets = np.eye(3)[labels] * 200 / 203 + 1 / 203

    def log_loss(temperature):
        return -np.mean(np.sum(targets * log_softmax(logits[:, :3].astype(float) / temperature, axis=1), axis=1))

    found = minimize_scalar(log_loss, bounds=[0.1, 10], method="bounded", options={"xatol": 1e-8})
    temperature, loss = calibrate(logits, labels)
    assert temperature == pytest.approx(found.x, rel=1e-3) and loss == pytest.approx(found.fun, rel=1e-6)
    assert temperature > 1.5

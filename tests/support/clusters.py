"""Representations with known classes: points around centres."""

import numpy as np

from tf_simclr.evaluation import Features


def make_clusters(num_examples, num_classes, dim, noise, seed):
    """Points around fixed class centres, in features of different scales."""
    centers = np.random.default_rng(99).normal(size=[num_classes, dim])
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, num_examples)
    points = centers[labels] + noise * generator.normal(size=[num_examples, dim])
    return Features((points * 10.0 ** np.linspace(-2, 2, dim) + 5).astype(np.float32), labels, num_classes)

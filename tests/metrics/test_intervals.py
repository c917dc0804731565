"""Tests of `tf_simclr.metrics.intervals`."""

import numpy as np
import pytest
from scipy import stats

from tf_simclr.metrics.intervals import NUM_RESAMPLES, bootstrap


def test_interval_of_an_accuracy_is_close_to_the_binomial_one() -> None:
    hits = np.arange(2_000) % 5 > 0
    low, high = bootstrap(lambda examples: hits[examples].mean(axis=-1), len(hits))
    # The bootstrap distribution of the number of hits is binomial; NUM_RESAMPLES draws find its quantiles roughly.
    exact = stats.binom.ppf([0.025, 0.975], len(hits), 0.8) / len(hits)
    np.testing.assert_allclose([low, high], exact, atol=0.004)


def test_interval_of_any_metric_equals_a_loop() -> None:
    values = np.random.default_rng(1).normal(size=37) ** 2
    found = bootstrap(lambda examples: np.median(values[examples], axis=-1), len(values), seed=3)
    generator = np.random.default_rng(3)
    medians = [np.median(values[generator.integers(0, 37, 37)]) for _ in range(NUM_RESAMPLES)]
    np.testing.assert_allclose(found, np.quantile(medians, [0.025, 0.975]), atol=0.1)
    assert found == bootstrap(lambda examples: np.median(values[examples], axis=-1), len(values), seed=3)


@pytest.mark.parametrize("num_examples", [1, 20])
def test_interval_without_spread_is_the_value(num_examples: int) -> None:
    assert bootstrap(lambda examples: np.ones(examples.shape).mean(axis=-1), num_examples) == (1.0, 1.0)


def test_interval_covers_the_true_accuracy_in_95_of_100_test_sets() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        hits = generator.random(300) < 0.7
        low, high = bootstrap(lambda examples, hits=hits: hits[examples].mean(axis=-1), 300, seed=trial)
        covered += low <= 0.7 <= high
    assert 0.90 <= covered / 100 <= 0.99

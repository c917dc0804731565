"""Tests of `tf_simclr.metrics.intervals`."""

import numpy as np
import pytest
from scipy import stats

from tf_simclr.metrics.intervals import NUM_RESAMPLES, bootstrap


def test_interval_of_an_accuracy_is_close_to_the_binomial_one() -> None:
    hits = np.arange(2_000) % 5 > 0
    ((low, high),) = bootstrap(lambda counts: counts @ hits[:, None] / len(hits), len(hits))
    # The bootstrap distribution of the number of hits is binomial; NUM_RESAMPLES draws find its quantiles roughly.
    exact = stats.binom.ppf([0.025, 0.975], len(hits), 0.8) / len(hits)
    np.testing.assert_allclose([low, high], exact, atol=0.004)


def test_intervals_of_any_metrics_equal_a_loop() -> None:
    values = np.random.default_rng(1).normal(size=37) ** 2
    powers = np.stack([values, values**2], axis=1)

    def ratio_and_mean(counts: np.ndarray) -> np.ndarray:
        first, second = (counts @ powers).T
        return np.stack([first**2 / second, first / 37], axis=1)

    found = bootstrap(ratio_and_mean, len(values), seed=3)
    generator = np.random.default_rng(3)
    drawn = [values[generator.integers(0, 37, 37)] for _ in range(NUM_RESAMPLES)]
    ratios = [np.sum(resample) ** 2 / np.sum(resample**2) for resample in drawn]
    for interval, loop in zip(found, (ratios, list(map(np.mean, drawn))), strict=True):
        np.testing.assert_allclose(interval, np.quantile(loop, [0.025, 0.975]), rtol=1e-12)
    assert found == bootstrap(ratio_and_mean, len(values), seed=3)


@pytest.mark.parametrize("num_examples", [1, 20])
def test_interval_without_spread_is_the_value(num_examples: int) -> None:
    ones = np.ones([num_examples, 1])
    assert bootstrap(lambda counts: counts @ ones / num_examples, num_examples) == [(1.0, 1.0)]


def test_interval_covers_the_true_accuracy_in_95_of_100_test_sets() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        hits = generator.random(300) < 0.7
        ((low, high),) = bootstrap(lambda counts, hits=hits: counts @ hits[:, None] / 300, 300, seed=trial)
        covered += low <= 0.7 <= high
    assert 0.90 <= covered / 100 <= 0.99

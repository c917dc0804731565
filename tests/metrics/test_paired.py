"""Tests of `tf_simclr.metrics.paired`."""

import itertools
import math

import numpy as np
import pytest

from tf_simclr.metrics import paired


def _hits(only_a: int, only_b: int, both: int = 5, neither: int = 3) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, False, True, False], [only_a, only_b, both, neither])
    b = np.repeat([False, True, True, False], [only_a, only_b, both, neither])
    return a, b


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 7), (7, 3), (4, 4), (0, 12), (20, 41)])
def test_mcnemar_equals_the_binomial_sum(only_a: int, only_b: int) -> None:
    n, least = only_a + only_b, min(only_a, only_b)
    expected = min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n)
    assert paired.mcnemar(*_hits(only_a, only_b)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 7), (2, 9), (0, 12)])
def test_permutation_test_equals_all_exchanges(only_a: int, only_b: int) -> None:
    a, b = _hits(only_a, only_b)
    differences = (a.astype(int) - b)[a != b]
    sums = [np.dot(signs, differences) for signs in itertools.product([-1, 1], repeat=len(differences))]
    expected = np.mean(np.abs(sums) >= abs(differences.sum()))
    assert paired.permutation_test(a, b) == pytest.approx(expected, rel=1e-12)  # Few exchanges are all tried.


def test_permutation_test_agrees_with_mcnemar() -> None:
    a, b = _hits(30, 45, both=500)
    assert paired.permutation_test(a, b) == pytest.approx(paired.mcnemar(a, b), abs=2e-3)


def test_interval_of_the_difference_is_paired() -> None:
    a, b = _hits(30, 10, both=900, neither=60)
    low, high = paired.difference_interval(a, b)
    deviation = math.sqrt((0.04 - 0.02**2) / 1000)
    np.testing.assert_allclose([low, high], [0.02 - 1.96 * deviation, 0.02 + 1.96 * deviation], atol=0.002)

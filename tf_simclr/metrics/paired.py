"""Tests and intervals for two classifiers that answered the same test examples."""

import numpy as np
from scipy import stats

from tf_simclr.metrics.intervals import Interval, bootstrap

NUM_EXCHANGES = 100_000

# Exchanged predictions that are held in memory at a time.
_BATCH_ELEMENTS = 1 << 24


def mcnemar(hits_a: np.ndarray, hits_b: np.ndarray) -> float:
    """The p-value of the exact McNemar test: two-sided, on the examples that only one of the two got right.

    >>> a, b = np.array([1, 1, 1, 1, 1, 1, 0, 1]), np.array([0, 0, 0, 0, 0, 0, 1, 1])
    >>> mcnemar(a, b)
    0.125

    Args:
      hits_a: Whether the first classifier was right, bool [N].
      hits_b: The same of the second one.

    Returns:
      p in (0, 1]; 1 if the two never differ.

    Source: McNemar (1947), in the exact form of the binomial test.
    """
    only_a, only_b = int(np.sum(hits_a > hits_b)), int(np.sum(hits_b > hits_a))
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b).pvalue)


def permutation_test(hits_a: np.ndarray, hits_b: np.ndarray, *, seed: int = 0) -> float:
    """The p-value of the paper's test: how often exchanging predictions at random gives as large a difference.

    Each of 100,000 times, the predictions of every example are exchanged between the classifiers with probability 1/2.

    Args:
      hits_a: Whether the first classifier was right, bool [N].
      hits_b: The same of the second one.
      seed: Of the exchanges.

    Returns:
      p in (0, 1], two-sided.

    Source: Chen et al. (2020), appendix B.8.1.
    """
    differences = hits_a.astype(np.int64) - hits_b.astype(np.int64)
    differences = differences[differences != 0]  # Exchanging equal predictions changes nothing.
    if len(differences) < 2:  # Either way of a single difference is as large.
        return 1.0
    result = stats.permutation_test(
        (differences,),
        lambda rows, axis: rows.sum(axis=axis),
        permutation_type="samples",  # flips signs, which is what an exchange does to a difference
        vectorized=True,
        n_resamples=NUM_EXCHANGES,
        batch=max(1, _BATCH_ELEMENTS // len(differences)),
        random_state=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def difference_interval(hits_a: np.ndarray, hits_b: np.ndarray, *, seed: int = 0) -> Interval:
    """The paired bootstrap interval of the first classifier's accuracy minus the second one's.

    Args:
      hits_a: Whether the first classifier was right, bool [N].
      hits_b: The same of the second one.
      seed: Of the resampling.
    """
    differences = hits_a.astype(np.float64) - hits_b
    return bootstrap(lambda counts: counts @ differences[:, None] / len(differences), len(differences), seed=seed)[0]

"""Confidence intervals of metrics over test examples, by the bootstrap."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
NUM_RESAMPLES = 2_000

# Resampled indices that are held in memory at a time.
_BATCH_ELEMENTS = 1 << 22


class Interval(NamedTuple):
    """The two ends of a 95 % confidence interval."""

    low: float
    high: float


def bootstrap(metrics: Callable[[np.ndarray], np.ndarray], num_examples: int, *, seed: int = 0) -> list[Interval]:
    """The percentile bootstrap intervals of metrics, resampling the test examples.

    They cover the choice of the test examples, not the seeds of training: encoders trained anew differ by more.

    >>> hits = np.arange(1000) % 10 < 7
    >>> bootstrap(lambda counts: counts @ hits[:, None] / 1000, 1000)
    [Interval(low=0.671, high=0.727025)]

    Args:
      metrics: From how often each resample has drawn each example, float64 [R, N], each row of sum N, to the metrics of
        every resample, [R, K].
      num_examples: N, the number of test examples.
      seed: Of the resampling; the resamples follow from it and N alone.

    Returns:
      The K intervals; both ends are the metric itself if there is one example.
    """
    if num_examples < 2:
        return [Interval(float(value), float(value)) for value in metrics(np.ones([1, num_examples]))[0]]

    def of_resamples(examples: np.ndarray, axis: int) -> np.ndarray:
        rows = np.moveaxis(np.atleast_2d(examples), axis, -1)
        bins = rows + num_examples * np.arange(len(rows))[:, None]
        counts = np.bincount(bins.ravel(), minlength=rows.size).reshape(rows.shape).astype(np.float64)
        return np.reshape(metrics(counts).T, [-1, *np.moveaxis(examples, axis, -1).shape[:-1]])

    result = stats.bootstrap(
        (np.arange(num_examples),),
        of_resamples,
        n_resamples=NUM_RESAMPLES,
        batch=max(1, _BATCH_ELEMENTS // num_examples),
        confidence_level=LEVEL,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return [Interval(float(low), float(high)) for low, high in zip(*result.confidence_interval, strict=True)]

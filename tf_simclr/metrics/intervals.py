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


def bootstrap(metric: Callable[[np.ndarray], np.ndarray], num_examples: int, *, seed: int = 0) -> Interval:
    """The percentile bootstrap interval of a metric, resampling the test examples.

    It covers the choice of the test examples, not the seeds of training: encoders trained anew differ by more.

    >>> hits = np.arange(1000) % 10 < 7
    >>> bootstrap(lambda examples: hits[examples].mean(axis=-1), 1000)
    Interval(low=0.67, high=0.728)

    Args:
      metric: From examples, int64 [R, N], each row one resample of positions, to the metric of every row, [R].
      num_examples: N, the number of test examples.
      seed: Of the resampling.

    Returns:
      The interval; both ends are the metric itself if there is one example.
    """
    examples = np.arange(num_examples)
    if num_examples < 2:
        value = float(metric(examples[None])[0])
        return Interval(value, value)
    result = stats.bootstrap(
        (examples,),
        lambda rows, axis: metric(np.moveaxis(rows, axis, -1)),
        n_resamples=NUM_RESAMPLES,
        batch=max(1, _BATCH_ELEMENTS // num_examples),
        confidence_level=LEVEL,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(float(low), float(high))

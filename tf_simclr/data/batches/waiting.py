"""Measures how long training steps wait for their batches."""

import collections
import time
from typing import Any

import tensorflow as tf


class WaitClock:
    """Adds up the time that steps wait for data.

    `fit` fetches a batch inside its compiled step, and tf.data, or a strategy with several devices, prefetches. So the
    clock notes when every batch leaves the dataset: a step that asked for it earlier has waited.
    """

    def __init__(self) -> None:
        """Starts at zero."""
        self.seconds = 0.0
        self._asked = 0.0
        self._arrivals: collections.deque[float] = collections.deque()

    def watch(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the same dataset, watched for one pass that takes one batch per step."""

        def note(*batch: Any) -> Any:
            arrival = tf.numpy_function(lambda: self._arrivals.append(time.monotonic()), [], [])
            with tf.control_dependencies([arrival]):
                batch = tf.nest.map_structure(tf.identity, batch)
            return batch if len(batch) > 1 else batch[0]

        return dataset.map(note)

    def begin_step(self) -> None:
        """Call this right before a step, or before the first of several steps that one call makes."""
        self._asked = time.monotonic()

    def end_step(self, num_steps: int = 1) -> None:
        """Call this once the steps are done. Several steps ask in turn; the wait of the first counts for each."""
        arrivals = [self._arrivals.popleft() for _ in range(num_steps)]
        self.seconds += num_steps * max(0.0, arrivals[0] - self._asked)

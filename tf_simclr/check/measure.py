"""Measures how fast a machine does what a run needs: gathering, writing, making batches, stepping."""

import os
import pathlib
import statistics
import time
from typing import Any

import tensorflow as tf

from tf_simclr import distribute
from tf_simclr.keras import keras

_GATHERS = 10
_BLOCK_BYTES = 1 << 23
_MAX_BATCHES = 100


def gather_seconds(strategy: tf.distribute.Strategy, images_per_replica: int, num_views: int, width: int) -> float:
    """Seconds for all replicas to gather the projections, float32 [images_per_replica, num_views, width], of each.

    Call it in the scope of the strategy, on all its workers.
    """

    def chain() -> tf.Tensor:
        pairs = tf.zeros([images_per_replica, num_views, width])
        for _ in range(_GATHERS):
            pairs = distribute.gather(pairs)[:images_per_replica] + 1.0  # The next one waits for this one.
        return pairs[0, 0, 0]

    @tf.function
    def run() -> Any:
        return strategy.run(chain)

    seconds = []
    for _ in range(4):
        start = time.monotonic()
        strategy.experimental_local_results(run())[0].numpy()
        seconds.append(time.monotonic() - start)
    return statistics.median(seconds[1:]) / _GATHERS


def write_speed(folder: pathlib.Path, num_bytes: int, max_seconds: float = 2.0) -> float:
    """Bytes per second at which `num_bytes`, or as many as `max_seconds` allow, reach the disk of a folder.

    Raises:
      OSError: If they cannot be written.
    """
    block = os.urandom(min(num_bytes, _BLOCK_BYTES))
    path, written = folder / f".write_speed.{os.getpid()}", 0
    start = time.monotonic()
    try:
        with path.open("wb", buffering=0) as file:
            while written < num_bytes and time.monotonic() - start < max_seconds:
                written += file.write(block)
                os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)
    return written / (time.monotonic() - start)


def data_speed(dataset: tf.data.Dataset, batch_size: int, max_seconds: float = 5.0) -> tuple[Any, float]:
    """The first batch of a dataset, and the speed of the next ones in images per second."""
    batches = iter(dataset)
    first = next(batches)
    count, start = 0, time.monotonic()
    while count < _MAX_BATCHES and time.monotonic() - start < max_seconds:
        next(batches)
        count += 1
    return first, count * batch_size / (time.monotonic() - start)


class _StepClock(keras.callbacks.Callback):
    """Times every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._start = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.seconds.append(time.monotonic() - self._start)


def step_seconds(model: keras.Model, batch: Any, size: int) -> float:
    """Seconds of a training step on `size` images, which repeat those of the batch.

    The first step, which builds the graph, does not count. The steps leave the model useless. Call it in the scope of
    the model's strategy, on all its workers, which get the longest time among them.
    """
    images = tf.data.Dataset.from_tensor_slices(batch).repeat().batch(size, drop_remainder=True).take(1).cache()
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    clock = _StepClock()
    model.fit(images.repeat().with_options(options), steps_per_epoch=3, verbose=0, callbacks=[clock])
    return distribute.largest_of_workers(round(1e6 * min(clock.seconds[1:]))) / 1e6

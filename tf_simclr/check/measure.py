"""How fast a machine is at what a run asks of it: gathering, writing, making batches, stepping."""

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


def gather_seconds(strategy: tf.distribute.Strategy, images_per_replica: int, width: int) -> float:
    """Seconds in which all replicas get the projections of all: float32 [images_per_replica, 2, width] of each.

    Call it in the scope of the strategy; all its workers must do so.
    """

    def chain() -> tf.Tensor:
        pairs = tf.zeros([images_per_replica, 2, width])
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
    """Bytes per second at which so many bytes, or as many as the time allows, reach the disk of a folder.

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
    """The first batch of a dataset, and the images per second at which the next ones come."""
    batches = iter(dataset)
    first = next(batches)
    count, start = 0, time.monotonic()
    while count < _MAX_BATCHES and time.monotonic() - start < max_seconds:
        next(batches)
        count += 1
    return first, count * batch_size / (time.monotonic() - start)


class _StepClock(keras.callbacks.Callback):
    """Takes the time of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._start = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.seconds.append(time.monotonic() - self._start)


def step_seconds(model: keras.Model, batch: Any, size: int) -> float:
    """Seconds of a training step of so many images, which are those of the batch again and again.

    The first step, which builds the graph, does not count. The model learns: it is of no use afterwards. Call it in the
    scope of the model's strategy; all its workers must do so, and get the longest time among them.
    """
    images = tf.data.Dataset.from_tensor_slices(batch).repeat().batch(size, drop_remainder=True).take(1).cache()
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    clock = _StepClock()
    model.fit(images.repeat().with_options(options), steps_per_epoch=3, verbose=0, callbacks=[clock])
    return distribute.largest_of_workers(round(1e6 * min(clock.seconds[1:]))) / 1e6

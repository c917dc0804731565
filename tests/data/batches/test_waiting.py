"""The share of the time that training steps wait for data."""

import json
import time

import numpy as np
import pytest
import tensorflow as tf
from replicas import mirrored

from tf_simclr.data.batches.waiting import WaitClock
from tf_simclr.keras import keras
from tf_simclr.runs.cadence import Cadence
from tf_simclr.training.progress import Progress

STEPS, BATCH = 12, 2


def sleeping(seconds):
    """Function of a tensor that takes so long and returns it."""

    def sleep(value: np.ndarray) -> np.ndarray:
        time.sleep(seconds)
        return value

    return lambda value: tf.ensure_shape(tf.numpy_function(sleep, [value], value.dtype), value.shape)


def slow_batches(seconds):
    examples = tf.data.Dataset.range(STEPS * BATCH).map(lambda x: tf.cast(x, tf.float32)).batch(BATCH)
    return examples.map(sleeping(seconds)).prefetch(tf.data.AUTOTUNE)


class SlowModel(keras.Model):
    """Whose step takes so long and does nothing."""

    def __init__(self, seconds):
        super().__init__()
        self._work = sleeping(seconds)

    def train_step(self, data):
        return {"loss": tf.reduce_sum(self._work(data))}


@pytest.mark.parametrize(
    ("data_seconds", "step_seconds", "steps_per_execution", "bounds", "verdict"),
    [
        (0.1, 0.0, 1, (0.6, 1.0), "Data was"),
        (0.1, 0.0, 3, (0.6, 1.0), "Data was"),
        (0.0, 0.1, 1, (0.0, 0.05), "Compute was"),
        (0.2, 0.05, 1, (0.2, 0.9), "Data was"),
    ],
)
def test_fit_reports_the_share_of_waiting(
    tmp_path, caplog, data_seconds, step_seconds, steps_per_execution, bounds, verdict
):
    model, clock = SlowModel(step_seconds), WaitClock()
    model.compile(steps_per_execution=steps_per_execution)
    progress = Progress(
        tmp_path, start_step=0, cadence=Cadence(1, STEPS), steps_per_epoch=STEPS, global_batch_size=BATCH,
        every_seconds=0, wait_clock=clock,
    )  # fmt: skip
    with caplog.at_level("INFO", logger="absl"):
        model.fit(clock.watch(slow_batches(data_seconds)), verbose=0, callbacks=[progress])
    shares = [json.loads(line)["data_wait_share"] for line in (tmp_path / "speed.jsonl").open()]
    assert len(shares) == STEPS // steps_per_execution
    assert bounds[0] <= np.mean(shares[3 // steps_per_execution :]) <= bounds[1]
    assert f"{verdict} the bottleneck" in caplog.text


@pytest.mark.parametrize("step_seconds", [0.0, 0.1])
def test_several_replicas_get_the_same_elements_and_the_step_waits_for_the_slower_side(step_seconds):
    clock = WaitClock()
    watched = clock.watch(slow_batches(0.05))
    assert watched.cardinality() == STEPS
    assert watched.element_spec == slow_batches(0).element_spec
    iterator = iter(mirrored(2).experimental_distribute_dataset(watched))
    begin, values = time.monotonic(), []
    for _ in range(STEPS):
        clock.begin_step()
        values += next(iterator).values
        time.sleep(step_seconds)
        clock.end_step()
    np.testing.assert_array_equal(np.concatenate(values), np.arange(STEPS * BATCH))
    share = clock.seconds / (time.monotonic() - begin)
    assert share < 0.2 if step_seconds else share > 0.6

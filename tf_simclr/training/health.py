"""Reports how a pretraining goes on held-out images, without labels, in files, TensorBoard and the log.

It changes nothing of the run: no weight, no state of a metric or of the optimizer, and no random number.
"""

import math
import pathlib
import time

import numpy as np
import tensorflow as tf
from absl import logging

from tf_simclr import builders, distribute, files
from tf_simclr.metrics.diagnosis import diagnose
from tf_simclr.metrics.representation import BIN_CENTERS
from tf_simclr.models.simclr import SimCLR
from tf_simclr.runs.cadence import Cadence
from tf_simclr.runs.writers import MetricsWriter
from tf_simclr.settings import RunConfig
from tf_simclr.training import held_out
from tf_simclr.training.callbacks import StepCallback
from tf_simclr.training.meter import Meter

FILE = "health.jsonl"

# Images that a replica trains on for each measurement, or more. With a third of the work of a training step for every
# view, 256 images take 1.4 % of 6,000; what is left of the 3 % is for kNN and what the CPU computes of the features.
IMAGES_PER_MEASUREMENT = 6000
# kNN takes as many views again, so it is part of every fifth measurement, and of the last one.
_KNN_EVERY = 5
# Two images are a comparison, but nothing follows from it.
_MIN_IMAGES = 16


def plan(config: RunConfig, num_examples: int, num_replicas: int) -> int | None:
    """Steps from one measurement to the next; `None` if the run is too short for one.

    It follows from counts alone, so that a run that resumes on as many replicas measures at the same steps as an
    uninterrupted one.

    Args:
      config: The run. Without `train.health_every_steps`, it is measured after every epoch, or after several, if an
        epoch has few images.
      num_examples: Images of an epoch.
      num_replicas: Replicas that train while one measures.
    """
    train, batch_size = config.train, config.global_batch_size(num_examples)
    if train.health_every_steps is not None:
        return train.health_every_steps
    images = IMAGES_PER_MEASUREMENT * num_replicas
    if config.total_steps(num_examples) * batch_size < images:
        return None
    executions_per_epoch = num_examples / batch_size / train.steps_per_execution
    return max(1, round(math.ceil(images / num_examples) * executions_per_epoch)) * train.steps_per_execution


class ReportHealth(StepCallback):
    """Measures the model every so many steps and after the last one.

    `health.jsonl` gets a line, TensorBoard its scalars and histograms, and the log what `diagnosis` finds. Apart from
    the seconds that it took, a line follows from the weights and the sample alone, so an interrupted run leaves the
    same file as an uninterrupted one.
    """

    def __init__(
        self, folder: pathlib.Path, measure: Meter, *, start_step: int, cadence: Cadence, steps_per_epoch: float
    ):
        """Makes the callback.

        Args:
          folder: The run's folder, which gets the lines and the TensorBoard events.
          measure: Measures the model.
          start_step: Steps that the run took before `fit`.
          cadence: When to measure.
          steps_per_epoch: Converts steps to epochs for the reports.
        """
        super().__init__(start_step)
        self._folder = folder
        self._writer = MetricsWriter(folder, "health")
        self._measure = measure
        self._cadence = cadence
        self._steps_per_epoch = steps_per_epoch
        self._seconds = 0.0
        self._said: set[str] = set()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._start = time.monotonic()

    def on_step_end(self, step: int, logs: dict[str, tf.Tensor]) -> None:
        if not self._cadence.due(step):
            return
        for value in logs.values():  # Wait for the step, or its time would count.
            float(value)
        start = time.monotonic()
        is_last = step == self._cadence.total
        values = self._measure(with_knn=is_last or step // self._cadence.every % _KNN_EVERY == 0)
        if values is None:  # `StopOnNaN` reports it.
            return
        seconds = time.monotonic() - start
        self._seconds += seconds
        epoch = round(step / self._steps_per_epoch, 3)
        self._writer.write(FILE, step, epoch, {"num_images": self._measure.num_images, "seconds": seconds, **values})
        for name in ("positive_similarity", "negative_similarity"):
            self._writer.write_histogram(name, step, np.repeat(BIN_CENTERS, values[f"{name}_histogram"]))
        self._diagnose()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self._writer.close()
        share = self._seconds / (time.monotonic() - self._start)
        logging.info("Measuring the health took %.1f s, %.1f%% of the training's time", self._seconds, 100 * share)

    def _diagnose(self) -> None:
        """Says what is found for the first time."""
        health, metrics = (files.read_metrics(self._folder / name) for name in (FILE, "metrics.jsonl"))
        for finding in diagnose(health, metrics):
            if finding.name not in self._said:
                self._said.add(finding.name)
                logging.warning("Step %d: %s %s", health[-1]["step"], finding.sentence, finding.advice)


def make(
    config: RunConfig, model: SimCLR, images: builders.Sources, folder: pathlib.Path, start_step: int
) -> list[ReportHealth]:
    """The callback of a pretraining, or none, and says in the log what it does or why it does nothing.

    The images are those to test on, if they are others than those to train on.
    """
    if not config.train.health:
        return []
    strategy, num_examples = tf.distribute.get_strategy(), images.train.num_examples
    every = plan(config, num_examples, strategy.num_replicas_in_sync)
    if distribute.has_workers(strategy) or isinstance(strategy, tf.distribute.TPUStrategy):
        logging.info("The health of the run is not measured: it takes all replicas in one process on this machine")
        return []
    if every is None:
        logging.info(
            "The health of the run is not measured: with fewer than %d images in all, that would take more than 3 %% "
            "of the time; --health_every_steps asks for it", IMAGES_PER_MEASUREMENT * strategy.num_replicas_in_sync,
        )  # fmt: skip
        return []
    source = images.train if images.test is images.train else images.test
    sample = held_out.draw(source, model.augmentation, config.data.image_size)
    num_images = sample.views.shape[1]
    if num_images < _MIN_IMAGES:
        logging.info("The health of the run is not measured: there are only %d images to measure it on", num_images)
        return []
    batch_size = config.global_batch_size(num_examples)
    at_once = config.train.microbatch_size or batch_size // strategy.num_replicas_in_sync
    measure = Meter(model, sample, global_batch_size=batch_size, encoded_at_once=min(at_once, held_out.NUM_VIEWED))
    steps_per_epoch = num_examples / batch_size
    logging.info(
        "Measuring the health of the run every %d steps (%.1f epochs) on %d images%s; --health=False switches it off",
        every, every / steps_per_epoch, num_images,
        " that it trains on" if source is images.train else " that it does not train on",
    )  # fmt: skip
    cadence = Cadence(every, config.total_steps(num_examples))
    return [ReportHealth(folder, measure, start_step=start_step, cadence=cadence, steps_per_epoch=steps_per_epoch)]

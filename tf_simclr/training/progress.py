"""Reports metrics, speed and remaining time during training, in files, TensorBoard and the terminal."""

import pathlib
import sys
import time

import tensorflow as tf
from absl import logging
from tqdm import tqdm

from tf_simclr.data.batches.waiting import WaitClock
from tf_simclr.runs.cadence import Cadence
from tf_simclr.runs.writers import MetricsWriter
from tf_simclr.training.callbacks import StepCallback

_SHOWN_ACCURACIES = {"contrastive_top_1_accuracy": "contrastive top-1", "top_1_accuracy": "top-1"}

# Prefetching hides the data's time unless the data takes longer than the step; a smaller share is noise.
_DATA_BOUND_SHARE = 0.1


class Progress(StepCallback):
    """Reports the metrics every so many steps, and the speed every so many seconds.

    The means of the metrics over these steps go to `metrics.jsonl` and to the TensorBoard scalars, also after the last
    step. They do not depend on a clock, and a checkpoint holds the sums for the next line, so an interrupted run leaves
    the same file as an uninterrupted one.

    The speed goes to `speed.jsonl`, to the scalars and to the terminal, which shows a progress bar if it can redraw.
    `data_wait_share` is the share of the time that the steps waited for data; at the end of the run, the log says
    whether that was the bottleneck.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        start_step: int,
        cadence: Cadence,
        steps_per_epoch: float,
        global_batch_size: int,
        every_seconds: float,
        wait_clock: WaitClock,
    ):
        """Makes the callback.

        Args:
          folder: Gets the files and the TensorBoard events.
          start_step: Steps that the run took before `fit`.
          cadence: When to report the metrics.
          steps_per_epoch: Converts steps to epochs for the reports.
          global_batch_size: Converts steps to images for the speed.
          every_seconds: Seconds between reports of the speed.
          wait_clock: Measures the waits for the dataset.
        """
        super().__init__(start_step)
        self._writer = MetricsWriter(folder, "train")
        self._step = start_step
        self._cadence = cadence
        self._steps_per_epoch = steps_per_epoch
        self._global_batch_size = global_batch_size
        self._every_seconds = every_seconds
        self._wait_clock = wait_clock

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._bar = tqdm(total=self._cadence.total, initial=self._step, unit="step", disable=not sys.stderr.isatty())
        self._run_start = self._read_clocks()
        self._start_window()
        self._restored_sums = [variable.numpy() for variable in self._sums()]

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        # `fit` has just reset the metrics, and with them the sums of the unfinished line, restored from the checkpoint.
        for variable, value in zip(self._sums(), self._restored_sums, strict=True):
            variable.assign(value)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._wait_clock.begin_step()

    def on_step_end(self, step: int, logs: dict[str, tf.Tensor]) -> None:
        num_steps, self._step = step - self._step, step
        self._wait_clock.end_step(num_steps)
        is_first, is_last = step - num_steps == self._start_step, step == self._cadence.total
        if is_first and not is_last:
            self._run_start = self._read_clocks()  # The first step also builds the graph and fills the buffers.
        self._bar.update(num_steps)
        reports_metrics = self._cadence.due(step)
        reports_speed = is_last or time.monotonic() - self._window_start[0] >= self._every_seconds
        if not (reports_metrics or reports_speed):
            return
        values = {name: float(value) for name, value in logs.items()}
        if reports_speed:
            self._report_speed(values)
            self._start_window()
        if reports_metrics:
            self._write("metrics.jsonl", values)
            self.model.reset_metrics()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self._bar.close()
        self._writer.close()
        share = self._wait_share(self._run_start)
        if share < _DATA_BOUND_SHARE:
            logging.info("Compute was the bottleneck: the steps waited for data %.0f%% of the time", 100 * share)
        else:
            logging.info(
                "Data was the bottleneck: the steps waited for it %.0f%% of the time; see docs/input_speed.md",
                100 * share,
            )

    def _sums(self) -> list[tf.Variable]:
        """The variables in which the metrics sum up the steps of the next line."""
        return [variable for metric in self.model.metrics for variable in metric.variables]

    def _start_window(self) -> None:
        self._window_start, self._window_first_step = self._read_clocks(), self._step

    def _read_clocks(self) -> tuple[float, float]:
        """The time and the time spent waiting for data, in seconds."""
        return time.monotonic(), self._wait_clock.seconds

    def _wait_share(self, start: tuple[float, float]) -> float:
        """Share of the time since `start` spent waiting for data."""
        seconds, waited = (end - begin for end, begin in zip(self._read_clocks(), start, strict=True))
        return waited / seconds

    def _write(self, file_name: str, values: dict[str, float]) -> None:
        self._writer.write(file_name, self._step, round(self._step / self._steps_per_epoch, 3), values)

    def _report_speed(self, values: dict[str, float]) -> None:
        num_steps = self._step - self._window_first_step
        images_per_second = num_steps * self._global_batch_size / (time.monotonic() - self._window_start[0])
        wait_share = self._wait_share(self._window_start)
        self._write("speed.jsonl", {"images_per_second": images_per_second, "data_wait_share": wait_share})
        seconds_left = (self._cadence.total - self._step) * self._global_batch_size / images_per_second
        text = ", ".join(
            [
                f"loss {values['loss']:.3f}",
                *(f"{title} {values[name]:.1%}" for name, title in _SHOWN_ACCURACIES.items() if name in values),
                f"{images_per_second:.0f} images/s",
                f"{wait_share:.0%} waiting for data",
            ]
        )
        self._bar.set_postfix_str(text)
        if self._bar.disable:
            logging.info(
                "Step %d of %d, epoch %.1f: %s, %s left", self._step, self._cadence.total,
                self._step / self._steps_per_epoch, text, tqdm.format_interval(seconds_left),
            )  # fmt: skip

"""Keras callbacks of the training programs. They count steps, not epochs: a run is one long `fit`.

They read metrics only when they need the values, because reading makes an accelerator wait.
"""

import math
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tf_simclr import distribute, files
from tf_simclr.keras import keras
from tf_simclr.runs import writers
from tf_simclr.runs.cadence import Cadence
from tf_simclr.training.stopping import StopRequest

# Side of a view in `views.png`.
_SHOWN_SIZE_PX = 96


class StepCallback(keras.callbacks.Callback):
    """A callback that receives the step of the run, and metrics that are still on the device."""

    def __init__(self, start_step: int):
        """Makes the callback.

        Args:
          start_step: Steps that the run took before `fit`.
        """
        super().__init__()
        self._supports_tf_logs = True
        self._start_step = start_step

    def on_train_batch_end(self, batch: int, logs: dict[str, tf.Tensor] | None = None) -> None:
        # With several steps in one execution, `fit` names the last one.
        self.on_step_end(self._start_step + batch + 1, logs or {})

    def on_step_end(self, step: int, logs: dict[str, tf.Tensor]) -> None:
        """Called when `step` steps of the run are done or under way.

        Args:
          step: Steps since the start of the run.
          logs: Means of the metrics since they were last reset.
        """
        raise NotImplementedError


class StopOnNaN(StepCallback):
    """Stops the run with a `FloatingPointError` when the loss is not finite, before it is reported.

    Reads the values of a step when the next one is under way, or at once if they are due for a report.
    """

    def __init__(self, manager: tf.train.CheckpointManager, *, start_step: int, cadence: Cadence):
        """Makes the callback.

        Args:
          manager: Knows the last good checkpoint, for the error message.
          start_step: Steps that the run took before `fit`.
          cadence: When the metrics are reported.
        """
        super().__init__(start_step)
        self._manager = manager
        self._cadence = cadence
        self._unseen: tuple[int, dict[str, tf.Tensor]] = (start_step, {})

    def on_step_end(self, step: int, logs: dict[str, tf.Tensor]) -> None:
        self._look()
        self._unseen = (step, logs)
        if self._cadence.due(step):
            self._look()

    def _look(self) -> None:
        step, logs = self._unseen
        self._unseen = (step, {})
        _check_finite(step, logs, self.model, self._manager)


class SaveCheckpoint(StepCallback):
    """Saves a checkpoint when it is due, and when a signal asks the run to stop.

    If a metric or a weight is not finite, raises a `FloatingPointError` and saves nothing.
    """

    def __init__(
        self,
        manager: tf.train.CheckpointManager,
        *,
        start_step: int,
        cadence: Cadence,
        stop_request: StopRequest,
        agreement: Cadence,
    ):
        """Makes the callback.

        Args:
          manager: Saves and prunes the checkpoints.
          start_step: Steps that the run took before `fit`.
          cadence: When to save.
          stop_request: Holds the signal that asks the run to stop.
          agreement: When several workers share their signals.
        """
        super().__init__(start_step)
        self._manager = manager
        self._cadence = cadence
        self._stop_request = stop_request
        self._agreement = agreement

    def on_step_end(self, step: int, logs: dict[str, tf.Tensor]) -> None:
        self.model.stop_training = self._must_stop(step)
        if self.model.stop_training or self._cadence.due(step):
            _check_finite(step, logs, self.model, self._manager)
            if not all(np.isfinite(weight).all() for weight in self.model.get_weights()):
                raise _divergence(step, self.model, self._manager, "a weight is not finite")
            with writers.explaining(f"the checkpoint of step {step}"):
                self._manager.save(checkpoint_number=step)

    def _must_stop(self, step: int) -> bool:
        """Whether to stop after this step; a signal to one worker stops all of them at the same step."""
        if distribute.has_workers(tf.distribute.get_strategy()):
            if not self._agreement.due(step):
                return False
            self._stop_request.signal_number = distribute.largest_of_workers(self._stop_request.signal_number)
        return bool(self._stop_request)


def _check_finite(
    step: int, logs: dict[str, tf.Tensor], model: keras.Model, manager: tf.train.CheckpointManager
) -> None:
    values = {name: float(logs[name]) for name in ("loss", "gradient_norm") if name in logs}
    if not all(map(math.isfinite, values.values())):
        cause = f"the loss is {values['loss']}, the gradient norm {values['gradient_norm']}"
        raise _divergence(step, model, manager, cause)


def _divergence(step: int, model: keras.Model, manager: tf.train.CheckpointManager, cause: str) -> FloatingPointError:
    return FloatingPointError(
        f"Training diverged at step {step}: {cause}. The learning rate is "
        f"{float(model.optimizer.learning_rate):.3g}; the last good checkpoint is {manager.latest_checkpoint}. Usual "
        "causes: a learning rate too high for the batch size, too short a warm-up, too low a temperature. Change them "
        "in another model_dir"
    )


class WarnOfCollapse(StepCallback):
    """Warns once if the loss stays at its value for equal projections."""

    def __init__(
        self,
        collapse_value: float,
        *,
        start_step: int,
        cadence: Cadence,
        after_steps: int = 200,
        tolerance: float = 1e-3,
    ):
        """Makes the callback.

        Args:
          collapse_value: The loss when all projections are equal, as `Loss.collapse_value` gives it.
          start_step: Steps that the run took before `fit`.
          cadence: When the mean loss is reported. Only means over `cadence.every` steps count, not the last one if it
            covers fewer.
          after_steps: Consecutive steps that distinguish a collapse from a slow start.
          tolerance: Largest distance of the loss from the collapse value, as a share of it.
        """
        super().__init__(start_step)
        self._collapse_value = collapse_value
        self._window_steps = cadence.every
        self._after_steps = after_steps
        self._tolerance = tolerance * abs(collapse_value)
        self._steps_there = 0
        self._has_warned = False

    def on_step_end(self, step: int, logs: dict[str, tf.Tensor]) -> None:
        if self._has_warned or step % self._window_steps:
            return
        is_there = abs(float(logs["loss"]) - self._collapse_value) <= self._tolerance
        self._steps_there = self._steps_there + self._window_steps if is_there else 0
        if self._steps_there >= self._after_steps:
            self._has_warned = True
            logging.warning(
                "The loss has stayed at %.3f, its value when all projections are equal, for %d steps: the encoder has "
                "collapsed. Usual causes: a learning rate that is too high, or zero; too high a temperature; views "
                "that do not distinguish the images", self._collapse_value, self._steps_there,
            )  # fmt: skip


def write_view_sheet(model: Any, batch: dict[str, tf.Tensor], folder: pathlib.Path, num_images: int = 16) -> None:
    """Writes a sheet of augmented views to TensorBoard, one row per image, and to `views.png`, one column per image.

    Small views come last, each in the middle of a panel of the others' size.
    """
    batch = {name: column[:num_images] for name, column in batch.items()}
    views = np.asarray(model.make_views(batch))
    rows = np.stack(np.split(views, model.augmentation.num_views), axis=1)
    if model.small_views is not None:
        small = tf.image.resize_with_crop_or_pad(model.make_small_views(batch), *rows.shape[2:4])
        rows = np.concatenate([rows, np.stack(np.split(small.numpy(), model.small_views.num_views), axis=1)], axis=1)
    num_rows, num_views, height, width, _ = rows.shape
    sheet = rows.transpose(0, 2, 1, 3, 4).reshape([1, num_rows * height, num_views * width, 3])
    writer = tf.summary.create_file_writer(files.for_tensorflow(folder))
    with writer.as_default(step=0):
        tf.summary.image("views", sheet)
    writer.close()
    size = [min(height, _SHOWN_SIZE_PX), min(width, _SHOWN_SIZE_PX)]
    small = tf.image.resize(rows.reshape([-1, height, width, 3]), size, tf.image.ResizeMethod.AREA).numpy()
    columns = small.reshape([num_rows, num_views, *size, 3]).transpose(1, 2, 0, 3, 4)
    pixels = tf.image.convert_image_dtype(columns.reshape([num_views * size[0], num_rows * size[1], 3]), tf.uint8, True)
    with files.replacing(folder / "views.png") as beside:
        beside.write_bytes(tf.io.encode_png(pixels).numpy())

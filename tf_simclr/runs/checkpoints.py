"""Writes, prunes and restores the checkpoints of a run."""

import pathlib
import re
import shutil
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from tf_simclr import files
from tf_simclr.keras import keras
from tf_simclr.runs.checkpoint_list import list_checkpoints
from tf_simclr.settings import RunConfig


class Space(NamedTuple):
    """Bytes on the disk: of one checkpoint, of what the run may still write, and free."""

    checkpoint: int
    needed: int
    free: int


def space(config: RunConfig, model: keras.Model, folder: pathlib.Path) -> Space:
    """Space for the checkpoints of a compiled model, plus one while the oldest still exists, and for the exports."""
    checkpoint = in_variables([*model.variables, *model.optimizer.variables])
    there = sum(path.stat().st_size for path in (folder / "checkpoints").glob("ckpt-*"))
    exports = (config.export.keep or 1) + 1
    needed = (config.train.keep_checkpoints + 1) * checkpoint + exports * in_variables(model.variables) - there
    return Space(checkpoint, max(0, needed), shutil.disk_usage(folder).free)


def in_variables(variables: Iterable[tf.Variable]) -> int:
    """Bytes of the variables' values."""
    return sum(int(np.prod(variable.shape)) * variable.dtype.size for variable in variables)


def make_checkpoint(model: keras.Model) -> tf.train.Checkpoint:
    """A checkpoint of a compiled model: its weights, the optimizer's state with the step, the sums of the metrics."""
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer)


def restore_latest(checkpoint: tf.train.Checkpoint, folder: pathlib.Path) -> int:
    """Restores the newest readable checkpoint and returns its step, or 0 if there are no checkpoints.

    Raises:
      ValueError: If the checkpoint does not fit the model, or there are checkpoints but none can be read.
    """
    found = list_checkpoints(folder)
    for step, prefix in reversed(found.items()):
        try:
            checkpoint.restore(files.for_tensorflow(prefix)).assert_existing_objects_matched()
        except (AssertionError, ValueError) as error:
            raise ValueError(f"{prefix} does not fit the model of this run: {error}") from error
        except tf.errors.ResourceExhaustedError:
            raise
        except (tf.errors.OpError, IndexError) as error:  # TensorFlow raises many errors for broken files.
            logging.warning("%s is broken; continuing from the one before: %s", prefix, error)
            continue
        logging.info("Restored %s, step %d", prefix, step)
        return step
    if found:
        raise ValueError(
            f"None of the checkpoints can be read: remove them to start over. Received: {', '.join(found.values())}"
        )
    return 0


def make_manager(checkpoint: tf.train.Checkpoint, folder: pathlib.Path, keep: int) -> tf.train.CheckpointManager:
    """Makes the manager of the run's checkpoints, which takes over those of earlier processes.

    Removes half-written and half-deleted files. Checkpoints of later steps than that of `checkpoint` could not be read;
    they are put aside, as `unreadable_ckpt-*`, so that nobody takes them for the run's newest.

    Args:
      checkpoint: What to save; its optimizer is at the step from which the run continues.
      folder: The run's folder.
      keep: How many checkpoints to keep.
    """
    step = int(checkpoint.optimizer.iterations.numpy())
    directory, found = folder / "checkpoints", list_checkpoints(folder)
    for later in [number for number in found if number > step]:
        logging.warning("%s is put aside, as unreadable_ckpt-%d", found.pop(later), later)
        for path in directory.glob(f"ckpt-{later}.*"):
            path.replace(path.with_name(f"unreadable_{path.name}"))
    lists = [*directory.glob("checkpoint.tmp*"), *directory.glob(".*.checkpoint")]  # TensorFlow's own, and ours
    for path in [*directory.glob("ckpt-*"), *lists]:
        number = re.match(r"ckpt-(\d+)\.", path.name)
        if path.is_dir():
            shutil.rmtree(path)
        elif number is None or int(number[1]) not in found:
            path.unlink()
    whole = [pathlib.Path(prefix) for prefix in found.values()]
    if whole:
        lines = [f'model_checkpoint_path: "{whole[-1].name}"']
        for prefix in whole:
            written = prefix.with_name(f"{prefix.name}.index").stat().st_mtime
            lines += [
                f'all_model_checkpoint_paths: "{prefix.name}"', f"all_model_checkpoint_timestamps: {written}",
            ]  # fmt: skip
        files.write_text(directory / "checkpoint", "\n".join(lines) + "\n")
    return tf.train.CheckpointManager(
        checkpoint, files.for_tensorflow(directory), max_to_keep=keep, checkpoint_name="ckpt", step_counter=None
    )

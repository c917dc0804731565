"""The folder of a run: its config, its checkpoints, and what a resumed run may not change."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tf_simclr import config as config_lib
from tf_simclr.config import RunConfig
from tf_simclr.data import sources
from tf_simclr.keras import keras
from tf_simclr.training import lock

# What may differ when a run is resumed, because it does not change what is learnt: fields and whole sections.
FREE = (
    "name",
    "mode",
    "model_dir",
    "strategy",
    "tpu_name",
    "data.eval_split",
    "data.eval_data_dir",
    "data.max_broken_fraction",
    "data.cache",
    "data.service",
    "train.checkpoint_epochs",
    "train.checkpoint_steps",
    "train.keep_checkpoints",
    "train.log_every_seconds",
    "train.log_every_steps",
    "eval",
    "export",
)


def write_json(path: pathlib.Path, values: Any) -> None:
    """Writes a JSON file, see `write_text`."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file beside its place and renames it, so that a reader never sees half of it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def run_folder(config: RunConfig) -> pathlib.Path:
    """Where the run lives: its model_dir, or else runs/<name>."""
    return pathlib.Path(config.model_dir or f"runs/{config.name}")


@contextlib.contextmanager
def open_run(config: RunConfig, *, is_chief: bool = True) -> Iterator[pathlib.Path]:
    """Makes the run's folder, or opens it again if it holds a run with the same settings.

    Writes `config.json` (the resolved settings) and `run.json` (versions, device, command). A run that trains has the
    folder to itself as long as the context lasts.

    Args:
      config: The run.
      is_chief: Whether this process is the one, of those that train together, that writes the folder.

    Yields:
      The folder to write to; one that is thrown away for processes other than the chief.

    Raises:
      ValueError: If the folder cannot be written, another process trains in it, or it holds a run with other settings;
        the error lists them.
    """
    if not is_chief:
        with tempfile.TemporaryDirectory() as unused:
            yield pathlib.Path(unused)
        return
    folder = make_folder(config)
    saved = folder / "config.json"
    with contextlib.ExitStack() as stack:
        try:
            if config.trains:
                stack.enter_context(lock.hold(folder))
            if saved.is_file() and list_checkpoints(folder):
                _check_same_run(config_lib.from_dict(json.loads(saved.read_text(encoding="utf-8"))), config, folder)
            write_json(saved, config_lib.to_dict(config))
            write_json(folder / "run.json", _describe_run(config))
        except OSError as error:
            raise _not_writable(folder, error) from None
        yield folder


def make_folder(config: RunConfig) -> pathlib.Path:
    """The run's folder, made if it is not there.

    Raises:
      ValueError: If it cannot be made.
    """
    if "://" in (config.model_dir or ""):
        raise ValueError(f"model_dir must be a folder of this machine. Received: {config.model_dir}")
    folder = run_folder(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from None
    return folder


def _not_writable(folder: pathlib.Path, error: OSError) -> ValueError:
    return ValueError(f"model_dir must be a folder that can be written ({error.strerror}). Received: {folder}")


def _check_same_run(old: RunConfig, new: RunConfig, folder: pathlib.Path) -> None:
    changed = [
        f"{name} was {before}, is {after}"
        for name, (before, after) in config_lib.differences(old, new).items()
        if name not in FREE and name.split(".")[0] not in FREE
    ]
    if changed:
        raise ValueError(
            f"{folder} holds a run with other settings: {'; '.join(changed)}. "
            "Choose another --model_dir, or give the settings of the run"
        )


def _describe_run(config: RunConfig) -> dict[str, Any]:
    return {
        "command": sys.argv,
        "seed": config.seed,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": importlib.metadata.version(keras.__name__.partition(".")[0]),  # tf_keras, or keras
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
    }


def check_same_images(source: sources.Source, folder: pathlib.Path, start_step: int) -> None:
    """Notes in `images.json` which images a run learns from, and checks on its return that they are still the same.

    Args:
      source: The images to train on.
      folder: The run's folder.
      start_step: Where the training starts; at 0, any images will do.

    Raises:
      ValueError: If there are other images than those that the run started with.
    """
    path, found = folder / "images.json", _describe_images(source)
    if start_step == 0 or not path.is_file():
        write_json(path, found)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [
        f"{name} was {before.get(name)}, is {value}" for name, value in found.items() if value != before.get(name)
    ]
    if changed:
        raise ValueError(
            f"The images have changed since the run in {folder} started: {'; '.join(changed)}. "
            "Put them back as they were, or start anew in another --model_dir"
        )


def _describe_images(source: sources.Source) -> dict[str, Any]:
    """The number of the images, and digests of what tells them apart: their pixels if they are in memory, or names."""
    if isinstance(source, sources.ArraySource):
        names: Any = source.images
    elif isinstance(source, sources.TfdsSource):
        names = f"{source.builder.info.full_name} {source.split}".encode()
    else:
        names = os.fsencode("\n".join(source.keys))  # Names may be of any bytes.
    description = {"images": source.num_examples, "digest of the names": _digest(names)}
    if getattr(source, "labels", None) is not None:
        description["digest of the labels"] = _digest(source.labels)
    return description


def _digest(content: Any) -> str:
    return hashlib.blake2b(np.ascontiguousarray(content).data, digest_size=8).hexdigest()


def list_checkpoints(folder: pathlib.Path) -> dict[int, str]:
    """The checkpoints in a run's folder, the oldest first: {step: path without suffix}.

    That is what the folder holds. TensorFlow's own list, the file `checkpoint`, may be broken or behind.
    """
    names = [re.fullmatch(r"ckpt-(\d+)\.index", path.name) for path in (folder / "checkpoints").glob("*.index")]
    steps = sorted(int(name[1]) for name in names if name)
    return {step: str(folder / "checkpoints" / f"ckpt-{step}") for step in steps}


def make_checkpoint(model: keras.Model) -> tf.train.Checkpoint:
    """What a checkpoint of a compiled model holds: weights, optimizer state with the step, sums of the metrics."""
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer)


def restore_latest(checkpoint: tf.train.Checkpoint, folder: pathlib.Path) -> int:
    """Restores the newest checkpoint that can be read, and returns the step it was taken at (0 without checkpoints).

    Raises:
      ValueError: If the checkpoint does not fit the model, or there are checkpoints but none can be read.
    """
    found = list_checkpoints(folder)
    for step, prefix in reversed(found.items()):
        try:
            checkpoint.restore(prefix).assert_existing_objects_matched()
        except (AssertionError, ValueError) as error:
            raise ValueError(f"{prefix} does not fit the model of this run: {error}") from error
        except tf.errors.ResourceExhaustedError:
            raise
        except (tf.errors.OpError, IndexError) as error:  # TensorFlow has no one error for what cannot be read.
            logging.warning("%s is broken, so the run goes on from the one before: %s", prefix, error)
            continue
        logging.info("Restored %s, step %d", prefix, step)
        return step
    if found:
        raise ValueError(
            f"None of the checkpoints can be read: remove them to start anew. Received: {', '.join(found.values())}"
        )
    return 0


def make_manager(checkpoint: tf.train.Checkpoint, folder: pathlib.Path, keep: int) -> tf.train.CheckpointManager:
    """Manager of the run's checkpoints, which takes over what an earlier process has left behind.

    It removes what was half written or half deleted, and lists what is whole up to the checkpoint's step: what comes
    after it could not be read, and will be replaced.
    """
    directory, found = folder / "checkpoints", list_checkpoints(folder)
    lists = [*directory.glob("checkpoint.tmp*"), *directory.glob(".checkpoint.*")]  # TensorFlow's own, and ours
    for path in [*directory.glob("ckpt-*"), *lists]:
        number = re.match(r"ckpt-(\d+)\.", path.name)
        if path.is_dir():
            shutil.rmtree(path)
        elif number is None or int(number[1]) not in found:
            path.unlink()
    step = int(checkpoint.optimizer.iterations.numpy())
    whole = [pathlib.Path(prefix) for number, prefix in found.items() if number <= step]
    if whole:
        lines = [f'model_checkpoint_path: "{whole[-1].name}"']
        for prefix in whole:
            written = prefix.with_name(f"{prefix.name}.index").stat().st_mtime
            lines += [
                f'all_model_checkpoint_paths: "{prefix.name}"', f"all_model_checkpoint_timestamps: {written}",
            ]  # fmt: skip
        write_text(directory / "checkpoint", "\n".join(lines) + "\n")
    return tf.train.CheckpointManager(
        checkpoint, str(directory), max_to_keep=keep, checkpoint_name="ckpt", step_counter=None
    )


def cut_after(path: pathlib.Path, step: int) -> None:
    """Drops the lines of a metrics file that come after a step, because the steps will be run again."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    # A killed run may have left half a line at the end.
    complete = [line for line in lines if line.endswith("}")]
    kept = [line for line in complete if json.loads(line)["step"] <= step]
    if kept != lines:
        write_text(path, "".join(f"{line}\n" for line in kept))

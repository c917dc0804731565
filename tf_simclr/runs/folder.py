"""Creates the folder of a run, or reopens it for the same run."""

import contextlib
import errno
import importlib.metadata
import os
import pathlib
import platform
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tf_simclr import files
from tf_simclr.keras import keras
from tf_simclr.runs import lock
from tf_simclr.runs.checkpoint_list import list_checkpoints
from tf_simclr.runs.identity import check_same_settings
from tf_simclr.runs.places import check_apart
from tf_simclr.runs.saved_settings import FILE, settings_of_run
from tf_simclr.settings import SETTINGS, RunConfig, flatten, override, to_dict, to_text

# Bytes of the longest path that a run writes below its folder; Linux allows 4096 in all.
_MAX_PATH_BYTES = 4096 - 256


def run_folder(config: RunConfig) -> pathlib.Path:
    """The run's folder: its model_dir, or else runs/<name>."""
    return pathlib.Path(config.folder)


@contextlib.contextmanager
def open_run(config: RunConfig, *, is_chief: bool = True) -> Iterator[pathlib.Path]:
    """Creates the run's folder, or reopens it if it holds a run with the same settings.

    Writes `config.json` (the resolved settings) and `run.json` (versions, devices, command). While the context lasts, a
    run that trains has the folder to itself.

    Args:
      config: The run.
      is_chief: Whether this process writes to the folder; among several that train together, only one does.

    Yields:
      The folder to write to; for processes other than the chief, a temporary one.

    Raises:
      ValueError: If the folder cannot be written, another process trains in it, or it holds a run of another version or
        with other settings; the error lists them.
    """
    if not is_chief:
        with tempfile.TemporaryDirectory() as unused:
            yield pathlib.Path(unused)
        return
    folder = make_folder(config)
    with contextlib.ExitStack() as stack:
        try:
            if config.trains:
                stack.enter_context(lock.hold(folder))
            has_started = bool(list_checkpoints(folder))
            # A run that trains, but has saved nothing yet, must find its settings again.
            with contextlib.nullcontext() if config.trains or has_started else lock.hold(folder):
                saved = settings_of_run(folder) if has_started else None
                if saved is not None:
                    check_same_settings(saved, config, folder)
                files.write_json(folder / FILE, to_dict(config))
                files.write_json(folder / "run.json", _describe_run(config))
        except OSError as error:
            raise _not_writable(folder, error) from None
        yield folder


def make_folder(config: RunConfig) -> pathlib.Path:
    """Creates the run's folder unless it exists, and returns it.

    Raises:
      ValueError: If it cannot be created, holds images that the user would miss, or TensorFlow cannot read one of the
        other places that the run names.
    """
    if "://" in (config.model_dir or ""):
        raise ValueError(
            "model_dir must be a folder on this machine: copy the finished run, or mount the place. "
            f"Received: {config.model_dir}"
        )
    for name, value in flatten(config).items():
        for path in to_text(value or "").split(",") if SETTINGS[name].is_path else ():
            files.check_file_system(path.strip(), name)
    folder = run_folder(config)
    if config.mode == "check" or config.trains:
        check_apart(config, folder, has_started=bool(list_checkpoints(folder)))
    try:
        if len(os.fsencode(folder.absolute())) > _MAX_PATH_BYTES:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from None
    return folder


def _not_writable(folder: pathlib.Path, error: OSError) -> ValueError:
    return ValueError(f"model_dir must be a writable folder ({error.strerror}). Received: {folder}")


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


def as_started(config: RunConfig) -> RunConfig:
    """The settings of a run; once it has weights of its own, those that it started from may have moved."""
    folder = run_folder(config)
    saved = settings_of_run(folder) if list_checkpoints(folder) else None
    return config if saved is None else override(config, {"checkpoint": saved.checkpoint})

"""The directories of exports: publishes each one complete or not at all, and prunes old ones."""

import contextlib
import os
import pathlib
import re
import shutil
import socket
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from tf_simclr import files

CARD = "model_card.json"
_WHOLE = (CARD, "saved_model.pb", "variables/variables.index")


@contextlib.contextmanager
def complete_or_absent(directory: str) -> Iterator[str]:
    """Gives a place to write to, beside `directory`, and renames it to `directory` or, on an error, removes it.

    No server takes its name for a version, and everything is flushed to the disk before the rename. Also removes what
    killed processes of this machine left there.

    Args:
      directory: Must not exist.

    Yields:
      Where to write.

    Raises:
      FileExistsError: If `directory` exists; it is not replaced, because a server may hold it.
      OSError: If the files cannot be written.
    """
    if tf.io.gfile.exists(directory):
        raise FileExistsError(f"An export never replaces a directory; choose a new one. Received: {directory}")
    is_local = "://" not in directory
    if is_local:
        remove_leftovers(pathlib.Path(directory).parent)
    unfinished = f"{directory}{_suffix(os.getpid())}"
    if tf.io.gfile.exists(unfinished):  # Left by an earlier process with our number.
        tf.io.gfile.rmtree(unfinished)
    try:
        yield unfinished
        if is_local:
            for path in (*pathlib.Path(unfinished).rglob("*"), pathlib.Path(unfinished)):
                files.flush(path)
            _rename(unfinished, directory)
            files.flush(pathlib.Path(directory).parent)
        else:
            tf.io.gfile.rename(unfinished, directory)
    except tf.errors.OpError as error:
        raise OSError(f"The export could not be written: {error.message}. Received: {directory}") from error
    finally:
        if tf.io.gfile.exists(unfinished):
            tf.io.gfile.rmtree(unfinished)


def prune(folder: pathlib.Path, keep: int, published: pathlib.Path) -> None:
    """Deletes all exports but the `keep` highest versions, and never the one that was just published.

    Counts and deletes only complete exports of this package, so other directories stay.

    Args:
      folder: Holds the versions.
      keep: How many to keep; 0 keeps all.
      published: The newest one.
    """
    versions = sorted((path for path in folder.glob("*") if is_whole(path)), key=lambda path: int(path.name))
    for path in versions[:-keep] if keep else ():
        if path != published:
            # A server would take a half-deleted directory with a number for an export.
            removed = path.with_name(f"{path.name}{_suffix(os.getpid())}")
            os.rename(path, removed)
            shutil.rmtree(removed)
            logging.info("Removed the export %s", path)


def is_whole(path: pathlib.Path) -> bool:
    """Whether the directory is a version that this package has published."""
    return re.fullmatch("[0-9]+", path.name) is not None and all((path / name).is_file() for name in _WHOLE)


def remove_leftovers(folder: pathlib.Path) -> None:
    """Removes what dead processes of this machine left half written or half deleted."""
    for path in folder.glob(f"*{_suffix('*')}"):
        process = path.name.rpartition("-")[2]
        if process.isdecimal() and not _runs(int(process)):
            shutil.rmtree(path)
            logging.info("Removed the unfinished export %s", path)


def _rename(unfinished: str, directory: str) -> None:
    try:
        os.rename(unfinished, directory)
    except OSError as error:
        if os.path.exists(directory):
            raise FileExistsError(f"Another process exported this version first. Received: {directory}") from error
        raise


def _suffix(process: int | str) -> str:
    return f".incomplete-{socket.gethostname()}-{process}"


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

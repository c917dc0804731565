"""The directories of exports: each is there whole or not at all, and old ones are pruned."""

import contextlib
import os
import pathlib
import re
import shutil
import socket
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

CARD = "model_card.json"
_WHOLE = (CARD, "saved_model.pb", "variables/variables.index")


@contextlib.contextmanager
def complete_or_absent(directory: str) -> Iterator[str]:
    """Gives a place to write to, beside `directory`, which becomes `directory` at the end or, on an error, is removed.

    No server takes its name for a version, and everything is on the disk before it is renamed in one step. Also removes
    what killed processes of this machine have left there.

    Args:
      directory: Must not exist.

    Yields:
      Where to write.

    Raises:
      FileExistsError: If `directory` exists; it is not replaced, because a server may hold it.
      OSError: If the files cannot be written.
    """
    if tf.io.gfile.exists(directory):
        raise FileExistsError(f"An export never replaces a directory; name a new one. Received: {directory}")
    is_local = "://" not in directory
    if is_local:
        remove_leftovers(pathlib.Path(directory).parent)
    unfinished = f"{directory}{_suffix(os.getpid())}"
    if tf.io.gfile.exists(unfinished):  # Left by a process that had our number.
        tf.io.gfile.rmtree(unfinished)
    try:
        yield unfinished
        if is_local:
            _flush(pathlib.Path(unfinished))
            _rename(unfinished, directory)
            _flush_one(pathlib.Path(directory).parent)
        else:
            tf.io.gfile.rename(unfinished, directory)
    except tf.errors.OpError as error:
        raise OSError(f"The export could not be written: {error.message}. Received: {directory}") from error
    finally:
        if tf.io.gfile.exists(unfinished):
            tf.io.gfile.rmtree(unfinished)


def prune(folder: pathlib.Path, keep: int, published: pathlib.Path) -> None:
    """Deletes all exports but the `keep` highest versions, and never the one that was just published.

    Counts and deletes only whole exports of this package, so directories of other origin stay.

    Args:
      folder: Holds the versions.
      keep: How many stay; 0 keeps all.
      published: The newest one.
    """
    versions = sorted((path for path in folder.glob("*") if is_whole(path)), key=lambda path: int(path.name))
    for path in versions[:-keep] if keep else ():
        if path != published:
            # Half deleted under its number, a server would take it for an export.
            removed = path.with_name(f"{path.name}{_suffix(os.getpid())}")
            os.rename(path, removed)
            shutil.rmtree(removed)
            logging.info("Removed the export %s", path)


def is_whole(path: pathlib.Path) -> bool:
    """Whether the directory is a version that this package has published."""
    return re.fullmatch("[0-9]+", path.name) is not None and all((path / name).is_file() for name in _WHOLE)


def remove_leftovers(folder: pathlib.Path) -> None:
    """Removes what dead processes of this machine had begun to write or to delete."""
    for path in folder.glob(f"*{_suffix('*')}"):
        process = path.name.rpartition("-")[2]
        if process.isdecimal() and not _runs(int(process)):
            shutil.rmtree(path)
            logging.info("Removed %s, which was never finished", path)


def _rename(unfinished: str, directory: str) -> None:
    try:
        os.rename(unfinished, directory)
    except OSError as error:
        if os.path.exists(directory):
            raise FileExistsError(f"Another process was first to export this version. Received: {directory}") from error
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


def _flush(folder: pathlib.Path) -> None:
    """Writes a folder and all that is in it to the disk."""
    for path in (*folder.rglob("*"), folder):
        _flush_one(path)


def _flush_one(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

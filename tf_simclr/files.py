"""Writes files whole or not at all, reads JSON and metrics, takes digests, and makes paths that TensorFlow can read."""

import atexit
import contextlib
import functools
import hashlib
import importlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

# What reading an .npz file raises if it is damaged.
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)

# In the paths of checkpoints and SavedModels, TensorFlow takes the first four for patterns; the others are not UTF-8.
_MISREAD = re.compile(r"[*?\[\\\ud800-\udfff]")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, survives_power_loss: bool = True) -> Iterator[pathlib.Path]:
    """Yields a path beside `path` to write to; at the end, the file there replaces `path` in one step.

    A reader never sees a partial file. If the block raises, the new file is removed and `path` stays as it was.

    Args:
      path: A local file, which need not exist; its folder must.
      survives_power_loss: Whether the new file is on the disk before it replaces the other, which takes milliseconds.
        Without it, there may be an empty file after the machine has lost its power.

    Yields:
      The path to write to. Its name starts with a dot and ends like that of `path`.

    Raises:
      OSError: If the file cannot be written.
    """
    path = pathlib.Path(path)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        if survives_power_loss:
            flush(beside)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def flush(path: str | os.PathLike[str]) -> None:
    """Writes a local file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file, as `replacing` does."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], values: Any) -> None:
    """Writes a JSON file, as `replacing` does."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file.

    Raises:
      ValueError: If it holds none.
    """
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"The file is damaged: remove it, or put back a copy ({error}). Received: {path}") from error


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a file of metrics: objects with a step; none if the file does not exist.

    Half a line, which a killed run leaves at the end, and lines that are no metrics are left out.
    """
    if not os.path.isfile(path):
        return []
    found = []
    for line in pathlib.Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict) and isinstance(value.get("step"), int):
                found.append(value)
    return found


def for_tensorflow(path: str | os.PathLike[str]) -> str:
    """A path to the same file or folder that TensorFlow reads as it is written.

    TensorFlow expands "*", "?", "[" and the backslash in the paths of checkpoints, and takes only UTF-8. Such a path is
    replaced by one through a symbolic link, which lasts as long as this process.

    Args:
      path: A folder, which need not exist but will, or a file in one.

    Raises:
      OSError: If a link is needed and there is no place for temporary files.
    """
    path = os.fspath(path)
    if reads_as_written(path):
        return path
    folder, name = (path, "") if os.path.isdir(path) else os.path.split(path)
    folder = os.path.abspath(folder)
    os.makedirs(folder, exist_ok=True)
    return os.path.join(_link_to(folder), name) if name else _link_to(folder)


def reads_as_written(path: str) -> bool:
    """Whether TensorFlow takes a path for what it is; what another file system than this machine's does is not known.

    >>> reads_as_written("runs/a"), reads_as_written("runs/a[1]")
    (True, False)
    """
    return "://" in path or _MISREAD.search(path) is None


@functools.cache
def _link_to(folder: str) -> str:
    place = tempfile.mkdtemp(prefix="tf_simclr_")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    os.symlink(folder, os.path.join(place, "folder"))
    return os.path.join(place, "folder")


def check_file_system(path: str, name: str) -> None:
    """Checks that TensorFlow has a file system for a path such as gs://BUCKET.

    Args:
      path: The path.
      name: What it is, for the error.

    Raises:
      ValueError: If TensorFlow has none.
    """
    scheme, separator, _ = path.partition("://")
    if not separator or scheme in _schemes():
        return
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorflow_io")  # It registers more.
    if scheme not in _schemes():
        raise ValueError(
            f"{name} must be on this machine, or where TensorFlow can read it "
            f"({', '.join(f'{one}://' for one in sorted(_schemes()))}): {scheme}:// takes the package tensorflow-io, "
            f"where it fits your TensorFlow; without it, mount the place or copy the files here. Received: {path}"
        )


def _schemes() -> set[str]:
    """The file systems of TensorFlow besides this machine's, such as "gs"."""
    import tensorflow as tf  # Nothing else here needs it, and programs that read folders only start without it.

    return {tf.compat.as_str(scheme) for scheme in tf.io.gfile.get_registered_schemes()} - {""}


def digest_of_arrays(arrays: Iterable[Any]) -> str:
    """The digest of the shapes and values of NumPy arrays, in order."""
    return digest("\n".join(f"{array.shape} {digest(array.tobytes())}" for array in arrays).encode())


def digest(content: Any, size: int = 8) -> str:
    """The BLAKE2b hash of bytes, or of a contiguous array, as 2 * `size` hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=size).hexdigest()

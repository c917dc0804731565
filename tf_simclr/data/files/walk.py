"""Going through folders: local ones entry by entry, others as `tf.io.gfile` lists them."""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf
from absl import logging

from tf_simclr.data.formats import decode

_PROGRESS_SECONDS = 5.0


class Entry(NamedTuple):
    """What a folder holds; `problem` says why it cannot be read, if that is so."""

    name: str
    is_folder: bool
    is_link: bool = False
    problem: str | None = None


def exists(path: str) -> bool:
    """Whether there is a file or folder, whatever bytes its name is made of."""
    return tf.io.gfile.exists(os.fsencode(path))


def is_folder(path: str) -> bool:
    """Whether there is a folder."""
    return tf.io.gfile.isdir(os.fsencode(path))


def is_local(path: str) -> bool:
    """Whether the path is on the local file system, and not on another such as gs://BUCKET."""
    return "://" not in path


def entries(folder: str) -> Iterator[Entry]:
    """The images and folders in a folder, in no order, without those whose name starts with a dot.

    Raises:
      OSError: If it cannot be listed to its end.
    """
    if not is_local(folder):
        try:
            names = [name.rstrip("/") for name in tf.io.gfile.listdir(folder)]
        except tf.errors.OpError as error:
            raise OSError(error.message) from error
        for name in names:
            is_image = _is_image(name)  # To ask a bucket about every image takes an hour.
            if not name.startswith(".") and (is_image or is_folder(f"{folder}/{name}")):
                yield Entry(name, is_folder=not is_image)
        return
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield Entry(entry.name, is_folder=True, is_link=entry.is_symlink())
            elif _is_image(entry.name):
                problem = None
                if not entry.is_file():  # To read a pipe would wait forever.
                    problem = "the link leads nowhere" if entry.is_symlink() else "it is no file"
                yield Entry(entry.name, is_folder=False, problem=problem)


def readable_entries(folder: str) -> Iterator[Entry]:
    """The same, up to where the folder cannot be listed."""
    with contextlib.suppress(OSError):
        yield from entries(folder)


def _is_image(name: str) -> bool:
    return name.lower().endswith(decode.IMAGE_SUFFIXES)


class Walk:
    """One way through folders and all below them, on which no folder is visited twice.

    Attributes:
      problems: Path and reason of what could not be read.
      folders: The local folders and when each was changed, in nanoseconds.
      started: When the walk started, in nanoseconds.
    """

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.folders: dict[str, int] = {}
        self.started = time.time_ns()
        self._seen: set[str] = set()
        self._num_files = 0
        self._next_message = time.monotonic() + _PROGRESS_SECONDS

    def files(self, root: str) -> Iterator[str]:
        """The image files in a folder and below, in no order; the log says every few seconds how many.

        Links come last, so that a folder is walked where it is rather than where a link to it is.
        """
        folders, links = [root], list[str]()
        while folders or links:
            folder = folders.pop() if folders else links.pop(0)
            identity = os.path.realpath(folder) if is_local(folder) else folder
            if identity in self._seen:
                continue
            self._seen.add(identity)
            found: list[Entry] = []
            try:
                if is_local(folder):
                    self.folders[folder] = os.stat(folder).st_mtime_ns
                for entry in entries(folder):
                    if entry.is_folder:
                        found.append(entry)
                    elif entry.problem is None:
                        self._count(root)
                        yield os.path.join(folder, entry.name)
                    else:
                        self.problems[os.path.join(folder, entry.name)] = entry.problem
            except OSError as error:  # No right to read it, or it is gone by now.
                self.problems[folder] = f"the folder cannot be listed: {error.strerror or error}"
            found.sort()
            folders += [os.path.join(folder, entry.name) for entry in found if not entry.is_link]
            links += [os.path.join(folder, entry.name) for entry in found if entry.is_link]

    def _count(self, root: str) -> None:
        self._num_files += 1
        if time.monotonic() > self._next_message:
            logging.info("Listing %s: %d files so far", root, self._num_files)
            self._next_message = time.monotonic() + _PROGRESS_SECONDS

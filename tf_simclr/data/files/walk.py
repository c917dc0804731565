"""Walks folders: local ones entry by entry, others as `tf.io.gfile` lists them, and archives by their index."""

import collections
import contextlib
import functools
import os
import re
import time
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf
from absl import logging

from tf_simclr.data.files import archives
from tf_simclr.data.files.names import counted, in_print
from tf_simclr.data.formats import decode

# Every run and every check keeps this file in its folder, so a folder that has it holds no images of the user.
RUN_REPORT = "data_report.json"

# What operating systems, archives and storage servers leave beside images, in lower case.
_SYSTEM_FOLDERS = {
    "__macosx", "__pycache__", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "recycler",
    "system volume information", "lost+found",
}  # fmt: skip
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}

_SUFFIX = re.compile(r"\.(?!\d+$)\w{1,12}", re.ASCII)
_PROGRESS_SECONDS = 5.0


class Entry(NamedTuple):
    """An entry of a folder. `problem` says why it cannot be read; None if it can."""

    name: str
    is_folder: bool
    is_link: bool = False
    problem: str | None = None


def exists(path: str) -> bool:
    """Whether the file or folder exists, perhaps in an archive; its name may have any bytes."""
    place = archives.split(path)
    if place is not None:
        return archives.exists(*place)
    # TensorFlow cannot say that a name that is not UTF-8 does not exist.
    return os.path.exists(path) if is_local(path) else tf.io.gfile.exists(os.fsencode(path))


def is_folder(path: str) -> bool:
    """Whether the path is a folder, an archive, or a folder in one."""
    place = archives.split(path)
    if place is not None:
        return archives.is_folder(*place)
    return os.path.isdir(path) if is_local(path) else tf.io.gfile.isdir(os.fsencode(path))


def is_local(path: str) -> bool:
    """Whether the path is on the local file system, not on another such as gs://BUCKET."""
    return "://" not in path


def num_bytes(path: str) -> int:
    """The size of a file, perhaps in an archive; 0 if there is none."""
    place = archives.split(path)
    if place is not None:
        return archives.num_bytes(*place)
    return tf.io.gfile.stat(os.fsencode(path)).length if exists(path) else 0


def entries(folder: str, ignored: collections.Counter[str] | None = None) -> Iterator[Entry]:
    """Yields the images and folders in a folder, in no particular order.

    Leaves out names that start with a dot, folders and files of the system, and the folders of runs.

    Args:
      folder: The folder.
      ignored: Counts the other files (see `ignore`).

    Raises:
      OSError: If the folder cannot be listed to its end.
    """
    archive = archives.split(folder)
    if archive is not None or not is_local(folder):
        for name, leads_on in _list_remote(folder) if archive is None else archives.entries(*archive):
            if name.startswith("."):
                continue
            if leads_on:
                if is_users(f"{folder}/{name}"):
                    yield Entry(name, is_folder=True)
            elif decode.is_image_name(name):
                yield Entry(name, is_folder=False)
            elif ignored is not None:
                ignore(name, ignored)
        return
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name.startswith("."):
                continue
            try:
                leads_on, is_file = entry.is_dir(), entry.is_file()
            except OSError as error:  # A link leads in a circle, or where this user may not look.
                if decode.is_image_name(entry.name):
                    yield Entry(entry.name, False, problem=f"the link cannot be followed: {error.strerror}")
                else:
                    yield Entry(entry.name, is_folder=True, is_link=True)  # Whoever walks on finds out.
                continue
            if leads_on:
                if is_users(entry.path):
                    yield Entry(entry.name, is_folder=True, is_link=entry.is_symlink())
            elif decode.is_image_name(entry.name):
                problem = None
                if not is_file:  # Reading a pipe would wait forever.
                    problem = "the link leads nowhere" if entry.is_symlink() else "it is not a regular file"
                yield Entry(entry.name, is_folder=False, problem=problem)
            elif ignored is not None:
                ignore(entry.name, ignored)


def _list_remote(folder: str) -> Iterator[tuple[str, bool]]:
    """Yields the name of everything in a folder, and whether that is a folder."""
    try:
        names = [name.rstrip("/") for name in tf.io.gfile.listdir(folder)]
    except tf.errors.OpError as error:
        raise OSError(error.message) from error
    for name in names:  # Asking a bucket about every image takes an hour.
        yield name, not decode.is_image_name(name) and is_folder(f"{folder}/{name}")


def readable_entries(folder: str) -> Iterator[Entry]:
    """Yields the same entries, but stops where the folder cannot be listed."""
    with contextlib.suppress(OSError):
        yield from entries(folder)


def holds_images(folder: str) -> bool:
    """Whether there is an image in a folder, at any depth."""
    return next(Walk().files(folder), None) is not None


def ignore(name: str, counts: collections.Counter[str]) -> None:
    """Counts a file that is not an image by its suffix in lower case, "" for none, unless the system made it."""
    name = name.lower()
    if name not in _SYSTEM_FILES:
        suffix = os.path.splitext(name)[1]
        counts[suffix if suffix in counts or _SUFFIX.fullmatch(suffix) else ""] += 1


def is_users(folder: str) -> bool:
    """Whether a folder is the user's, not one of the system or of a run."""
    if os.path.basename(folder).lower() in _SYSTEM_FOLDERS:
        return False
    if exists(os.path.join(folder, RUN_REPORT)):
        _log_run(folder)
        return False
    return True


def _concerns(path: str, root: str) -> bool:
    """Whether what is wrong in an archive concerns the images of a folder in it."""
    return path == archives.file_of(root) or (decode.is_image_name(path) and path.startswith(os.path.join(root, "")))


@functools.cache  # Several walks meet the same folder.
def _log_run(folder: str) -> None:
    logging.info("Left out %s, the folder of a run: it holds a %s", in_print(folder), RUN_REPORT)


class Walk:
    """A walk through folders and everything below them that visits no folder twice.

    Attributes:
      problems: What could not be read, {path: reason}.
      ignored: The number of files that are not images by suffix, "" for none.
      folders: The local folders and the time of each one's last change, in nanoseconds.
      started_nanoseconds: When the walk started.
    """

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.ignored = collections.Counter[str]()
        self.folders: dict[str, int] = {}
        self.started_nanoseconds = time.time_ns()
        self._seen: set[str] = set()
        self._num_files = 0
        self._next_message = time.monotonic() + _PROGRESS_SECONDS

    def files(self, root: str) -> Iterator[str]:
        """Yields the image files in a folder and below, in no particular order; logs their number every few seconds.

        Links come last, so that a folder is walked under its own path rather than through a link to it.
        """
        folders, links = [root], list[str]()
        if (archive := archives.split(root)) is not None:
            found_broken = archives.problems(archive[0]).items()
            self.problems |= {path: text for path, text in found_broken if _concerns(path, root)}
        while folders or links:
            folder = folders.pop() if folders else links.pop(0)
            identity = os.path.realpath(folder) if is_local(folder) else folder
            if identity in self._seen:
                continue
            self._seen.add(identity)
            found: list[Entry] = []
            try:
                if is_local(folder):
                    real_folder = archives.file_of(folder)
                    self.folders[real_folder] = os.stat(real_folder).st_mtime_ns
                for entry in entries(folder, self.ignored):
                    if entry.is_folder:
                        found.append(entry)
                    elif entry.problem is None:
                        self._count(root)
                        yield os.path.join(folder, entry.name)
                    else:
                        self.problems[os.path.join(folder, entry.name)] = entry.problem
            except OSError as error:  # Permission is missing, or the folder is gone by now.
                self.problems[folder] = f"the folder cannot be listed: {error.strerror or error}"
            found.sort()
            folders += [os.path.join(folder, entry.name) for entry in found if not entry.is_link]
            links += [os.path.join(folder, entry.name) for entry in found if entry.is_link]

    def _count(self, root: str) -> None:
        self._num_files += 1
        if time.monotonic() > self._next_message:
            logging.info("Listing %s: %s so far", root, counted(self._num_files, "file"))
            self._next_message = time.monotonic() + _PROGRESS_SECONDS

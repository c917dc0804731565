"""Broken image files: the reason for each, their number, and a report that outlives the process."""

import atexit
import collections
import contextlib
import hashlib
import json
import os
import pathlib
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from typing import Any

import tensorflow as tf
from absl import logging

from tf_simclr import files
from tf_simclr.data.files import archives, ignored
from tf_simclr.data.files.names import counted, in_print
from tf_simclr.data.files.walk import is_local
from tf_simclr.data.formats import decode
from tf_simclr.data.formats.headers import MAX_PIXELS

# A record of a TFRecord file is named FILE#record=INDEX.
RECORD_SEPARATOR = "#record="

# Files that are looked at together.
_LOOKS_AT_ONCE = 16

_MAX_LOGGED = 20

# The report is written anew when it has grown by this share, or this long after a file was added.
_GROWTH, _WRITE_SECONDS = 0.1, 30.0


def broken_reason(read: Callable[[], tf.Tensor], max_pixels: int = decode.MAX_PIXELS) -> str:
    """Says in a few words why the image file whose bytes `read` returns cannot be decoded."""
    try:
        decode.decode_image(read(), max_pixels)
    except tf.errors.OpError as error:
        return in_short(error)
    return "it could not be read at first but can now"


def in_short(error: tf.errors.OpError) -> str:
    """TensorFlow's message, without the place in the graph where the error occurred."""
    # Cut the leading "{{function_node ...}}", the trailing "[Op:...] name: ", and the words that Assert adds.
    reason = re.sub(r"\{\{.*?\}\}|\[Op:.*|.*Summarized data: ", "", error.message, flags=re.DOTALL).strip()
    return re.sub(r"b'(.*?)'\n?", r"\1 ", reason).strip()


class BrokenFiles:
    """The broken files of a run, each with its reason. A JSON file keeps them, so that they are found only once.

    A file whose size or time has changed since is checked again.

    Attributes:
      num_files: The number of all image files.
      ignored: The number of files that are not images by suffix, see `ignore`.

    Args:
      report_path: The JSON file to read and keep up to date, or None.
      max_fraction: Fraction of all files that may be broken, in [0, 1]; see `check`.
      max_pixels: Images with more pixels count as broken. What the JSON file says of another number does not count.
      are_expected: Whether broken files are taken as they come: none is decoded only to find them, and an evaluation
        goes on however many there are in a row.
    """

    def __init__(
        self,
        report_path: str | os.PathLike[str] | None = None,
        max_fraction: float = 1.0,
        *,
        max_pixels: int = MAX_PIXELS,
        are_expected: bool = False,
    ) -> None:
        self.num_files = 0
        self.ignored = collections.Counter[str]()
        self._report_path = report_path
        self._max_fraction = max_fraction
        self._max_pixels = max_pixels
        self.are_expected = are_expected
        self._lock = threading.RLock()
        self._num_written = 0
        self._timer: threading.Timer | None = None
        self._entries: dict[str, dict[str, Any]] = {}
        self._checked: set[str] = set()
        path = "" if report_path is None else files.for_tensorflow(report_path)
        if path and tf.io.gfile.exists(path):
            try:
                with tf.io.gfile.GFile(path) as file:
                    report = json.load(file)
                if not isinstance(report, dict):
                    raise ValueError("it holds no object")
            except ValueError as error:
                logging.warning("Looking for broken files again, because %s is damaged: %s", report_path, error)
                report = {}
            if report.get("max_pixels", max_pixels) != max_pixels:
                report = {}
            self._checked = set(report.get("checked", ()))
            # What could not be found then may be there by now, or may no longer be looked for.
            self._entries = {
                entry["path"]: entry
                for entry in report.get("skipped", ())
                if _stamp(entry["path"]) == (entry["size"], entry["mtime_seconds"]) != (None, None)
            }

    @property
    def list_folder(self) -> pathlib.Path | None:
        """The folder for lists of files, beside the report; None without a report on a local disk."""
        if self._report_path is None or not is_local(os.fspath(self._report_path)):
            return None
        return pathlib.Path(self._report_path).parent / "data_lists"

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def paths(self) -> tuple[str, ...]:
        """The broken files."""
        return tuple(self._entries)

    def reason(self, path: str) -> str:
        """Why a file is broken."""
        return self._entries[path]["reason"]

    def state_of(self, paths: Iterable[str]) -> str | None:
        """A digest of files, of their sizes and of the times of their last changes.

        None if one is missing, or if nobody needs to know, because broken files are expected.
        """
        digest = hashlib.blake2b(digest_size=16)
        for path in () if self.are_expected else paths:
            stamp = _stamp(path)
            if stamp == (None, None):
                return None
            digest.update(repr((path, *stamp)).encode())
        return None if self.are_expected else digest.hexdigest()

    def is_checked(self, state: str | None) -> bool:
        """Whether files in this state, as `state_of` gives it, have been checked; never if one is missing."""
        return self.are_expected or state in self._checked

    def mark_checked(self, state: str | None) -> None:
        """Notes that the broken ones are known of files that were in this state before they were looked at."""
        if state is not None:
            self._checked.add(state)

    def add(self, reasons: Mapping[str, str | Callable[[], str]]) -> None:
        """Adds broken files, {path: reason}, and names them in the log.

        A reason may be a function that finds it. It is called once, however many readers meet the file at once.
        """
        with self._lock:
            new = {
                path: reason if isinstance(reason, str) else reason()
                for path, reason in reasons.items()
                if path not in self._entries
            }
            for path, reason in new.items():
                size, mtime_seconds = _stamp(path)
                self._entries[path] = {"path": path, "size": size, "mtime_seconds": mtime_seconds, "reason": reason}
            if new:
                self._write_soon()
                logging.warning(
                    "Skipped %s (%d of %d so far): %s",
                    counted(len(new), "broken image file"), len(self), self.num_files, _describe(new),
                )  # fmt: skip

    def ignore(self, counts: Mapping[str, int]) -> None:
        """Adds the numbers of files that are not images, by suffix, and says so in the log."""
        self.ignored.update(counts)
        if counts:
            level = logging.WARNING if ignored.lost(counts) else logging.INFO
            logging.log(level, "Ignored %s", ignored.describe(counts))

    def check(self) -> None:
        """Raises a `ValueError` with the list if more than `max_fraction` of all files are broken."""
        if len(self) > self._max_fraction * max(self.num_files, len(self)):
            where = f"; {os.fspath(self._report_path)} lists them all" if self._report_path is not None else ""
            reasons = {path: entry["reason"] for path, entry in self._entries.items()}
            raise ValueError(
                f"More than {self._max_fraction:.0%} of the files are broken: repair or remove them, or raise "
                f"--max_broken_fraction ({_describe(reasons)}{where}). Received: {len(self)} of {self.num_files} files"
            )

    def _write_soon(self) -> None:
        """Writes the report now and then, for writing it anew for each of many files would take hours."""
        if len(self) >= (1 + _GROWTH) * self._num_written:
            self.write()
        elif self._timer is None:
            self._timer = threading.Timer(_WRITE_SECONDS, self._write_what_is_new)
            self._timer.daemon = True
            self._timer.start()
            atexit.register(self._write_what_is_new)

    def _write_what_is_new(self) -> None:
        with self._lock, contextlib.suppress(OSError, tf.errors.OpError):  # Nobody waits for it.
            if self._timer is not None:
                self.write()

    def write(self) -> None:
        """Writes the report; a reader never sees half of it."""
        with self._lock:
            if self._report_path is not None:
                self._write(self._report_path)
            self._num_written = len(self)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
                atexit.unregister(self._write_what_is_new)

    def _write(self, path: str | os.PathLike[str]) -> None:
        report = {
            "files": self.num_files,
            "broken": len(self),
            "max_pixels": self._max_pixels,
            "ignored": dict(self.ignored.most_common()),
            "skipped": [self._entries[path] for path in sorted(self._entries)],
            "checked": sorted(self._checked),
        }
        if is_local(os.fspath(path)):
            files.write_json(path, report)
        else:  # Object stores replace a file as a whole.
            with tf.io.gfile.GFile(path, "w") as file:
                file.write(json.dumps(report, indent=2) + "\n")


def _describe(reasons: dict[str, str]) -> str:
    listed = [f"{in_print(path)}: {reason}" for path, reason in reasons.items()]
    more = [f"and {len(listed) - _MAX_LOGGED} more"] if len(listed) > _MAX_LOGGED else []
    return "; ".join(listed[:_MAX_LOGGED] + more)


def _stamp(path: str) -> tuple[int | None, int | None]:
    """(size in bytes, time of the last change in seconds) of a file, to detect changes; None for both without it.

    Those of a member of an archive are those of the archive.
    """
    try:
        found = tf.io.gfile.stat(os.fsencode(archives.file_of(path.partition(RECORD_SEPARATOR)[0])))
    except (tf.errors.OpError, UnicodeDecodeError):  # TensorFlow's message cannot hold a name that is not UTF-8.
        return None, None
    return found.length, found.mtime_nsec // 10**9


def digest_of_files(paths: Iterable[str]) -> str:
    """A digest of the sizes of files and of the times of their last changes, whatever their names are."""
    with futures.ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:  # A look at a remote file is a round trip.
        return files.digest(repr(list(pool.map(_stamp, paths))).encode())

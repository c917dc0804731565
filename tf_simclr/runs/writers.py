"""Writes the metrics of a run to the disk: as lines of JSON, and as TensorBoard scalars."""

import contextlib
import errno
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr import files

_EVENTS = "the events of TensorBoard"


class MetricsWriter:
    """Appends metrics to files of JSON lines, and writes the same values as TensorBoard scalars."""

    def __init__(self, folder: pathlib.Path, prefix: str):
        """Makes the writer.

        Args:
          folder: The run's folder, which gets the files and the TensorBoard events.
          prefix: The program that reports the metrics; TensorBoard shows them as "prefix/name".

        Its methods raise an `OSError` if the disk is full.
        """
        self._folder = folder
        self._prefix = prefix
        self._events = tf.summary.create_file_writer(files.for_tensorflow(folder))

    def write(self, file_name: str, step: int, epoch: float, values: Mapping[str, Any]) -> None:
        """Writes the values of a step: one line of the file, which starts with `step` and `epoch`, and the scalars.

        Lists are only in the line.
        """
        with (self._folder / file_name).open("a", encoding="utf-8") as file:
            file.write(_line({"step": step, "epoch": epoch, **values}))
        with explaining(_EVENTS), self._events.as_default(step=step):
            for name, value in values.items():
                if not isinstance(value, list):
                    tf.summary.scalar(f"{self._prefix}/{name}", value)

    def write_histogram(self, name: str, step: int, values: np.ndarray) -> None:
        """Writes the distribution of values, floats [N], as a histogram of TensorBoard, NAME_histogram.

        TensorBoard shows a tag as what it was written first, so a histogram of a scalar's name would not be shown.
        """
        with explaining(_EVENTS), self._events.as_default(step=step):
            tf.summary.histogram(f"{self._prefix}/{name}_histogram", values)

    def close(self) -> None:
        """Flushes the buffers; nothing can be written afterwards."""
        with explaining(_EVENTS):
            self._events.close()


@contextlib.contextmanager
def explaining(what: str) -> Iterator[None]:
    """Makes a full disk an `OSError` that says what is written: TensorFlow's may be that of too little memory."""
    try:
        yield
    except tf.errors.UnavailableError:  # A worker that holds a part of it is gone.
        raise
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, f"{what}: {error.message}") from error


def write_result(folder: pathlib.Path, step: int, values: Mapping[str, float]) -> None:
    """Writes the values of an evaluation as TensorBoard scalars at its step, in place of those written before.

    Args:
      folder: The run's folder.
      step: The step of the weights that were evaluated.
      values: Values by the names that TensorBoard shows.
    """
    with events(folder, f".result_{step}"):
        for name, value in values.items():
            tf.summary.scalar(name, value, step)


@contextlib.contextmanager
def events(folder: pathlib.Path, suffix: str) -> Iterator[None]:
    """Summaries of the block go to a TensorBoard file of their own, in place of an older one of the same suffix."""
    for path in [path for path in folder.iterdir() if path.name.startswith("events.") and path.name.endswith(suffix)]:
        path.unlink()
    writer = tf.summary.create_file_writer(files.for_tensorflow(folder), filename_suffix=suffix)
    with explaining(_EVENTS):
        with writer.as_default():
            yield
        writer.close()


def cut_after(path: pathlib.Path, step: int) -> None:
    """Drops the lines of a metrics file that come after a step, because a resumed run repeats those steps.

    Also drops what is no line of metrics, such as half a line that a killed run left. Does nothing if the file does not
    exist.
    """
    if not path.is_file():
        return
    kept = [_line(values) for values in files.read_metrics(path) if values["step"] <= step]
    text = "".join(kept)
    if text.encode() != path.read_bytes():
        files.write_text(path, text)


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values) + "\n"

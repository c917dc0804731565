"""Where images come from: an array in memory, files, or a TFDS data set or TFRecord files that are streamed.

A source says what the examples are; `pipeline.py` decides on their order and turns them into batches.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr.data.files.names import Names
from tf_simclr.data.formats.headers import MAX_PIXELS
from tf_simclr.data.quality.broken import BrokenFiles
from tf_simclr.data.sources.streams import TfdsSource, TfrecordSource

# Sets of images of one small size up to this many decoded bytes are kept in memory.
MAX_CACHED_BYTES = 1 << 30
MAX_CACHED_SIDE_PX = 128


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Images of one size, decoded, in memory.

    Attributes:
      images: uint8 [N, H, W, 3].
      labels: int64 [N] in [0, number of classes), or None.
      class_names: name of every class id, or None.
      names: for images read from files, each one's path relative to its folder.
      skipped: (path, reason) of every file that could not be decoded.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    skipped: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[-1] != 3 or self.images.dtype != np.uint8:
            raise ValueError(
                "The images of an ArraySource must be uint8 of shape [N, H, W, 3]. "
                f"Received: {self.images.dtype} {list(self.images.shape)}"
            )
        _check_labels(self.labels, self.num_examples)

    @property
    def num_examples(self) -> int:
        return len(self.images)

    @property
    def keys(self) -> tuple[str, ...]:
        """What decides which examples are held out: their names, or their positions without."""
        return self.names if self.names is not None else tuple(map(str, range(self.num_examples)))

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None without labels."""
        return _count_classes(self.labels, self.class_names)

    def subset(self, indices: np.ndarray) -> "ArraySource":
        """The examples at `indices` (int64 [M]), in that order."""
        return dataclasses.replace(
            self,
            images=self.images[indices],
            labels=None if self.labels is None else self.labels[indices],
            names=None if self.names is None else tuple(self.names[i] for i in indices),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class FileSource:
    """Image files that are decoded when they are needed: any sizes, any number.

    Their content is read when it is needed, too, unless the source holds it.

    Attributes:
      folder: the folder that the names start from; "" when they come from several.
      names: path of every file relative to the folder, with "/" between its parts.
      labels: int64 [N] in [0, number of classes), or None.
      class_names: name of every class id, or None.
      skipped: (path, reason) of every file that was found broken when the folder was opened.
      contents: the files' bytes, object [N], or None.
      keys: what decides which files are held out; the names by default.
      max_pixels: larger images count as broken.
      broken: gets the files that turn out to be broken later.
      originals: what the files are called there; their paths by default.
    """

    folder: str
    names: Sequence[str]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    contents: np.ndarray | None = None
    keys: Sequence[str] = ()
    max_pixels: int = MAX_PIXELS
    broken: BrokenFiles = dataclasses.field(default_factory=BrokenFiles)
    originals: Names | None = None

    def __post_init__(self) -> None:
        _check_labels(self.labels, self.num_examples)
        for field in ("names", "keys"):
            names = getattr(self, field) or self.names
            object.__setattr__(self, field, names if isinstance(names, Names) else Names(names))

    @property
    def num_examples(self) -> int:
        return len(self.names)

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None without labels."""
        return _count_classes(self.labels, self.class_names)

    @property
    def paths(self) -> Names:
        return Names(self.names).with_prefix(os.path.join(self.folder, "") if self.folder else "")

    @property
    def reported_paths(self) -> Names:
        """What broken files are called in the report."""
        return self.paths if self.originals is None else self.originals

    def replacements(self) -> np.ndarray:
        """For every file the one to read in its place, int64 [N]: itself, or for a broken one the next that is not."""
        indices = np.arange(self.num_examples)
        if not len(self.broken):
            return indices
        readable = np.flatnonzero([path not in self.broken for path in self.reported_paths])
        return readable[np.searchsorted(readable, indices) % len(readable)] if readable.size else indices

    def subset(self, indices: np.ndarray) -> "FileSource":
        """The examples at `indices` (int64 [M]), in that order."""
        names = Names(self.names).take(indices)
        return dataclasses.replace(
            self,
            names=names,
            labels=None if self.labels is None else self.labels[indices],
            contents=None if self.contents is None else self.contents[indices],
            originals=None if self.originals is None else self.originals.take(indices),
            keys=names if self.keys is self.names else Names(self.keys).take(indices),
        )


Source = ArraySource | FileSource | TfdsSource | TfrecordSource


def in_memory(source: Source) -> ArraySource | FileSource:
    """Reads a source whole, so that every epoch is served from memory: decoded pixels as they are, files encoded."""
    if isinstance(source, ArraySource):
        return source
    if isinstance(source, FileSource):
        files = [tf.io.gfile.GFile(os.fsencode(path), "rb").read() for path in source.paths]
        return dataclasses.replace(source, contents=np.array(files, object))
    _, names, encoded, *labels = zip(*source.records().as_numpy_iterator(), strict=True)
    return FileSource(
        "",
        tuple(os.fsdecode(name) for name in names),
        np.array(labels[0], np.int64) if labels else None,
        source.class_names,
        contents=np.array(encoded, object),
        max_pixels=source.max_pixels,
    )


def holdout(source: ArraySource | FileSource | TfrecordSource, fraction: float) -> tuple[Any, Any]:
    """Splits a source that has no test part of its own.

    An example is held out if the hash of its key (the path relative to its folder; its position in an array), as a
    64-bit number, is below `fraction` * 2**64. So it is the same in every run, on every machine, whatever the seed,
    and an example that is added or removed moves no other one. In a set so small that one side would be empty, the
    example with the smallest (or largest) hash goes there.

    Args:
      source: an ArraySource, a FileSource or a TfrecordSource.
      fraction: part to hold out, in (0, 1), on the average.

    Returns:
      (rest, held_out), two sources of the same kind, each in the order of `source`.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"The fraction to hold out must be between 0 and 1. Received: {fraction}")
    if source.num_examples < 2:
        raise ValueError(f"At least two images are needed to hold a part of them out. Received: {source.num_examples}")
    hashes = np.array([_hash(key) for key in source.keys], np.uint64)
    is_held_out = hashes < np.uint64(fraction * 2**64)
    if not is_held_out.any():
        is_held_out[np.argmin(hashes)] = True
    elif is_held_out.all():
        is_held_out[np.argmax(hashes)] = False
    return source.subset(np.flatnonzero(~is_held_out)), source.subset(np.flatnonzero(is_held_out))


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


def number_classes(
    names: Sequence[str], class_names: Sequence[str] | None, place: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turns the names of classes into ids.

    Args:
      names: the class of every example.
      class_names: the classes and the order of their ids; by default the sorted names, numbers by their size.
      place: what holds the examples, for the error.

    Returns:
      (labels int64 [N], class names).

    Raises:
      ValueError: when there is a class that is not in `class_names`.
    """
    if class_names is None:
        are_numbers = all(name.isdecimal() for name in names)
        class_names = sorted(set(names), key=(lambda name: (int(name), name)) if are_numbers else None)
    ids = {class_name: index for index, class_name in enumerate(class_names)}
    unknown = sorted(set(names) - set(ids))
    if unknown:
        raise ValueError(
            f"{place!r} has a class that the images to train on do not have: rename or remove it. "
            f"Received: {unknown[0]!r}"
        )
    return np.array([ids[name] for name in names], np.int64), tuple(class_names)


def _count_classes(labels: np.ndarray | None, class_names: tuple[str, ...] | None) -> int | None:
    if labels is None:
        return None
    return len(class_names) if class_names else int(labels.max()) + 1


def _check_labels(labels: np.ndarray | None, count: int) -> None:
    if labels is not None and (labels.shape != (count,) or labels.dtype != np.int64):
        raise ValueError(
            f"The labels of {count} images must be int64 of shape [{count}]. "
            f"Received: {labels.dtype} {list(labels.shape)}"
        )

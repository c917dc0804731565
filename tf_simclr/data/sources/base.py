"""What every source of images answers, and the helpers that sources share."""

import abc
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from tf_simclr import files
from tf_simclr.data.files.broken import BrokenFiles
from tf_simclr.data.sources.order import Steps

# Sets of images of one small size up to this many decoded bytes are kept in memory.
MAX_CACHED_BYTES = 1 << 30
MAX_CACHED_SIDE_PX = 128

# Images that `Source.inspect` yields at a time.
INSPECTED_AT_ONCE = 256


class Sample(NamedTuple):
    """One image of a source: the number that its keys carry in training, its name, and its pixels uint8 [H, W, 3]."""

    number: int
    name: str
    image: np.ndarray


class Source(abc.ABC):
    """N images, with or without labels: the contract between what holds images and what reads them.

    Batches, checks, caches and runs know sources by these members alone. To add a source, subclass `EncodedSource`
    (any encoded images), `RecordSource` (encoded images that can only be read one after the other) or
    `RecordFileSource` (such images in files), and name what opens it in `sources/open.py`.

    Attributes:
      labels: int64 [N] in [0, number of classes). None where there are none, or where they come with the images only.
      class_names: The name of every class id, or None.
      broken: The files or records that turned out to be broken.
      has_one_size: Whether the images are decoded and known to have one size. If so, `train_examples` yields whole
        batches, which the device crops. If not, it yields images one by one, to be cropped before they are batched.
    """

    labels: np.ndarray | None
    class_names: tuple[str, ...] | None
    broken: BrokenFiles
    has_one_size: ClassVar[bool]

    @property
    @abc.abstractmethod
    def num_examples(self) -> int:
        """N, counting images that are not known to be broken yet."""

    @property
    @abc.abstractmethod
    def keys(self) -> Sequence[str]:
        """N names that are the same on every machine. They decide which examples are held out."""

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None without labels."""
        if self.labels is None:
            return None
        return len(self.class_names) if self.class_names else int(self.labels.max()) + 1

    @property
    def lost(self) -> dict[str, str]:
        """Name and reason of every example that reading the source does not come across."""
        return {}

    def identity(self) -> dict[str, Any]:
        """What a resumed run compares: the number of images, and digests of their names and of their labels."""
        identity = {"images": self.num_examples, "digest of the names": files.digest(self._identifying_bytes())}
        if self.labels is not None:
            identity["digest of the labels"] = files.digest(np.ascontiguousarray(self.labels).data)
        return identity

    def _identifying_bytes(self) -> Any:
        """Bytes, or a buffer of them, that tell these images from others."""
        return os.fsencode("\n".join(self.keys))  # Names may consist of any bytes.

    def subset(self, indices: np.ndarray) -> "Source":
        """The examples at `indices`, int64 [M], in that order. Data sets that come in named splits need none."""
        raise NotImplementedError(f"A part of a {type(self).__name__} cannot be taken")

    @abc.abstractmethod
    def train_examples(self, steps: Steps, reports: bool = True) -> tf.data.Dataset:
        """Reads what the wanted steps train on, in an order that follows from their seed alone.

        Another image of the source takes the place of a broken one, so that no other example moves.

        Args:
          steps: The wanted steps, and the batch size B.
          reports: Whether broken images are added to `broken`, and too many of them stop the run. False where the
            dataset runs in another process, which does not know this one's Python functions.

        Returns:
          Dataset of (key, image, label), or (key, image) without labels; B elements a step. Key is int64 [2], (epoch,
          number of the example); image uint8 [H, W, 3]; label int64 []. With `has_one_size` an element is a whole
          batch: keys int64 [B, 2], images uint8 [B, H, W, 3], labels int64 [B].
        """

    @abc.abstractmethod
    def eval_examples(self) -> tf.data.Dataset:
        """Reads every image once, in order, without the broken ones.

        Returns:
          Dataset of (image uint8 [H, W, 3], label int64 []), or (image,) without labels.
        """

    @abc.abstractmethod
    def sample(self, count: int) -> list[Sample]:
        """Decodes about `count` images from all over the source, or its first ones if it reads only in a row."""

    @abc.abstractmethod
    def inspect(self, look: Callable[[tf.Tensor], dict[str, tf.Tensor]]) -> Iterator[dict[str, np.ndarray]]:
        """Decodes every image once, in order, and looks at it.

        Args:
          look: Maps images of one size, uint8 [b, H, W, 3], to columns of numbers [b, ...].

        Yields:
          The columns of the next n images, those of `look` and:
            name: object [n], path of a file, FILE#record=INDEX of a record, or position in an array.
            signature: object [n], the first bytes of an encoded image; of a decoded one the suffix of its name.
            height, width: int32 [n], in pixels; 0 if the image is broken, and then `look` saw another one.
            reason: object [n], why the image is broken, or "".
            label: int64 [n], if there are labels.
        """

    @abc.abstractmethod
    def in_memory(self) -> "Source":
        """Reads the whole source, so that every epoch is served from memory."""

    @abc.abstractmethod
    def sample_encoded(self, count: int) -> list[bytes]:
        """About `count` encoded images, to estimate the size of all. Empty if the images are decoded already."""


def holdout(source: Source, fraction: float) -> tuple[Source, Source]:
    """Splits a source that has no test part of its own.

    An example is held out if the hash of its key (the path relative to its folder; its position in an array), as a
    64-bit number, is below `fraction` * 2**64. So it is the same in every run, on every machine, whatever the seed,
    and an example that is added or removed moves no other one. In a set so small that one side would be empty, the
    example with the smallest (or largest) hash goes there.

    Args:
      source: At least two examples, in a source that has `subset`.
      fraction: The part to hold out, in (0, 1), on average.

    Returns:
      (rest, held_out), two sources of the same kind, each in the order of `source`.

    Raises:
      ValueError: If the fraction is out of range or there are fewer than two examples.
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
    return int(files.digest(key.encode("utf-8", "surrogateescape")), 16)


def number_classes(
    names: Sequence[str], class_names: Sequence[str] | None, place: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turns the names of classes into ids.

    Args:
      names: The class of every example.
      class_names: The classes and the order of their ids; by default the sorted names, numbers by their size.
      place: What holds the examples, for the error.

    Returns:
      (labels int64 [N], class names).

    Raises:
      ValueError: If there is a class that is not in `class_names`.
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


def check_labels(labels: np.ndarray | None, count: int) -> None:
    """Raises a `ValueError` unless labels are int64 [count] or None."""
    if labels is not None and (labels.shape != (count,) or labels.dtype != np.int64):
        raise ValueError(
            f"The labels of {count} images must be int64 of shape [{count}]. "
            f"Received: {labels.dtype} {list(labels.shape)}"
        )

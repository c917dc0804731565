"""The interface of every source of images, and helpers that sources share."""

import abc
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from tf_simclr import files
from tf_simclr.data.files.broken import BrokenFiles
from tf_simclr.data.sources import subsets
from tf_simclr.data.sources.order import Steps

# Images of one small size are kept in memory if they take up to this many bytes decoded.
MAX_CACHED_BYTES = 1 << 30
MAX_CACHED_SIDE_PX = 128

# The part of the images that is held out where there is no part to test on.
HELD_OUT_FRACTION = 0.1

# Images that `Source.inspect` yields at a time.
INSPECTED_AT_ONCE = 256


class Sample(NamedTuple):
    """One image of a source: its number in the keys of training, its name, and its pixels uint8 [H, W, 3]."""

    number: int
    name: str
    image: np.ndarray


class Source(abc.ABC):
    """N images, with or without labels: the contract between what stores images and what reads them.

    Batches, checks, caches and runs use only these members of a source. To add a source, subclass `EncodedSource` (any
    encoded images), `RecordSource` (encoded images that can only be read in sequence) or `RecordFileSource` (such
    images in files), and call the function that opens it in `sources/open.py`.

    Attributes:
      labels: int64 [N] in [0, number of classes), -1 for an image without a label. None if no image has one, or if
        labels are read only with the images.
      class_names: The name of every class id, or None.
      broken: The files or records found broken.
      has_one_size: Whether the images are decoded and known to have one size. If so, `train_examples` yields whole
        batches, which the device crops. If not, it yields single images, which are cropped before they are batched.
      is_shuffled: Whether the order is random, so that the first images are a sample of all.
    """

    labels: np.ndarray | None
    class_names: tuple[str, ...] | None
    broken: BrokenFiles
    has_one_size: ClassVar[bool]
    is_shuffled: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def num_examples(self) -> int:
        """N, including images not yet known to be broken."""

    @property
    @abc.abstractmethod
    def keys(self) -> Sequence[str]:
        """N names that are the same on every machine. They decide which examples are held out."""

    @property
    def places(self) -> Sequence[str]:
        """Where each image is, N paths or names: what `broken` and `lost` call it."""
        return self.keys

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None without labels."""
        if self.labels is None or not self.is_labelled.any():
            return None
        return len(self.class_names) if self.class_names else int(self.labels.max()) + 1

    @property
    def is_labelled(self) -> np.ndarray:
        """Whether each image has a label, bool [N]; for labels that are read only with the images, whether any has."""
        if self.labels is None:
            return np.full(self.num_examples, self.num_classes is not None)
        return self.labels >= 0

    @property
    def lost(self) -> dict[str, str]:
        """The examples that reading the source does not find, {name: reason}."""
        return {}

    def identity(self) -> dict[str, Any]:
        """What a resumed run compares: the number of images, and digests of their names and of their labels."""
        identity = {"images": self.num_examples, "digest of the names": files.digest(self._identifying_bytes())}
        if self.labels is not None:
            identity["digest of the labels"] = files.digest(np.ascontiguousarray(self.labels).data)
        return identity

    def fingerprint(self) -> dict[str, Any]:
        """`identity`, and what else tells that an image has another content than before, at the cost of a look."""
        return self.identity()

    def _identifying_bytes(self) -> Any:
        """Bytes, or a buffer of them, that identify these images."""
        return os.fsencode("\n".join(self.keys))  # Names may consist of any bytes.

    @abc.abstractmethod
    def subset(self, indices: np.ndarray) -> "Source":
        """The examples at `indices`, int64 [M], increasing."""

    def few_labels(self, percent: int, draw: int = 0) -> "Source":
        """A class-balanced share of the labelled examples, as `subsets.class_balanced` chooses them.

        Args:
          percent: From 1 to 100.
          draw: Number of the draw.

        Raises:
          ValueError: If the labels are not known before the images are read.
        """
        return self.subset(self._few_labelled(percent, draw))

    def with_few_labels(self, percent: int) -> "Source":
        """The same examples, of which only those of `few_labels` keep their label; the others count as unlabelled."""
        kept = self._few_labelled(percent, draw=0)
        labels = np.full(self.num_examples, -1, np.int64)
        labels[kept] = np.asarray(self.labels)[kept]
        return dataclasses.replace(self, labels=labels)  # type: ignore[type-var]

    def _few_labelled(self, percent: int, draw: int) -> np.ndarray:
        if self.labels is None:
            raise ValueError(
                "A share of the labels can be drawn only where they are known before the images are read: put the "
                f"images into one folder for each class. Received: a {type(self).__name__}"
            )
        return subsets.class_balanced(self.keys, self.labels, percent / 100, draw)

    def unlabelled(self) -> "Source":
        """The same examples without their labels."""
        return dataclasses.replace(self, labels=None, class_names=None)  # type: ignore[type-var]

    @abc.abstractmethod
    def train_examples(self, steps: Steps, reports: bool = True) -> tf.data.Dataset:
        """Reads the examples of training steps, in an order that follows from the seed alone.

        Another image of the source replaces a broken one, so that no other example moves.

        Args:
          steps: The steps to read, and the batch size B.
          reports: Whether broken images are added to `broken`, and too many of them stop the run. False if the dataset
            runs in another process, which does not have this one's Python functions.

        Returns:
          Dataset of (key, image, label), or (key, image) without labels; B elements per step. Key is int64 [2], (epoch,
          number of the example); image uint8 [H, W, 3]; label int64 []. With `has_one_size`, an element is a whole
          batch: keys int64 [B, 2], images uint8 [B, H, W, 3], labels int64 [B].
        """

    @abc.abstractmethod
    def eval_examples(self, start: int = 0) -> tf.data.Dataset:
        """Reads every image once, in order, without the broken ones.

        Args:
          start: The position to start from.

        Returns:
          Dataset of (position int64 [], of the image in that order; key string []; image uint8 [H, W, 3]; label int64
          [], -1 if it has none; or bool [C] where an image may have several of C classes).
        """

    @abc.abstractmethod
    def sample(self, count: int) -> list[Sample]:
        """Decodes about `count` images spread over the source, or its first ones if it can only be read in sequence."""

    @abc.abstractmethod
    def inspect(
        self, look: Callable[[tf.Tensor], dict[str, tf.Tensor]], only: np.ndarray | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Decodes every image once, in order, and inspects it.

        Args:
          look: Maps images of one size, uint8 [b, H, W, 3], to columns of numbers [b, ...].
          only: The positions of the images to inspect, int64 [M] and increasing; by default all.

        Yields:
          The columns of the next n images, those of `look` and:
            name: object [n], path of a file, FILE#record=INDEX of a record, or position in an array.
            signature: object [n], the first bytes of an encoded image, or the suffix of a decoded image's name.
            height, width: int32 [n], in pixels; 0 if the image is broken, in which case `look` saw another one.
            reason: object [n], why the image is broken, or "".
            label: int64 [n], if there are labels.
        """

    @abc.abstractmethod
    def in_memory(self) -> "Source":
        """Reads the whole source into memory, which then serves every epoch."""

    @abc.abstractmethod
    def sample_encoded(self, count: int) -> list[bytes]:
        """About `count` encoded images, to estimate the size of all. Empty if the images are decoded already."""


def holdout(source: Source, fraction: float = HELD_OUT_FRACTION) -> tuple[Source, Source]:
    """Splits a source that has no test part of its own.

    An example is held out if the hash of its key (the path relative to its folder; its position in an array), as a
    64-bit number, is below `fraction` * 2**64. So the split is the same in every run, on every machine and for every
    seed, and adding or removing an example moves no other one. If one side would be empty, as in a very small set, the
    example with the smallest (or largest) hash goes there. Where some examples have labels, the others stay in the
    rest: nothing could be tested on them.

    Args:
      source: At least two examples, in a source that has `subset`.
      fraction: The average fraction to hold out, in (0, 1).

    Returns:
      (rest, held_out), two sources of the same kind, each in the order of `source`.

    Raises:
      ValueError: If the fraction is out of range or there are fewer than two examples.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"The fraction to hold out must be between 0 and 1. Received: {fraction}")
    if source.num_examples < 2:
        raise ValueError(f"Holding out a part of the images takes at least two. Received: {source.num_examples}")
    hashes = np.array([_hash(key) for key in source.keys], np.uint64)
    candidates = np.arange(len(hashes)) if source.num_classes is None else np.flatnonzero(source.is_labelled)
    is_held_out = hashes[candidates] < np.uint64(fraction * 2**64)
    if not is_held_out.any():
        is_held_out[np.argmin(hashes[candidates])] = True
    elif is_held_out.all():
        is_held_out[np.argmax(hashes[candidates])] = False
    held_out = candidates[is_held_out]
    return source.subset(np.setdiff1d(np.arange(len(hashes)), held_out)), source.subset(held_out)


def can_be_learnt(labels: np.ndarray) -> bool:
    """Whether a classifier can learn from labels, int64 [N]: two classes, and two images in one of them."""
    counts = np.unique(labels[labels >= 0], return_counts=True)[1]
    return len(counts) > 1 and int(counts.max()) > 1


def in_part(keys: Iterable[str], part: int, count: int) -> np.ndarray:
    """The positions of the keys in one of so many parts, int64 [n]; the hash of a key alone decides on its part."""
    return np.array([position for position, key in enumerate(keys) if _hash(key) % count == part], np.int64)


def _hash(key: str) -> int:
    return int(files.digest(key.encode("utf-8", "surrogateescape")), 16)


def number_classes(
    names: Sequence[str | None], class_names: Sequence[str] | None, place: str
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Turns class names into ids.

    Args:
      names: The class of every example; None, "" or, beside two other numbers, "-1" if it is unknown.
      class_names: The classes in the order of their ids; by default the sorted names, or numbers in numeric order.
      place: Where the examples are, for the error.

    Returns:
      (labels int64 [N], -1 where the class is unknown; class names), or (None, None) if no class is known, or only one
      without `class_names`.

    Raises:
      ValueError: If a class is not in `class_names`.
    """
    found = {name for name in names if name}
    if (len(found) > 2 and _are_numbers(found)) if class_names is None else ("-1" not in class_names):
        found.discard("-1")
    if not found or (class_names is None and len(found) < 2):
        return None, None
    if class_names is None:
        class_names = sorted(found, key=(lambda name: (int(name), name)) if _are_numbers(found) else None)
    if unknown := sorted(found - set(class_names)):
        raise ValueError(
            f"{place!r} has a class that the training images lack: rename or remove it. Received: {unknown[0]!r}"
        )
    ids: dict[str | None, int] = {class_name: index for index, class_name in enumerate(class_names)}
    return np.array([ids.get(name, -1) for name in names], np.int64), tuple(class_names)


def _are_numbers(names: Iterable[str]) -> bool:
    return all(name.removeprefix("-").isdecimal() for name in names)


def check_labels(labels: np.ndarray | None, count: int) -> None:
    """Raises a `ValueError` unless labels are int64 [count], at least -1, or None."""
    if labels is None:
        return
    if labels.shape != (count,) or labels.dtype != np.int64:
        raise ValueError(
            f"The labels of {count} images must be int64 of shape [{count}]. "
            f"Received: {labels.dtype} {list(labels.shape)}"
        )
    if count and labels.min() < -1:
        raise ValueError(f"A label must be a class, at least 0, or -1 if it is unknown. Received: {labels.min()}")

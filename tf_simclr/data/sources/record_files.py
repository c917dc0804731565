"""A source from files of records in any format, whose records are numbered when the files are opened."""

import abc
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import tensorflow as tf

from tf_simclr.data.files.broken import RECORD_SEPARATOR, BrokenFiles, digest_of_files
from tf_simclr.data.formats import decode
from tf_simclr.data.formats.headers import MAX_PIXELS
from tf_simclr.data.sources.base import number_classes
from tf_simclr.data.sources.encoded import hold
from tf_simclr.data.sources.records import RecordSource


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RecordFileSource(RecordSource):
    """Files of records. A subclass says how to read one: `read_file` yields its records, `image_in` finds their images.

    Attributes:
      files: The files.
      counts: The number of records in each of them.
      indices: int64 [N], increasing: the positions of the examples among all records of all files.
      labels: int64 [N], -1 for an unknown one, or None.
      class_names: The name of every class id, or None.
      max_pixels: Images with more pixels count as broken.
      broken: Collects the records found broken after the files were opened.
      contents: The encoded images, object [N], if the source holds them; None if they are read each time.
    """

    kind: ClassVar[str]  # The name of the format in messages.

    files: tuple[str, ...]
    counts: tuple[int, ...]
    indices: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    max_pixels: int = MAX_PIXELS
    broken: BrokenFiles = dataclasses.field(default_factory=BrokenFiles)
    contents: np.ndarray | None = None

    @abc.abstractmethod
    def read_file(self, file: tf.Tensor) -> tf.data.Dataset:
        """The records of one file, string [] each, in order. Records that cannot be read are left out."""

    def image_in(self, record: tf.Tensor) -> tf.Tensor:
        """The encoded image, string [], of a record that is an example; by default the record itself."""
        return record

    @property
    def num_examples(self) -> int:
        return len(self.indices)

    @property
    def name(self) -> str:
        return self.files[0]

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        names = record_names(self.files, self.counts)
        return tuple(names[i] for i in self.indices)

    def _digest_of_content(self) -> str:
        return digest_of_files(self.files)

    def subset(self, indices: np.ndarray) -> "RecordFileSource":
        """The examples at `indices`, int64 [M], increasing."""
        labels = None if self.labels is None else self.labels[indices]
        contents = None if self.contents is None else self.contents[indices]
        return dataclasses.replace(self, indices=self.indices[indices], labels=labels, contents=contents)

    def in_memory(self) -> "RecordFileSource":
        """The same examples in the same order, but for those that can no longer be read."""
        if self.contents is not None:
            return self
        numbers, _, encoded, *labels = zip(*self.records().as_numpy_iterator(), strict=True)
        if len(numbers) < self.num_examples:
            self.broken.add(self.lost)
        return dataclasses.replace(
            self,
            indices=np.array(numbers, np.int64),
            labels=np.array(labels[0], np.int64) if labels else None,
            contents=np.array(encoded, object),
        )

    @functools.cached_property
    def _held(self) -> tf.Tensor:
        return hold(self.contents)

    def records(self, shuffle_seed: tf.Tensor | None = None) -> tf.data.Dataset:
        firsts = tf.constant(np.cumsum((0, *self.counts[:-1])), tf.int64)
        counts = tf.constant(self.counts, tf.int64)
        files = tf.constant([os.fsencode(file) for file in self.files])
        order = tf.range(len(self.files))
        if shuffle_seed is not None:
            seeds = tf.stack([shuffle_seed, tf.constant(0, tf.int64)])
            order = tf.argsort(tf.random.stateless_uniform([len(self.files)], seeds, alg="philox"), stable=True)
        in_order = tf.data.Dataset.from_tensor_slices(order)
        if self.contents is not None:
            return in_order.flat_map(
                lambda i: self._kept_records(*(tf.gather(one, i) for one in (files, firsts, counts)))
            )
        # The label of every record: 0 without labels, -2 if the record is not an example.
        wanted = np.full(sum(self.counts), -2, np.int64)
        wanted[self.indices] = 0 if self.labels is None else self.labels
        table = tf.constant(wanted)

        def read_file(index: tf.Tensor) -> tf.data.Dataset:
            # A truncated file ends at its last complete record.
            file, first = tf.gather(files, index), tf.gather(firsts, index)
            records = self.read_file(file).ignore_errors().enumerate(first)
            named = records.map(lambda i, record: (i, _name_record(file, i - first), record, tf.gather(table, i)))
            return named.filter(lambda number, name, record, label: label > -2)

        def pick(number: tf.Tensor, name: tf.Tensor, record: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return number, name, self.image_in(record), *(() if self.labels is None else (label,))

        found = in_order.flat_map(read_file).map(pick)
        return found.take(self.num_examples)  # What follows the last one is not read.

    def _kept_records(self, file: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
        """The records of a file, as `records` gives them, from memory; the number of its first one, and how many."""
        numbers = tf.constant(self.indices, tf.int64)
        labels = [] if self.labels is None else [tf.constant(self.labels, tf.int64)]

        def record(place: tf.Tensor) -> tuple[tf.Tensor, ...]:
            number, encoded, *label = [tf.gather(column, place) for column in (numbers, self._held, *labels)]
            return number, _name_record(file, number - first), encoded, *label

        places = tf.where((numbers >= first) & (numbers < first + count))[:, 0]
        return tf.data.Dataset.from_tensor_slices(places).map(record)


def _name_record(file: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    return tf.strings.join([file, RECORD_SEPARATOR, tf.strings.as_string(index)])


def record_names(files: Sequence[str], counts: Sequence[int]) -> list[str]:
    """The names of all records of some files."""
    return [f"{file}{RECORD_SEPARATOR}{i}" for file, count in zip(files, counts, strict=True) for i in range(count)]


def choose_name(role: str, wanted: str | None, common: Sequence[str], found: Sequence[str], where: str) -> str | None:
    """The name under which records hold their image or their label.

    Args:
      role: "image" or "label".
      wanted: The name that the user chose; by default the first of the common ones that is found.
      common: Names to look for.
      found: The names that there are.
      where: What has these names, for the error: "The records of FILE have no {role} feature".

    Returns:
      The name; None for a label if no common name is found.

    Raises:
      ValueError: If there is no such name.
    """
    name = wanted or next((name for name in common if name in found), None)
    if name not in found and (role == "image" or name is not None):
        raise ValueError(
            f"{where} of that name: choose one with --set=data.{role}_feature=NAME, one of "
            f"{', '.join(found)}. Received: {name}"
        )
    return name


def open_records(
    make: Callable[..., RecordFileSource],
    files: Sequence[str],
    scans: Sequence[Sequence[tuple[bool, str | None]]],
    *,
    class_names: Sequence[str] | None,
    broken: BrokenFiles,
    place: str,
    missing: str,
) -> RecordFileSource:
    """Makes a source of the records with an image that can be decoded.

    Args:
      make: Makes the source from its fields `files`, `counts`, `indices`, `labels`, `class_names` and `broken`.
      files: The files.
      scans: For each record of each file, whether it has an image, and the name of its class or None.
      class_names: The classes in the order of their ids; by default those of the records.
      broken: Collects the records without an image or with a broken one.
      place: The user's name for the files, for errors.
      missing: The reason to give for a record without an image.

    Raises:
      ValueError: If no image can be decoded, or a class is not in `class_names`.
    """
    counts = tuple(len(scan) for scan in scans)
    found = [record for scan in scans for record in scan]
    indices = np.flatnonzero([has_image for has_image, _ in found])
    labels, names = number_classes([found[i][1] for i in indices], class_names, place)
    source = make(files=tuple(files), counts=counts, indices=indices, labels=labels, class_names=names, broken=broken)
    record_keys = record_names(files, counts)
    broken.num_files += len(found)
    broken.add({record_keys[i]: missing for i in np.setdiff1d(np.arange(len(found)), indices)})
    return _without_broken(source)


def _without_broken(source: RecordFileSource) -> RecordFileSource:
    """Decodes every image once, unless an earlier run did, and leaves out the broken ones."""
    broken = source.broken

    def position_of(position: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([decode.decode_image(encoded, source.max_pixels)]):
            return tf.identity(position)

    state = broken.state_of(source.files)
    if not broken.is_checked(state):
        images = source.records().map(lambda number, name, image, *label: image)
        readable = images.enumerate().map(position_of, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
        bad = np.setdiff1d(np.arange(source.num_examples), list(readable.as_numpy_iterator()))
        if bad.size:
            bad_records = source.subset(bad).records().as_numpy_iterator()
            broken.add({os.fsdecode(name): source.why_broken(image) for _, name, image, *_ in bad_records})
        broken.mark_checked(state)
    kept = np.array([i for i, name in enumerate(source.names) if name not in broken], np.int64)
    if not kept.size:
        raise ValueError(f"No image of the {source.kind} files can be decoded. Received: {source.files[0]!r}")
    return source.subset(kept)

"""Sources that are streamed: they are read record by record, because they do not fit in memory."""

import dataclasses
import functools
import os
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr.data.formats.headers import MAX_PIXELS
from tf_simclr.data.quality.broken import RECORD_SEPARATOR, BrokenFiles

_MAX_NUMBER = 2**31 - 1


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSource:
    """A TFDS data set that is read record by record: its images vary in size or do not fit in memory.

    Attributes:
      builder: the prepared `tfds.core.DatasetBuilder`.
      split: TFDS split expression, for example "train" or "train[:90%]".
      image_feature: name of the feature that is the image.
      label_feature: name of the feature that is the class, or None.
      class_names: name of every class id, or None.
      max_pixels: larger images count as broken.
      broken: gets the records that turn out to be broken.
    """

    builder: Any
    split: str
    image_feature: str = "image"
    label_feature: str | None = None
    class_names: tuple[str, ...] | None = None
    max_pixels: int = MAX_PIXELS
    broken: BrokenFiles = dataclasses.field(default_factory=BrokenFiles)

    @property
    def num_examples(self) -> int:
        return self.builder.info.splits[self.split].num_examples

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None without labels."""
        return len(self.class_names or ()) if self.labelled else None

    @property
    def labelled(self) -> bool:
        """Whether the examples carry a class."""
        return self.label_feature is not None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return str(self.builder.data_path)

    @property
    def labels(self) -> None:
        """None: the labels are known only as the records are read."""
        return None

    @functools.cached_property
    def keys(self) -> tuple[str, ...]:
        """The names of all records, as they should be."""
        files = self.builder.info.splits[self.split].file_instructions
        return tuple(
            f"{file.filename}{RECORD_SEPARATOR}{index}"
            for file in files
            for index in range(file.skip, file.skip + file.take)
        )

    def records(self, shuffle_seed: tf.Tensor | None = None) -> tf.data.Dataset:
        """Reads every example once, still encoded.

        Args:
          shuffle_seed: int64 scalar from which the order of the record files follows; None reads them in
            order.

        Returns:
          Dataset of (number of the example, int64 scalar, the same in every order; name, "FILE#record=INDEX"; encoded
          image, a string scalar; label, an int64 scalar), or without the label where there are none.
        """
        import tensorflow_datasets as tfds  # Slow to import, and needed by TFDS users only.

        read_config = tfds.ReadConfig(
            shuffle_seed=shuffle_seed,
            shuffle_reshuffle_each_iteration=False,
            try_autocache=False,
            enable_ordering_guard=False,
            assert_cardinality=False,
            add_tfds_id=True,
        )
        dataset = self.builder.as_dataset(
            split=self.split,
            shuffle_files=shuffle_seed is not None,
            read_config=read_config,
            decoders={self.image_feature: tfds.decode.SkipDecoding()},
        )

        def pick(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
            tfds_id = example["tfds_id"]  # FILE__INDEX
            file = tf.strings.regex_replace(tfds_id, r"__\d+$", "")
            index = tf.strings.regex_replace(tfds_id, r"^.*__", "")
            folder = os.path.join(self.name, "")
            label = () if self.label_feature is None else (tf.cast(example[self.label_feature], tf.int64),)
            return (
                tf.strings.to_hash_bucket_fast(tfds_id, _MAX_NUMBER),
                tf.strings.join([folder, file, RECORD_SEPARATOR, index]),
                example[self.image_feature],
                *label,
            )

        # A file that is damaged ends there.
        return dataset.ignore_errors().map(pick)


@dataclasses.dataclass(frozen=True, eq=False)
class TfrecordSource:
    """TFRecord files of tf.train.Example that are read record by record.

    Attributes:
      files: the files.
      counts: the number of records in each of them.
      indices: int64 [N], increasing: which of all the records, counted through the files, the examples are.
      image_feature: name of the bytes feature that holds the encoded image.
      keys: "FILE#record=INDEX" of every example: what decides which are held out.
      labels: int64 [N], or None.
      class_names: name of every class id, or None.
      max_pixels: larger images count as broken.
      broken: gets the records that turn out to be broken after the files were opened.
    """

    files: tuple[str, ...]
    counts: tuple[int, ...]
    indices: np.ndarray
    image_feature: str
    keys: tuple[str, ...]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    max_pixels: int = MAX_PIXELS
    broken: BrokenFiles = dataclasses.field(default_factory=BrokenFiles)

    @property
    def num_examples(self) -> int:
        return len(self.indices)

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None without labels."""
        return len(self.class_names or ()) if self.labelled else None

    @property
    def labelled(self) -> bool:
        """Whether the examples carry a class."""
        return self.labels is not None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.files[0]

    def subset(self, indices: np.ndarray) -> "TfrecordSource":
        """The examples at `indices` (int64 [M], increasing)."""
        return dataclasses.replace(
            self,
            indices=self.indices[indices],
            keys=tuple(self.keys[i] for i in indices),
            labels=None if self.labels is None else self.labels[indices],
        )

    def records(self, shuffle_seed: tf.Tensor | None = None) -> tf.data.Dataset:
        """Reads every example once, as `TfdsSource.records` does."""
        # For every record its label; without labels 0; -1 where it is no example.
        wanted = np.full(sum(self.counts), -1, np.int64)
        wanted[self.indices] = 0 if self.labels is None else self.labels
        table = tf.constant(wanted)
        firsts = tf.constant(np.cumsum((0, *self.counts[:-1])), tf.int64)
        order = tf.range(len(self.files))
        if shuffle_seed is not None:
            seeds = tf.stack([shuffle_seed, tf.constant(0, tf.int64)])
            order = tf.argsort(tf.random.stateless_uniform([len(self.files)], seeds, alg="philox"), stable=True)

        def read_file(index: tf.Tensor) -> tf.data.Dataset:
            # A file that is cut off ends at its last whole record.
            file, first = tf.gather(list(self.files), index), tf.gather(firsts, index)
            records = tf.data.TFRecordDataset(file).ignore_errors().enumerate(first)
            named = records.map(lambda i, record: (i, _record_name(file, i - first), record, tf.gather(table, i)))
            return named.filter(lambda number, name, record, label: label >= 0)

        def parse(number: tf.Tensor, name: tf.Tensor, record: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, ...]:
            feature = {self.image_feature: tf.io.FixedLenFeature([], tf.string)}
            image = tf.io.parse_single_example(record, feature)[self.image_feature]
            return number, name, image, *((label,) if self.labelled else ())

        return tf.data.Dataset.from_tensor_slices(order).flat_map(read_file).map(parse)


def _record_name(file: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    return tf.strings.join([file, RECORD_SEPARATOR, tf.strings.as_string(index)])

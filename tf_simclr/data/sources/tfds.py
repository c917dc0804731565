"""A source from TensorFlow Datasets (TFDS), which is imported only when used, because that takes seconds."""

import dataclasses
import difflib
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr import files
from tf_simclr.data.files.broken import RECORD_SEPARATOR, BrokenFiles
from tf_simclr.data.formats.headers import MAX_PIXELS
from tf_simclr.data.sources import tfrecord
from tf_simclr.data.sources.array import ArraySource
from tf_simclr.data.sources.base import MAX_CACHED_BYTES, MAX_CACHED_SIDE_PX, Source
from tf_simclr.data.sources.records import RecordSource

_MAX_NUMBER = 2**31 - 1


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSource(RecordSource):
    """A TFDS data set read record by record, because its images vary in size or do not fit in memory.

    Attributes:
      builder: The prepared `tfds.core.DatasetBuilder`.
      split: TFDS split expression, for example "train" or "train[:90%]".
      image_feature: The name of the image feature.
      label_feature: The name of the class feature, or None. If an image has a list of classes, `eval_examples` gives it
        bool [C], whether it has each of them; such a source is to evaluate on, not to train on.
      class_names: The name of every class id, or None.
      max_pixels: Images with more pixels count as broken.
      broken: Collects the records found broken.
      indices: int64 [N], increasing: the positions of the examples in the split; None stands for all.
      labels: None: the labels are known only as the records are read.
    """

    is_shuffled = True  # TFDS shuffles what it writes.

    builder: Any
    split: str
    image_feature: str = "image"
    label_feature: str | None = None
    class_names: tuple[str, ...] | None = None
    max_pixels: int = MAX_PIXELS
    broken: BrokenFiles = dataclasses.field(default_factory=BrokenFiles)
    indices: np.ndarray | None = None
    labels: np.ndarray | None = dataclasses.field(default=None, init=False)

    @property
    def num_examples(self) -> int:
        return self.builder.info.splits[self.split].num_examples if self.indices is None else len(self.indices)

    @property
    def num_classes(self) -> int | None:
        return None if self.label_feature is None else len(self.class_names or ())

    @property
    def has_several_labels(self) -> bool:
        """Whether an image has a list of classes."""
        return self.label_feature is not None and len(self.builder.info.features[self.label_feature].shape) == 1

    @property
    def name(self) -> str:
        return str(self.builder.data_path)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        instructions = self.builder.info.splits[self.split].file_instructions
        names = [
            f"{file.filename}{RECORD_SEPARATOR}{index}"
            for file in instructions
            for index in range(file.skip, file.skip + file.take)
        ]
        return tuple(names if self.indices is None else (names[index] for index in self.indices))

    def subset(self, indices: np.ndarray) -> "TfdsSource":
        """The examples at `indices`, int64 [M], increasing."""
        return dataclasses.replace(self, indices=indices if self.indices is None else self.indices[indices])

    def _identifying_bytes(self) -> bytes:
        if self.indices is not None:
            return super()._identifying_bytes()
        return f"{self.builder.info.full_name} {self.split}".encode()

    def _digest_of_content(self) -> str:
        # A prepared data set does not change under its version.
        return files.digest(f"{self.image_feature} {self.label_feature}".encode())

    def why_lost(self, file: str) -> str:
        return tfrecord.damage(file) or super().why_lost(file)

    def few_labels(self, percent: int, draw: int = 0) -> "Source":
        """Of ImageNet, 1 and 10 % are those of the reference, which TFDS has as a data set of its own."""
        is_whole = self.indices is None and (self.builder.name, self.split) == ("imagenet2012", "train")
        if not is_whole or draw or percent not in (1, 10):
            return super().few_labels(percent, draw)
        return from_tfds(
            f"imagenet2012_subset/{percent}pct",
            "train",
            str(self.builder.data_path.parents[1]),  # Below it are the data sets' names and versions.
            image_feature=self.image_feature,
            label_feature=self.label_feature,
            download=False,
            max_pixels=self.max_pixels,
        )

    def records(self, shuffle_seed: tf.Tensor | None = None) -> tf.data.Dataset:
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
            return (
                tf.strings.to_hash_bucket_fast(tfds_id, _MAX_NUMBER),
                tf.strings.join([folder, file, RECORD_SEPARATOR, index]),
                example[self.image_feature],
                *self._label_of(example),
            )

        # A damaged file ends where the damage starts.
        records = dataset.ignore_errors().map(pick)
        if self.indices is None:
            return records
        numbers = tf.range(self.num_examples, dtype=tf.int64)
        wanted = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(list(self.names), numbers), -1)
        wanted_records = records.filter(lambda number, name, *_: wanted.lookup(name) >= 0)
        return wanted_records.take(self.num_examples)  # What follows the last one is not read.

    def _label_of(self, example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        if self.label_feature is None:
            return ()
        label = tf.cast(example[self.label_feature], tf.int64)
        if self.has_several_labels:
            label = tf.reduce_any(label[:, tf.newaxis] == tf.range(self.num_classes, dtype=tf.int64), axis=0)
        return (label,)


def from_tfds(
    name: str,
    split: str,
    data_dir: str | None = None,
    *,
    image_feature: str | None = None,
    label_feature: str | None = None,
    several_labels: bool = False,
    download: bool = True,
    max_pixels: int = MAX_PIXELS,
    max_cached_bytes: int = MAX_CACHED_BYTES,
    broken: BrokenFiles | None = None,
) -> ArraySource | TfdsSource:
    """Opens one split of a TFDS data set that has an image and, for labels, a class, under any names.

    Args:
      name: TFDS name, for example "cifar10" or "imagenet2012:5.1.0".
      split: TFDS split expression, for example "train" or "train[:90%]".
      data_dir: Folder of prepared TFDS data sets; by default TFDS's own.
      image_feature: The name of the image feature; by default the feature of this type.
      label_feature: The name of the class feature; by default the feature of this type, if any.
      several_labels: Whether to read lists of classes, by default the feature named "labels"; see `TfdsSource`.
      download: Whether to download and prepare a data set that is not in `data_dir`.
      max_pixels: Images with more pixels count as broken.
      max_cached_bytes: Images of one fixed size, at most 128 px, are decoded to memory if they fit in this.
      broken: Collects the broken records.

    Returns:
      An ArraySource for small images of one size, else a TfdsSource.

    Raises:
      ValueError: If TFDS has no such data set or split, its examples have no image, or the choice of a feature is
        ambiguous.
      FileNotFoundError: If the data set is not prepared, and may not or cannot be downloaded.
    """
    builder = _find_builder(name, data_dir)
    _prepare(builder, name, download)
    available = sorted(builder.info.splits)
    try:
        builder.info.splits[split]
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"TFDS data set {name!r} has the splits {', '.join(available)}. Received: {split!r}"
        ) from error
    image_feature, label_feature, class_names = _choose_features(builder, image_feature, label_feature, several_labels)
    broken = broken if broken is not None else BrokenFiles()
    source = TfdsSource(builder, split, image_feature, label_feature, class_names, max_pixels, broken)
    broken.num_files += source.num_examples
    shape = builder.info.features[image_feature].shape
    if several_labels or None in shape[:2] or max(shape[:2]) > MAX_CACHED_SIDE_PX:
        return source
    if source.num_examples * shape[0] * shape[1] * 3 > max_cached_bytes:
        return source
    return _load_array(source)


def _find_builder(name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    if data_dir is None and "TFDS_DATA_DIR" not in os.environ and os.path.expanduser("~") == "~":
        raise ValueError(
            "TFDS keeps its data sets in the user's home, and this user has none: use --data_dir, or set "
            f"TFDS_DATA_DIR. Received: {name!r}"
        )
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        nearest = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else "see https://www.tensorflow.org/datasets/catalog."
        raise ValueError(f"There is no TFDS data set of this name: {hint} Received: {name!r}") from error


def _prepare(builder: Any, name: str, download: bool) -> None:
    import tensorflow_datasets as tfds

    if builder.info.splits:
        return
    advice = "prepare it there with `tfds build`, or train on a folder of images"
    if not download:
        raise FileNotFoundError(f"The TFDS data set is not in {builder.data_path}: {advice}. Received: {name!r}")
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()  # Its bars would fill a log with lines.
    try:
        builder.download_and_prepare()
    except (OSError, AssertionError, tfds.download.DownloadError) as error:
        # TFDS raises an AssertionError to ask for files that must be downloaded by hand.
        reason = str(error).strip().split("\n")[0]
        raise FileNotFoundError(
            f"The TFDS data set is not in {builder.data_path} and could not be downloaded ({reason}): "
            f"{advice}. Received: {name!r}"
        ) from error


def _choose_features(
    builder: Any, image_feature: str | None, label_feature: str | None, several_labels: bool
) -> tuple[str, str | None, tuple[str, ...] | None]:
    """(name of the image feature, name of the class feature or None, class names or None)."""
    import tensorflow_datasets as tfds

    features = builder.info.features

    def is_label(feature: Any) -> bool:
        if several_labels:
            feature = feature.feature if isinstance(feature, tfds.features.Sequence) else None
        return isinstance(feature, tfds.features.ClassLabel)

    image = _feature_of_type(builder, "image", lambda feature: isinstance(feature, tfds.features.Image), image_feature)
    if image is None:
        raise ValueError(
            f"The TFDS data set has no image feature, only {', '.join(features)}. Received: {builder.name!r}"
        )
    label = _feature_of_type(builder, "labels" if several_labels else "label", is_label, label_feature)
    return image, label, None if label is None else tuple(features[label].names)


def _feature_of_type(builder: Any, role: str, is_of_type: Callable[[Any], bool], wanted: str | None) -> str | None:
    """The only feature of a type, or else the one named like its role; None if there is none."""
    found = sorted(name for name, feature in builder.info.features.items() if is_of_type(feature))
    if wanted is None and (len(found) < 2 or role in found):
        return role if role in found else next(iter(found), None)
    if wanted not in found:
        raise ValueError(
            f"The TFDS data set {builder.name!r} has no single obvious feature for the {role}: choose one with "
            f"--set=data.{role}_feature=NAME, one of {', '.join(found) or 'none'}. Received: {wanted}"
        )
    return wanted


def _load_array(source: TfdsSource) -> ArraySource:
    columns = list(zip(*source.eval_examples().batch(256).as_numpy_iterator(), strict=True))
    if not columns:
        raise ValueError(f"No image of the TFDS data set can be decoded. Received: {source.name!r}")
    images, labels = map(np.concatenate, columns[2:])
    if len(images) < source.num_examples:
        source.broken.add(source.lost)
    # The examples of a split without labels have the label -1.
    has_labels = (labels >= 0).any()
    return ArraySource(images, labels if has_labels else None, source.class_names if has_labels else None)

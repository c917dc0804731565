"""TFRecord files of tf.train.Example as a source."""

import functools
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from tf_simclr.data.files import listing, walk
from tf_simclr.data.formats import decode
from tf_simclr.data.formats.headers import MAX_PIXELS
from tf_simclr.data.quality.broken import RECORD_SEPARATOR, BrokenFiles, broken_reason, in_short
from tf_simclr.data.sources.base import number_classes
from tf_simclr.data.sources.streams import TfrecordSource

# The names that are common in TFRecord files, the first one found is taken.
IMAGE_FEATURES = ("image/encoded", "image", "image_raw", "image_bytes", "jpeg", "png", "encoded")
LABEL_FEATURES = ("image/class/label", "label", "class", "image/class/text", "image/label", "class_id")

_IS_TFRECORD = re.compile(r"\.tfrec(ords?)?(\b|$|-)|-\d+-of-\d+$")


def are_tfrecords(place: str) -> bool:
    """Whether a path, pattern or folder means TFRecord files: NAME.tfrecord, or shards such as NAME-00000-of-00010."""
    return any(_IS_TFRECORD.search(os.path.basename(file)) for file in _files(place)[:1])


def _files(place: str) -> list[str]:
    """What a path or pattern stands for; in place of a folder without images or folders its TFRecord files."""
    if not walk.is_folder(place) or any(True for _ in walk.readable_entries(place)):
        return listing.expand(place)
    names = os.listdir(place) if walk.is_local(place) else tf.io.gfile.listdir(place)
    names = sorted(name for name in names if _IS_TFRECORD.search(name) and not name.startswith("."))
    return [os.path.join(place, name) for name in names] or [place]


def from_tfrecords(
    data_dir: str,
    *,
    class_names: Sequence[str] | None = None,
    image_feature: str | None = None,
    label_feature: str | None = None,
    max_pixels: int = MAX_PIXELS,
    broken: BrokenFiles | None = None,
) -> TfrecordSource:
    """Opens TFRecord files; reads them once, to decode every image and to count the classes.

    Args:
      data_dir: files, patterns, or folders of nothing else, comma-separated.
      class_names: the classes and the order of their ids; by default those that the labels name.
      image_feature: the bytes feature that holds an encoded image; by default the first of IMAGE_FEATURES there is.
      label_feature: the feature of the class, an integer or a text; by default the first of LABEL_FEATURES there is.
      max_pixels: larger images count as broken.
      broken: gets the records that cannot be used.

    Raises:
      FileNotFoundError: when there is no such file.
      ValueError: when there is no record, or no feature of that name, or a class that is not in `class_names`.
    """
    broken = broken if broken is not None else BrokenFiles()
    files = tuple(dict.fromkeys(file for place in listing.split_places(data_dir) for file in _files(place)))
    image_feature, label_feature = _choose_features(files, image_feature, label_feature)
    scans = [_scan(file, image_feature, label_feature, broken) for file in files]
    counts = tuple(len(scan) for scan in scans)
    keys = [f"{file}{RECORD_SEPARATOR}{i}" for file, count in zip(files, counts, strict=True) for i in range(count)]
    classes = [class_name for scan in scans for _, class_name in scan]
    indices = np.flatnonzero([has_image for scan in scans for has_image, _ in scan])
    labels = None
    if label_feature is not None and all(classes[i] is not None for i in indices):
        labels, class_names = number_classes([str(classes[i]) for i in indices], class_names, data_dir)
    source = TfrecordSource(
        files,
        counts,
        indices,
        image_feature,
        tuple(keys[i] for i in indices),
        labels,
        tuple(class_names) if labels is not None and class_names is not None else None,
        max_pixels,
        broken,
    )
    broken.num_files += len(keys)
    broken.add({keys[i]: f"no feature {image_feature}" for i in np.setdiff1d(np.arange(len(keys)), indices)})
    return _without_broken(source, broken)


def _choose_features(
    files: Sequence[str], image_feature: str | None, label_feature: str | None
) -> tuple[str, str | None]:
    """The names of the image and of the label, from the first record."""
    first = next((record for file in files for record in _read(file, None)), None)
    if first is None:
        raise ValueError(f"The TFRecord files hold no record. Received: {', '.join(files)!r}")
    features = tf.train.Example.FromString(first).features.feature
    image = image_feature or next((name for name in IMAGE_FEATURES if name in features), None)
    label = label_feature or next((name for name in LABEL_FEATURES if name in features), None)
    for field, name in (("image", image), ("label", label)):
        if (field == "image" or name is not None) and str(name) not in features:
            raise ValueError(
                f"The records of {files[0]} have no {field} of that name: name the feature with "
                f"--set=data.{field}_feature=NAME, one of {', '.join(sorted(features))}. Received: {name}"
            )
    return str(image), label


def _read(file: str, broken: BrokenFiles | None) -> Iterator[bytes]:
    """The records of a file, to its end or to where it is damaged."""
    try:
        yield from tf.data.TFRecordDataset(file).as_numpy_iterator()
    except tf.errors.DataLossError as error:
        if broken is not None:
            broken.add({file: in_short(error)})


def _scan(file: str, image_feature: str, label_feature: str | None, broken: BrokenFiles) -> list[tuple[bool, Any]]:
    """For every record whether it has an image, and its class or None."""
    found: list[tuple[bool, Any]] = []
    for record in _read(file, broken):
        try:
            features = tf.train.Example.FromString(record).features.feature
        except DecodeError:
            found.append((False, None))
            continue
        label = features[label_feature] if label_feature is not None and label_feature in features else None
        values = [*label.int64_list.value, *(text.decode() for text in label.bytes_list.value)] if label else []
        has_image = image_feature in features and len(features[image_feature].bytes_list.value) == 1
        found.append((has_image, str(values[0]) if values else None))
    return found


def _without_broken(source: TfrecordSource, broken: BrokenFiles) -> TfrecordSource:
    """Decodes every image once, unless that was done before, and leaves out those that are broken."""

    def position_of(position: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([decode.decode_image(encoded, source.max_pixels)]):
            return tf.identity(position)

    if not broken.is_checked(source.files):
        images = source.records().map(lambda number, name, image, *label: image)
        readable = images.enumerate().map(position_of, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
        good = list(readable.as_numpy_iterator())
        bad = np.setdiff1d(np.arange(source.num_examples), good)
        if bad.size:
            images = source.subset(bad).records().map(lambda number, name, image, *label: image)
            contents = zip((source.keys[i] for i in bad), images, strict=True)
            broken.add(
                {
                    key: broken_reason(functools.partial(tf.identity, image), source.max_pixels)
                    for key, image in contents
                }
            )
    kept = np.array([i for i, key in enumerate(source.keys) if key not in broken], np.int64)
    if not kept.size:
        raise ValueError(f"No image of the TFRecord files can be decoded. Received: {source.files[0]!r}")
    return source.subset(kept)

"""A source from TFRecord files of tf.train.Example."""

import dataclasses
import functools
import os
import re
from collections.abc import Collection, Iterator, Sequence

import tensorflow as tf
from google.protobuf.message import DecodeError

from tf_simclr.data.files import archives, listing, walk
from tf_simclr.data.files.broken import BrokenFiles, in_short
from tf_simclr.data.files.labels import to_class_name
from tf_simclr.data.formats.headers import MAX_PIXELS
from tf_simclr.data.sources.record_files import RecordFileSource, choose_name, open_records

# Names that are common in TFRecord files; the first one found is used.
IMAGE_FEATURES = ("image/encoded", "image", "image_raw", "image_bytes", "jpeg", "png", "encoded")
LABEL_FEATURES = ("image/class/label", "label", "class", "image/class/text", "image/label", "class_id")

_IS_TFRECORD = re.compile(r"\.tfrec(ords?)?(\b|$|-)|-\d+-of-\d+$")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TfrecordSource(RecordFileSource):
    """TFRecord files of tf.train.Example.

    Attributes:
      image_feature: The bytes feature with the encoded image.
    """

    kind = "TFRecord"

    image_feature: str

    def read_file(self, file: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(file)

    def image_in(self, record: tf.Tensor) -> tf.Tensor:
        feature = {self.image_feature: tf.io.FixedLenFeature([], tf.string)}
        return tf.io.parse_single_example(record, feature)[self.image_feature]

    def why_lost(self, file: str) -> str:
        return damage(file) or super().why_lost(file)


def damage(file: str) -> str | None:
    """Says in a few words why a TFRecord file cannot be read to its end; None if it can."""
    try:
        for _ in tf.data.TFRecordDataset(os.fsencode(file)):
            pass
    except tf.errors.OpError as error:
        return f"its file is damaged: {in_short(error)}"
    except UnicodeDecodeError:  # TensorFlow's message cannot hold the name.
        return "its file cannot be read"
    return None


def are_tfrecords(place: str) -> bool:
    """Whether a path, pattern or folder means TFRecord files: NAME.tfrecord, or shards such as NAME-00000-of-00010."""
    first = next(iter(_files(place)), "")
    return _IS_TFRECORD.search(os.path.basename(first)) is not None and not walk.is_folder(first)


def _files(place: str) -> list[str]:
    """The files that match a path or pattern; for a folder without images or folders, its TFRecord files."""
    if archives.split(place) is not None:
        return [place]
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
) -> RecordFileSource:
    """Opens TFRecord files and reads them once, to decode every image and count the classes.

    Args:
      data_dir: Files, patterns, or folders that contain nothing else, comma-separated.
      class_names: The classes in the order of their ids; by default those in the label feature.
      image_feature: The bytes feature with an encoded image; by default the first of IMAGE_FEATURES that a record has.
      label_feature: The feature of the class, an integer or a string; by default the first of LABEL_FEATURES that one
        has.
      max_pixels: Images with more pixels count as broken.
      broken: Collects the records that cannot be used.

    Returns:
      A TfrecordSource.

    Raises:
      FileNotFoundError: If a file does not exist.
      ValueError: If there are no records or no feature of that name, or a class is not in `class_names`.
    """
    broken = broken if broken is not None else BrokenFiles()
    files = tuple(dict.fromkeys(file for place in listing.split_places(data_dir) for file in _files(place)))
    image_features = IMAGE_FEATURES if image_feature is None else (image_feature,)
    label_features = LABEL_FEATURES if label_feature is None else (label_feature,)
    names = set[str]()
    scans = [list(_scan(file, image_features, label_features, broken, names)) for file in files]
    _check_records(scans, files, names, broken)
    where = f"The records of {data_dir} have no"
    image = str(choose_name("image", image_feature, IMAGE_FEATURES, sorted(names), f"{where} image feature"))
    label = choose_name("label", label_feature, LABEL_FEATURES, sorted(names), f"{where} label feature")
    return open_records(
        functools.partial(TfrecordSource, image_feature=image, max_pixels=max_pixels),
        files,
        [[(image in images, labels.get(label)) for images, labels in scan] for scan in scans],
        class_names=class_names,
        broken=broken,
        place=data_dir,
        missing=f"no feature {image}",
    )


# The names of the features that hold an image, and the class by the name of the feature that may hold it.
_Record = tuple[tuple[str, ...], dict[str | None, str | None]]


def _scan(
    file: str,
    image_features: Collection[str],
    label_features: Collection[str],
    broken: BrokenFiles,
    names: set[str],
) -> Iterator[_Record]:
    """Yields what every record has of these features; adds the names of all features to `names`."""
    for record in _read(file, broken):
        try:
            features = tf.train.Example.FromString(record).features.feature
        except DecodeError:
            yield (), {}
            continue
        names.update(features)
        images = [name for name in image_features if name in features and len(features[name].bytes_list.value) == 1]
        yield tuple(images), {name: _class_in(features[name]) for name in label_features if name in features}


def _class_in(feature: tf.train.Feature) -> str | None:
    values = [*feature.int64_list.value, *feature.float_list.value, *feature.bytes_list.value]
    return to_class_name(values[0]) if values else None


def _read(file: str, broken: BrokenFiles) -> Iterator[bytes]:
    """Yields the records of a file up to its end or to the damage."""
    try:
        yield from tf.data.TFRecordDataset(os.fsencode(file)).as_numpy_iterator()
    except tf.errors.DataLossError as error:
        broken.add({file: in_short(error)})


def _check_records(
    scans: Sequence[Sequence[_Record]], files: Sequence[str], names: Collection[str], broken: BrokenFiles
) -> None:
    """Raises a `ValueError` if there are no records, or none of tf.train.Example."""
    if not any(scans):
        reason = f" ({broken.reason(files[0])}; is it compressed?)" if files[0] in broken else ""
        raise ValueError(f"The TFRecord files have no records{reason}. Received: {', '.join(files)!r}")
    if not names:
        raise ValueError(f"The records of TFRecord files must be of tf.train.Example. Received: {', '.join(files)!r}")

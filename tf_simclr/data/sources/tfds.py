"""TensorFlow Datasets (TFDS) as a source. TFDS is imported when it is used: that takes seconds."""

import difflib
from typing import Any

import numpy as np

from tf_simclr.data.batches.streaming import lost_records, readable_records
from tf_simclr.data.formats.headers import MAX_PIXELS
from tf_simclr.data.quality.broken import BrokenFiles
from tf_simclr.data.sources.base import MAX_CACHED_BYTES, MAX_CACHED_SIDE_PX, ArraySource, TfdsSource


def from_tfds(
    name: str,
    split: str,
    data_dir: str | None = None,
    *,
    image_feature: str | None = None,
    label_feature: str | None = None,
    download: bool = True,
    max_pixels: int = MAX_PIXELS,
    max_cached_bytes: int = MAX_CACHED_BYTES,
    broken: BrokenFiles | None = None,
) -> ArraySource | TfdsSource:
    """Opens one split of a TFDS data set that has an image and, for labels, a class, whatever they are called.

    Args:
      name: TFDS name, for example "cifar10" or "imagenet2012:5.1.0".
      split: TFDS split expression, for example "train" or "train[:90%]".
      data_dir: folder of prepared TFDS data sets; TFDS's own default when None.
      image_feature: name of the feature that is the image; by default the one that is of this type.
      label_feature: name of the feature that is the class; by default the one that is of this type, if there is one.
      download: whether to download and prepare the data set when `data_dir` does not hold it.
      max_pixels: larger images count as broken.
      max_cached_bytes: images of one fixed size, of at most 128 px, are decoded to memory if they fit in
        this.
      broken: gets the records that are broken.

    Returns:
      An ArraySource for small images of one size, else a TfdsSource.

    Raises:
      ValueError: when TFDS has no such data set or split, or its examples are not images, or several features may be
        meant.
      FileNotFoundError: when the data set is not prepared and could not, or was not to, be downloaded.
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
    image_feature, label_feature, class_names = _choose_features(builder, image_feature, label_feature)
    broken = broken if broken is not None else BrokenFiles()
    source = TfdsSource(builder, split, image_feature, label_feature, class_names, max_pixels, broken)
    broken.num_files += source.num_examples
    shape = builder.info.features[image_feature].shape
    if None in shape[:2] or max(shape[:2]) > MAX_CACHED_SIDE_PX:
        return source
    if source.num_examples * shape[0] * shape[1] * 3 > max_cached_bytes:
        return source
    return _load_array(source)


def _find_builder(name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

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
    try:
        builder.download_and_prepare()
    except (OSError, AssertionError, tfds.download.DownloadError) as error:
        # AssertionError is how TFDS asks for files that have to be downloaded by hand.
        reason = str(error).strip().split("\n")[0]
        raise FileNotFoundError(
            f"The TFDS data set is not in {builder.data_path} and could not be downloaded ({reason}): "
            f"{advice}. Received: {name!r}"
        ) from error


def _choose_features(
    builder: Any, image_feature: str | None, label_feature: str | None
) -> tuple[str, str | None, tuple[str, ...] | None]:
    """(name of the image, name of the class or None, class names or None)."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    image = _feature_of_type(builder, "image", tfds.features.Image, image_feature)
    if image is None:
        raise ValueError(
            f"The TFDS data set has no feature that is an image, only {', '.join(features)}. Received: {builder.name!r}"
        )
    label = _feature_of_type(builder, "label", tfds.features.ClassLabel, label_feature)
    return image, label, None if label is None else tuple(features[label].names)


def _feature_of_type(builder: Any, role: str, kind: Any, wanted: str | None) -> str | None:
    """The one feature of a type, or else that named like its role, or None where there is none."""
    found = sorted(name for name, feature in builder.info.features.items() if isinstance(feature, kind))
    if wanted is None and (len(found) < 2 or role in found):
        return role if role in found else next(iter(found), None)
    if wanted not in found:
        raise ValueError(
            f"The TFDS data set {builder.name!r} has several or other features for the {role}: name one with "
            f"--set=data.{role}_feature=NAME, of {', '.join(found) or 'none'}. Received: {wanted}"
        )
    return wanted


def _load_array(source: TfdsSource) -> ArraySource:
    columns = list(zip(*readable_records(source).batch(256).as_numpy_iterator(), strict=True))
    if not columns:
        raise ValueError(f"No image of the TFDS data set can be decoded. Received: {source.name!r}")
    images, *labels = (np.concatenate(column) for column in columns)
    if len(images) < source.num_examples:
        source.broken.add(lost_records(source))
    return ArraySource(images, labels[0] if labels else None, source.class_names)

"""One way in for images of one's own: folders, patterns, lists of paths, TFRecord and .npz files."""

import io
import os
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr.data import sources
from tf_simclr.data.files import listing, walk
from tf_simclr.data.formats.headers import MAX_PIXELS
from tf_simclr.data.quality.broken import BrokenFiles
from tf_simclr.data.sources import tfrecord
from tf_simclr.data.sources.base import (
    MAX_CACHED_BYTES,
    ArraySource,
    FileSource,
    TfrecordSource,
    holdout,
    number_classes,
)

OpenedSource = ArraySource | FileSource | TfrecordSource


def open_images(
    data_dir: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    image_feature: str | None = None,
    label_feature: str | None = None,
    max_cached_bytes: int = MAX_CACHED_BYTES,
    max_pixels: int = MAX_PIXELS,
    broken: BrokenFiles | None = None,
) -> OpenedSource:
    """Opens images, whatever holds them.

    Args:
      data_dir: what `sources.from_folder` takes, or TFRecord files (see `tfrecord.from_tfrecords`), or one .npz file
        with `images`, uint8 [N, H, W, 3], and if known `labels`, [N], numbers or texts.
      class_names: the classes and the order of their ids, to label one set as another one was labelled.
      image_feature: for TFRecord files, see there.
      label_feature: for TFRecord files, see there.
      max_cached_bytes: images of files that all have one size, of at most 128 px, are decoded to memory if they fit.
      max_pixels: larger images count as broken.
      broken: knows the files that were found broken before, and gets those that are now.

    Raises:
      FileNotFoundError: when there is no such file or folder.
      ValueError: when it holds no image, or a class that is not in `class_names`, or different kinds of files.
    """
    data_dir = os.fspath(data_dir)
    places = listing.split_places(data_dir)
    are_arrays = [place.endswith(".npz") for place in places]
    if are_arrays == [True]:
        return _from_npz(data_dir, class_names)
    are_tfrecords = [tfrecord.are_tfrecords(place) for place in places]
    if any(are_arrays) or any(are_tfrecords) != all(are_tfrecords):
        raise ValueError(
            f"TFRecord and .npz files cannot be mixed with other images: convert one of them. Received: {data_dir!r}"
        )
    if places and all(are_tfrecords):
        return tfrecord.from_tfrecords(
            data_dir,
            class_names=class_names,
            image_feature=image_feature,
            label_feature=label_feature,
            max_pixels=max_pixels,
            broken=broken,
        )
    return sources.from_folder(
        data_dir, class_names=class_names, max_cached_bytes=max_cached_bytes, max_pixels=max_pixels, broken=broken
    )


def open_train_and_eval(
    data_dir: str | os.PathLike[str], *, held_out_fraction: float = 0.1, **options: Any
) -> tuple[OpenedSource, OpenedSource]:
    """Opens images as a training and an evaluation source with the same class ids.

    The evaluation source is the test part of a folder (see `sources.split_folders`) or, where there is none, a
    held-out part of the images (see `sources.holdout`).

    Args:
      data_dir: as in `open_images`.
      held_out_fraction: part of the images to hold out where there is no test part, in (0, 1).
      **options: as in `open_images`, for either source.

    Returns:
      (train, evaluation).
    """
    train_folder, eval_folder = sources.split_folders(data_dir)
    train = open_images(train_folder, **options)
    if eval_folder is None:
        return holdout(train, held_out_fraction)
    return train, open_images(eval_folder, **{**options, "class_names": train.class_names})


def _from_npz(path: str, class_names: Sequence[str] | None) -> ArraySource:
    if not walk.exists(path):
        raise FileNotFoundError(f"The .npz file does not exist. Received: {path!r}")
    try:
        # Other file systems need not know where in a file they are.
        content = path if walk.is_local(path) else io.BytesIO(tf.io.gfile.GFile(path, "rb").read())
        with np.load(content) as arrays:
            found = {name: arrays[name] for name in ("images", "labels") if name in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"The .npz file cannot be read ({error}). Received: {path!r}") from error
    if "images" not in found:
        raise ValueError(f"The .npz file holds no array `images`, uint8 [N, H, W, 3]. Received: {path!r}")
    if "labels" not in found:
        return ArraySource(found["images"])
    return ArraySource(found["images"], *number_classes([str(name) for name in found["labels"]], class_names, path))

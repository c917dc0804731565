"""Opens users' own images: folders, patterns, lists of paths, TFRecord, Parquet and .npz files."""

import os
from collections.abc import Sequence
from typing import Any, Literal

from absl import logging

from tf_simclr.data.files import listing
from tf_simclr.data.files.broken import BrokenFiles
from tf_simclr.data.formats.headers import MAX_PIXELS
from tf_simclr.data.sources.base import HELD_OUT_FRACTION, MAX_CACHED_BYTES, Source, can_be_learnt, holdout
from tf_simclr.data.sources.folders import from_folder
from tf_simclr.data.sources.npz import from_npz, has_test_images
from tf_simclr.data.sources.parquet import from_parquet
from tf_simclr.data.sources.splits import split_folders
from tf_simclr.data.sources.tfrecord import are_tfrecords, from_tfrecords


def open_images(
    data_dir: str | os.PathLike[str],
    *,
    unlabelled: Sequence[str] = (),
    class_names: Sequence[str] | None = None,
    image_feature: str | None = None,
    label_feature: str | None = None,
    max_cached_bytes: int = MAX_CACHED_BYTES,
    max_pixels: int = MAX_PIXELS,
    broken: BrokenFiles | None = None,
) -> Source:
    """Opens images in any supported form.

    Args:
      data_dir: What `from_folder` takes, TFRecord files (see `from_tfrecords`), Parquet files (see `from_parquet`), or
        one .npz file (see `from_npz`).
      unlabelled: More folders of image files, which have no class.
      class_names: The classes in the order of their ids, to label one set like another.
      image_feature: The name of the image in TFRecord and Parquet files, see there.
      label_feature: The name of the class in TFRecord and Parquet files, see there.
      max_cached_bytes: Images from files of one size, at most 128 px, are decoded to memory if they fit in this.
      max_pixels: Images with more pixels count as broken.
      broken: The files already found broken; those found now are added.

    Raises:
      FileNotFoundError: If the file or folder does not exist.
      ValueError: If it has no images, a class that is not in `class_names`, or different kinds of files.
    """
    data_dir = os.fspath(data_dir)
    kinds = [_kind_of(place) for place in (*listing.split_places(data_dir), *unlabelled)]
    if len(set(kinds)) > 1 or kinds.count("npz") > 1:
        raise ValueError(
            "TFRecord, Parquet and .npz files cannot be mixed with other images: convert one of them. "
            f"Received: {data_dir!r}"
        )
    if "npz" in kinds:
        return from_npz(data_dir, class_names)
    if "tfrecord" in kinds or "parquet" in kinds:
        from_records = from_tfrecords if "tfrecord" in kinds else from_parquet
        return from_records(
            data_dir,
            class_names=class_names,
            image_feature=image_feature,
            label_feature=label_feature,
            max_pixels=max_pixels,
            broken=broken,
        )
    return from_folder(
        data_dir,
        unlabelled=unlabelled,
        class_names=class_names,
        max_cached_bytes=max_cached_bytes,
        max_pixels=max_pixels,
        broken=broken,
    )


def _kind_of(place: str) -> Literal["npz", "tfrecord", "parquet", "files"]:
    """The kind of files that a path, pattern or folder stands for. New formats are recognised here."""
    if place.endswith(".npz"):
        return "npz"
    if place.endswith(".parquet"):
        return "parquet"
    return "tfrecord" if are_tfrecords(place) else "files"


def open_train_and_eval(
    data_dir: str | os.PathLike[str], *, held_out_fraction: float = HELD_OUT_FRACTION, **options: Any
) -> tuple[Source, Source]:
    """Opens images as a training and an evaluation source with the same class ids.

    The evaluation source is the first part of a folder to test on that has labels (see `split_folders`) or, if it has
    none, a held-out part of the images (see `holdout`). Images without labels are all trained on: if there are no
    labels, or too few to hold some out, both sources are the same one.

    Args:
      data_dir: As in `open_images`.
      held_out_fraction: The fraction of the images to hold out if there is no test part, in (0, 1).
      **options: As in `open_images`, for both sources.

    Returns:
      (train, evaluation).
    """
    if has_test_images(data_dir):
        train = open_images(data_dir, **options)
        return train, from_npz(os.fspath(data_dir), train.class_names, test=True)
    split = split_folders(data_dir)
    for folder in split.unlabelled:
        logging.info("%s has no labels: its images are trained on, and not tested on", folder)
    train = open_images(split.train, unlabelled=split.unlabelled, **options)
    for folder in split.evaluation:
        evaluation = open_images(folder, **{**options, "class_names": train.class_names})
        if evaluation.num_classes is not None:
            logging.info("The images to test on are those in %s", folder)
            return train, evaluation
    if train.num_classes is None:
        return train, train
    rest, held_out = holdout(train, held_out_fraction)
    if rest.labels is not None and not can_be_learnt(rest.labels):
        logging.warning("There are too few labelled images to hold some out for a test: the labels are unused")
        unlabelled = train.unlabelled()
        return unlabelled, unlabelled
    return rest, held_out

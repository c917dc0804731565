"""Opens folders and archives of images: finds broken files, and decodes the images to memory if they fit."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from tf_simclr.data.files import archives, listing, walk
from tf_simclr.data.files.broken import BrokenFiles
from tf_simclr.data.formats import decode, depth
from tf_simclr.data.formats.headers import MAX_PIXELS
from tf_simclr.data.sources.array import ArraySource
from tf_simclr.data.sources.base import MAX_CACHED_BYTES, MAX_CACHED_SIDE_PX, number_classes
from tf_simclr.data.sources.files import FileSource

# Sets of up to this many bytes are decoded once when the folder is opened (about ten seconds on two cores), to report
# broken files before training starts. In larger sets, broken files are found and reported as they are read.
_CHECKED_BYTES = 1 << 29

_SAMPLED_PNGS = 16


def from_folder(
    folder: str | os.PathLike[str],
    *,
    unlabelled: Sequence[str] = (),
    class_names: Sequence[str] | None = None,
    max_cached_bytes: int = MAX_CACHED_BYTES,
    max_pixels: int = MAX_PIXELS,
    broken: BrokenFiles | None = None,
) -> ArraySource | FileSource:
    """Opens image files: those of a folder or an archive, with or without class subfolders, or see `listing`.

    There are labels if there are at least two classes (see `listing.list_images`); an image without a class has the
    label -1. Examples are sorted by path. Broken files are left out, named in the log and listed in the source's
    `skipped`.

    Args:
      folder: What `listing.list_images` takes, usually a folder or an archive: local, or any that
        `tf.io.gfile` reads.
      unlabelled: More folders, whose images have no class and come last.
      class_names: The classes in the order of their ids, to label one folder like another; by default the sorted names
        of the subfolders.
      max_cached_bytes: Images of one size, at most 128 px, are decoded to memory if they fit in this.
      max_pixels: Images with more pixels count as broken.
      broken: The files already found broken; those found now are added.

    Returns:
      An ArraySource for small images of one size, else a FileSource.

    Raises:
      FileNotFoundError: If the folder does not exist.
      ValueError: If it has no images, none that can be decoded, or a class that is not in `class_names`.
    """
    folder = _inside(os.fspath(folder))
    broken = broken if broken is not None else BrokenFiles()
    listed = listing.list_images(os.fspath(folder), broken.list_folder)
    for other in unlabelled:
        listed = listed.with_unlabelled(other, listing.list_images(other, broken.list_folder))
    broken.ignore(listed.ignored)
    root = os.fspath(folder) if walk.is_folder(os.fspath(folder)) and not unlabelled else ""
    labels, names = number_classes(listed.classes, class_names, os.fspath(folder))
    files = FileSource(
        root,
        listed.keys if root else listed.paths,
        labels,
        names,
        keys=listed.keys,
        max_pixels=max_pixels,
        broken=broken,
    )
    broken.num_files += len(listed.paths) + len(listed.problems)
    broken.add(listed.problems)
    _warn_if_dark(files)
    decoded = _decoded(files)
    height, width = _first_image_size(files, decoded)
    small = max(height, width) <= MAX_CACHED_SIDE_PX and files.num_examples * height * width * 3 <= max_cached_bytes
    source = _load_array(files, decoded, height, width) if small else None
    return source if source is not None else _check_files(files, decoded)


def _inside(folder: str) -> str:
    """The folder of the class folders in an archive that holds nothing else, as those of a packed folder do."""
    if archives.split(folder) is None:
        return folder
    found = list(walk.readable_entries(folder))
    inner = os.path.join(folder, found[0].name) if len(found) == 1 and found[0].is_folder else ""
    return _inside(inner) if inner and any(entry.is_folder for entry in walk.readable_entries(inner)) else folder


def _warn_if_dark(files: FileSource) -> None:
    """Looks at a few PNG files for values that take few of 16 bits."""
    pngs = [position for position, path in enumerate(files.paths) if path.lower().endswith(".png")]
    sample = np.array(pngs[:: max(1, len(pngs) // _SAMPLED_PNGS)], np.int64)
    contents = tf.data.Dataset.from_tensor_slices(sample).map(files.fetcher()).ignore_errors()
    dark = depth.describe_dark(contents.as_numpy_iterator())
    if dark is not None:
        logging.warning("%s", dark)


def _decoded(files: FileSource) -> tf.data.Dataset:
    """(position int64, image uint8 [H, W, 3]) of every file that can be decoded, in order."""
    fetch = files.fetcher()

    def read(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return position, decode.decode_image(fetch(position), files.max_pixels)

    return (
        tf.data.Dataset.range(files.num_examples)
        .map(read, num_parallel_calls=files.calls_at_once, deterministic=True)
        .ignore_errors()
    )


def _first_image_size(files: FileSource, decoded: tf.data.Dataset) -> tuple[int, int]:
    for _, image in decoded.take(1):
        return image.shape[0], image.shape[1]
    raise ValueError(
        f"None of the {files.num_examples} image files in {files.folder!r} can be decoded; the first one: "
        f"{files.reason(0)}. Received: {files.names[0]!r}"
    )


def _load_array(files: FileSource, decoded: tf.data.Dataset, height: int, width: int) -> ArraySource | None:
    """Decodes all files to memory; returns None if one has a different size."""
    fitting = decoded.map(lambda position, image: (position, tf.ensure_shape(image, [height, width, 3])))
    images = np.empty([files.num_examples, height, width, 3], np.uint8)
    positions = []
    count = 0
    try:
        for position, pixels in fitting.batch(256).prefetch(2).as_numpy_iterator():
            images[count : count + len(pixels)] = pixels
            positions.append(position)
            count += len(pixels)
    except tf.errors.InvalidArgumentError:  # An image has a different size.
        return None
    readable = _without_broken(files, np.concatenate(positions))
    return ArraySource(images[:count], readable.labels, readable.class_names, tuple(readable.keys), readable.skipped)


def _check_files(files: FileSource, decoded: tf.data.Dataset) -> FileSource:
    """Decodes all files of a moderately large set once, and leaves out the broken ones."""
    paths = files.paths
    size = 0
    for num_bytes in files.sizes():
        size += num_bytes
        if size > _CHECKED_BYTES:
            return files
    state = files.broken.state_of(paths)
    if files.broken.is_checked(state):
        return _without_broken(files, np.array([i for i, path in enumerate(paths) if path not in files.broken]))
    readable = decoded.map(lambda position, image: position).batch(256)
    found = _without_broken(files, np.concatenate(list(readable.as_numpy_iterator())))
    files.broken.mark_checked(state)
    return found


def _without_broken(files: FileSource, positions: np.ndarray) -> FileSource:
    """Keeps the files at the given positions and reports all others as broken."""
    paths = files.paths
    missing = np.setdiff1d(np.arange(files.num_examples), positions)
    files.broken.add({paths[i]: files.reason(i) for i in missing if paths[i] not in files.broken})
    skipped = tuple((paths[i], files.broken.reason(paths[i])) for i in missing)
    return dataclasses.replace(files.subset(positions), skipped=skipped)

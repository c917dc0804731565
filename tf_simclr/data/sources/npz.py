"""A source from NumPy's .npz files."""

import contextlib
import io
import os
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from tf_simclr import files
from tf_simclr.data.files import walk
from tf_simclr.data.files.labels import to_class_name
from tf_simclr.data.sources.array import ArraySource
from tf_simclr.data.sources.base import number_classes

# The names of the arrays of images and labels, in any case; the first pair counts of which a file has the images.
_TRAIN_NAMES = (("images", "labels"), ("x", "y"), ("train_images", "train_labels"), ("x_train", "y_train"))
_TEST_NAMES = (("test_images", "test_labels"), ("x_test", "y_test"))


def from_npz(path: str, class_names: Sequence[str] | None = None, *, test: bool = False) -> ArraySource:
    """Opens a .npz file with `images`, uint8 [N, H, W, 3], and optional `labels`.

    Grey images, [N, H, W] or [N, H, W, 1], get three equal channels; an alpha channel is dropped. The labels are whole
    numbers, also as floats, booleans or texts, [N] or [N, 1], or a one-hot code [N, C]. Unknown are -1 beside two other
    numbers, and what `labels.to_class_name` says. The arrays may also be called as in the files of Keras and MedMNIST.

    Args:
      path: The file, local or any that `tf.io.gfile` reads.
      class_names: The classes in the order of their ids; by default those of the file, sorted.
      test: Whether to read the test images of a file that `has_test_images`.

    Raises:
      FileNotFoundError: If the file does not exist.
      ValueError: If it cannot be read, has no such images or labels, or has a class that is not in `class_names`.
    """
    pairs = _TEST_NAMES if test else _TRAIN_NAMES
    with _open(path) as arrays:
        names = {name.lower(): name for name in arrays.files}
        chosen = [names[name] for pair in pairs if pair[0] in names for name in pair if name in names][:2]
        found = [arrays[name] for name in chosen]
    if not found:
        raise ValueError(
            f"A .npz file must have an array `images`, uint8 [N, H, W, 3], and may have `labels`. Received: {path!r} "
            f"with the arrays {', '.join(sorted(names.values())) or 'none'}"
        )
    logging.info("%s: the arrays %s", path, " and ".join(f"`{name}`" for name in chosen))
    images = _to_rgb(found[0], f"{path}, {chosen[0]}")
    if len(found) == 1:
        return ArraySource(images)
    labels = _to_names(found[1], len(images), f"{path}, {chosen[1]}")
    return ArraySource(images, *number_classes(labels, class_names, path))


def has_test_images(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a .npz file with test images beside those to train on, as Keras and MedMNIST have them."""
    path = os.fspath(path)
    if not path.endswith(".npz") or not walk.exists(path):
        return False
    with _open(path) as arrays:
        return any(name.lower() == images for name in arrays.files for images, _ in _TEST_NAMES)


@contextlib.contextmanager
def _open(path: str) -> Iterator[np.lib.npyio.NpzFile]:
    """Gives the arrays of a file, which are read when they are taken.

    Raises:
      FileNotFoundError: If the file does not exist.
      ValueError: If it, or an array that is taken, cannot be read.
    """
    if not walk.exists(path):
        raise FileNotFoundError(f"The .npz file does not exist. Received: {path!r}")
    try:
        # Files on other file systems may not report their position.
        found = np.load(path if walk.is_local(path) else io.BytesIO(tf.io.gfile.GFile(path, "rb").read()))
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array, as .npy files do")
        with found as arrays:
            yield arrays
    except (*files.DAMAGED, zlib.error) as error:
        raise ValueError(
            f"A .npz file must be whole and hold numbers or texts, such as `labels.astype(str)` of objects ({error}). "
            f"Received: {path!r}"
        ) from error


def _to_rgb(images: np.ndarray, place: str) -> np.ndarray:
    """Images as uint8 [N, H, W, 3].

    Raises:
      ValueError: If they are not uint8, not a batch, or have their channels first.
    """
    grey = images[..., np.newaxis] if images.ndim == 3 else images
    is_batch = grey.ndim == 4 and len(grey) > 0 and not (images.ndim == 3 and images.shape[-1] in (1, 3, 4))
    if images.dtype != np.uint8 or not is_batch or grey.shape[-1] not in (1, 3, 4):
        remedy = ""
        if images.dtype != np.uint8 and images.size and images.dtype.kind in "biuf":
            low, high = float(images.min()), float(images.max())
            remedy = f", so scale them from [{low:g}, {high:g}]"
            if 0 <= low <= high <= 1:
                remedy = ", such as `np.round(255 * images).astype(np.uint8)`"
            elif 0 <= low <= high <= 255:
                remedy = ", such as `np.round(images).astype(np.uint8)`"
        elif grey.ndim == 4 and grey.shape[1] in (1, 3, 4):
            remedy = ", such as `images.transpose(0, 2, 3, 1)`"
        elif images.ndim == 3:
            remedy = ", such as `images[np.newaxis]` of one image"
        raise ValueError(
            f"Images in a .npz file must be uint8 of shape [N, H, W, 3], or [N, H, W] if they are grey{remedy}. "
            f"Received: {images.dtype} {list(images.shape)} in {place}"
        )
    return np.repeat(grey, 3, axis=-1) if grey.shape[-1] == 1 else grey[..., :3]


def _to_names(labels: np.ndarray, count: int, place: str) -> list[str | None]:
    """The class names that labels stand for; None where they are unknown.

    Raises:
      ValueError: If they are not one label for each of `count` images.
    """
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "biuf":
        is_one_hot = bool(np.all((labels == 0) | (labels == 1)) and np.all(labels.sum(axis=1) == 1))
        labels = labels.argmax(axis=1) if is_one_hot else labels
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    is_whole = labels.dtype.kind in "biuSU"
    if labels.dtype.kind == "f":
        is_known = ~np.isnan(labels)
        is_whole = bool(np.all(np.mod(labels[is_known], 1) == 0))
    if labels.shape != (count,) or not is_whole or (labels.dtype.kind in "if" and bool(np.any(labels < -1))):
        raise ValueError(
            "Labels in a .npz file must be one whole number from 0 on or text per image, or a one-hot code, with NaN "
            "or, beside two others, -1 where they are unknown; leave them out to train without. "
            f"Received: {labels.dtype} {list(labels.shape)} for {count} images in {place}"
        )
    return [to_class_name(label) for label in labels.tolist()]

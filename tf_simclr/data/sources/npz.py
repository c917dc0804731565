"""A source from NumPy's .npz files."""

import io
import zipfile
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_simclr.data.files import walk
from tf_simclr.data.sources.array import ArraySource
from tf_simclr.data.sources.base import number_classes


def from_npz(path: str, class_names: Sequence[str] | None = None) -> ArraySource:
    """Opens a .npz file with `images`, uint8 [N, H, W, 3], and optional `labels`, [N], numbers or strings.

    Args:
      path: The file, local or any that `tf.io.gfile` reads.
      class_names: The classes in the order of their ids; by default those of the file, sorted.

    Raises:
      FileNotFoundError: If the file does not exist.
      ValueError: If it cannot be read, has no such images, or has a class that is not in `class_names`.
    """
    if not walk.exists(path):
        raise FileNotFoundError(f"The .npz file does not exist. Received: {path!r}")
    try:
        # Files on other file systems may not report their position.
        content = path if walk.is_local(path) else io.BytesIO(tf.io.gfile.GFile(path, "rb").read())
        with np.load(content) as arrays:
            found = {name: arrays[name] for name in ("images", "labels") if name in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"The .npz file cannot be read ({error}). Received: {path!r}") from error
    if "images" not in found:
        raise ValueError(f"The .npz file has no array `images`, uint8 [N, H, W, 3]. Received: {path!r}")
    if "labels" not in found:
        return ArraySource(found["images"])
    return ArraySource(found["images"], *number_classes([str(name) for name in found["labels"]], class_names, path))

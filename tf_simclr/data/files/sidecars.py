"""Finds the labels of WebDataset's archives: KEY.cls or KEY.json beside KEY.jpg."""

import json
import os
from collections.abc import Iterable, Sequence

import tensorflow as tf
from absl import logging

from tf_simclr.data.files import archives, labels
from tf_simclr.data.files.names import in_print
from tf_simclr.data.formats import decode

_FIELDS = ("cls", *labels.LABEL_COLUMNS)


def find(folder: str, keys: Sequence[str]) -> list[str | None] | None:
    """The label of every image in a folder of an archive.

    The images and the files beside them that belong to one example have one name up to its first dot. KEY.cls holds the
    label; or else the first field of KEY.json that is called cls, label, class or the like does. Files that label fewer
    than half of the images are there for something else.

    Args:
      folder: The archive, or a folder in it.
      keys: The images, relative to it.

    Returns:
      The labels, None where one is unknown; or None if there are no such files.
    """
    for suffix, read in ((".cls", _read_class), (".json", _read_field)):
        beside = _with_suffix(folder, keys, suffix)
        # Several images of one example have one label, which is read once.
        known = {example: read(beside[example]) for example in map(_example, keys) if example in beside}
        found = [known.get(example) for example in map(_example, keys)]
        if 2 * sum(label is not None for label in found) >= len(found):
            logging.info("%s: labels in the %s files beside the images", in_print(folder), suffix)
            return found
    return None


def _with_suffix(folder: str, keys: Iterable[str], suffix: str) -> dict[str, str]:
    """The paths of the files of a suffix beside the images, by their example."""
    archive, inner = archives.split(folder) or (folder, "")
    found = {}
    for below in {os.path.dirname(key) for key in keys}:
        for name, is_folder in archives.entries(archive, "/".join(filter(None, (inner, below)))):
            if not is_folder and name.lower().endswith(suffix) and not decode.is_image_name(name):
                key = f"{below}/{name}" if below else name
                found[_example(key)] = f"{folder}/{key}"
    return found


def _example(key: str) -> str:
    """The name that the files of one example share."""
    folder, name = os.path.split(key)
    return os.path.join(folder, name.partition(".")[0])


def _read_class(path: str) -> str | None:
    try:
        return labels.to_class_name(archives.read(path))
    except tf.errors.OpError:  # A damaged file holds no label.
        return None


def _read_field(path: str) -> str | None:
    try:
        fields = json.loads(archives.read(path))
    except (tf.errors.OpError, ValueError):  # A .json file may hold anything.
        return None
    if not isinstance(fields, dict):
        return None
    plain = {labels.plain(name): value for name, value in fields.items() if isinstance(value, str | int | float)}
    return next((labels.to_class_name(plain[name]) for name in _FIELDS if name in plain), None)

"""Reads the images and their categories in COCO-style JSON files."""

import collections
import json
import os
from collections.abc import Iterator
from typing import Any

from absl import logging

from tf_simclr.data.files import archives
from tf_simclr.data.files.finder import Finder
from tf_simclr.data.files.names import counted, in_print

SUFFIX = ".json"


def read(path: str) -> Iterator[tuple[str, str, str | None]]:
    """Yields the files that a COCO-style JSON file names, each once, as (path, key, class name or None).

    An image has the class of its annotations if they name one category. Its file is found by its path relative to the
    JSON file, or by its name in a folder or archive beside that or in the folder above, see `Finder`.

    Args:
      path: The file; local, in an archive, or any that `tf.io.gfile` reads.

    Raises:
      ValueError: If it is no such file, or names no file that exists.
    """
    names, categories = _parse(path)
    finder = Finder(path, is_wide=True)
    if not any(map(finder.find, names)):
        raise ValueError(
            "The images of a COCO-style file must lie beside it, or in a folder or archive beside it or above, but "
            f"none of the {len(names):,} images in {in_print(path)} is found. Received: {next(iter(names), '')!r}"
        )
    found = {name: finder.find_one(name) for name in names}
    several = [name for name in names if len(categories[name]) > 1]
    without = [name for name in names if not categories[name]]
    logging.info(
        "%s: %s, labelled by the category of their annotations; unlabelled for having several: %s; for having none: %s",
        in_print(path), counted(len(names), "image"), _count(several), _count(without),
    )  # fmt: skip
    for name, (place, key) in found.items():
        yield place, key, next(iter(categories[name])) if len(categories[name]) == 1 else None


def _parse(path: str) -> tuple[dict[str, None], dict[str, set[str]]]:
    """The names of the images, each once, and the names of the categories of each."""
    try:
        content = json.loads(os.fsdecode(archives.read(path)))
        class_names = {category["id"]: str(category["name"]) for category in content.get("categories", ())}
        names = {image["id"]: _checked(image["file_name"]) for image in content["images"]}
        categories = collections.defaultdict(set)
        for annotation in content.get("annotations", ()):
            if annotation["image_id"] in names:
                label = annotation["category_id"]
                categories[names[annotation["image_id"]]].add(class_names.get(label, str(label)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            "A .json list of images must be COCO-style: images with id and file_name, annotations with image_id and "
            f"category_id, categories with id and name ({type(error).__name__}: {error}). Received: {in_print(path)!r}"
        ) from error
    return dict.fromkeys(names.values()), categories


def _checked(name: Any) -> str:
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"file_name is {name!r}")
    return name


def _count(names: list[str]) -> str:
    return f"{len(names):,}" + (f", first {in_print(names[0])}" if names else "")

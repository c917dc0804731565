"""Lists the image files of a data directory: folders, archives, glob patterns, and files that list paths."""

import collections
import functools
import glob
import itertools
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_simclr.data.files import archive_index, archives, coco, ignored, list_cache, lists, sidecars
from tf_simclr.data.files.names import Names
from tf_simclr.data.files.walk import Walk, exists, ignore, is_folder, is_local, is_users
from tf_simclr.data.formats import decode

_WILDCARDS = "*?["
_LISTS = (*lists.SUFFIXES, coco.SUFFIX)
# Images in a folder of this name, in any case, have no class.
_UNLABELLED = ("unlabeled", "unlabelled")


class Listing(NamedTuple):
    """Image files, sorted by key.

    Attributes:
      paths: The path that opens each file.
      keys: The path of each file relative to the folder it was found from, with "/" between its parts. It stays the
        same when that folder moves, and decides whether the file is held out.
      classes: The class name of each file, or None.
      problems: What could not be listed, {path: reason}.
      ignored: The number of files that are not images by suffix, "" for none.
    """

    paths: Names
    keys: Names
    classes: list[str | None]
    problems: dict[str, str]
    ignored: collections.Counter[str]

    def with_unlabelled(self, folder: str, other: "Listing") -> "Listing":
        """Adds the images of another folder, without their classes, after these."""
        name = os.path.basename(folder)
        return Listing(
            Names(itertools.chain(self.paths, other.paths)),
            Names(itertools.chain(self.keys, (f"{name}/{key}" for key in other.keys))),
            self.classes + [None] * len(other.keys),
            self.problems | other.problems,
            self.ignored + other.ignored,
        )


def split_places(data_dir: str) -> list[str]:
    """The parts of a comma-separated list; a path that exists is one part, even with commas."""
    if exists(data_dir):
        return [data_dir]
    return [place.strip() for place in data_dir.split(",") if place.strip()]


def root_of(place: str) -> str:
    """The folder below which a place lies: itself, or the part of a glob pattern without wildcards; ends in "/"."""
    if exists(place):
        return _root(place)
    fixed = place[: min(place.find(wildcard) % (len(place) + 1) for wildcard in _WILDCARDS)]
    return fixed[: fixed.rfind("/") + 1]


def list_images(data_dir: str, cache_folder: pathlib.Path | None = None) -> Listing:
    """Lists the image files of folders, archives, patterns and lists, each file once, sorted by key.

    In a folder, an image's class is the first folder on its path, if any; with a pattern, the first folder after the
    part without wildcards; in a list, the label. A folder "unlabelled" is no class. An archive is the folder of what is
    in it, but labels may also lie beside its images, see `sidecars`; archives that lie in a folder, or that a pattern
    without their suffix matches, are left out. So are names that start with a dot, and the folders of the system and of
    runs (see `walk.entries`). Links are followed, and a folder that several links lead to is walked once.

    Args:
      data_dir: One or more places, comma-separated: a folder, at any depth; a .zip or .tar file or a folder in one, see
        `archives`; a pattern, for files or for folders; a .txt, .csv or .tsv list of images, see `lists`, or a
        COCO-style .json file, see `coco`.
      cache_folder: Where to keep the list of a local folder, which is reused while no folder in it has changed.

    Raises:
      FileNotFoundError: If a place does not exist.
      ValueError: If there are no images, a list is malformed, or an archive cannot be read.
    """
    places = split_places(data_dir)
    for place in places:
        archives.refuse_compressed(place)
    walk = Walk()
    if len(places) == 1 and is_folder(places[0]):
        keys = _list_folder(places[0], walk, cache_folder)
        paths = keys.with_prefix(_root(places[0]))
        listing = Listing(paths, keys, _classes_of(places[0], keys), walk.problems, walk.ignored)
    else:
        listing = _list_places(places, walk)
    if not listing.keys:
        more = f"; it holds {ignored.describe(walk.ignored)}" if walk.ignored else ""
        more += "".join(f"; {path}: {reason}" for path, reason in walk.problems.items())
        raise ValueError(
            f"The folder has no image files ({', '.join(decode.IMAGE_SUFFIXES)}) at any depth{more}. "
            f"Received: {data_dir!r}"
        )
    return listing


def expand(place: str) -> list[str]:
    """The paths that match a glob pattern, sorted; a path that exists matches only itself.

    Raises:
      FileNotFoundError: If nothing matches.
    """
    if exists(place):
        return [place]
    find = glob.glob if is_local(place) else tf.io.gfile.glob  # tf.io.gfile takes only UTF-8.
    found = sorted(find(place)) if set(place) & set(_WILDCARDS) else []
    if not found:
        raise FileNotFoundError(f"The image folder does not exist, or no file matches the pattern. Received: {place!r}")
    return found


def _list_folder(folder: str, walk: Walk, cache_folder: pathlib.Path | None) -> Names:
    cached = list_cache.load(folder, cache_folder)
    if cached is not None:
        keys, walk.ignored = cached
        return keys
    root = _root(folder)
    keys = Names(sorted(path.removeprefix(root).replace(os.sep, "/") for path in walk.files(folder)))
    list_cache.save(keys, walk, folder, cache_folder)
    return keys


def _list_places(places: list[str], walk: Walk) -> Listing:
    found: dict[str, tuple[str, str | None]] = {}
    for place in places:
        for path, key, class_name in _list_place(place, walk):
            found.setdefault(path, (key, class_name))
    rows = sorted((key, path, class_name or "") for path, (key, class_name) in found.items())
    return Listing(
        Names(path for _, path, _ in rows),
        Names(key for key, _, _ in rows),
        [class_name or None for _, _, class_name in rows],
        walk.problems,
        walk.ignored,
    )


def _list_place(place: str, walk: Walk) -> Iterator[tuple[str, str, str | None]]:
    """Yields (path, key, class name or None) for every file."""
    is_pattern = not exists(place)
    root = root_of(place)
    for found in _outside_runs(expand(place), root) if is_pattern else [place]:
        if archives.split(found) is not None and is_folder(found):
            if place.lower().endswith(archive_index.SUFFIXES) or not is_pattern:
                yield from _list_archive(found, walk)
            else:
                ignore(os.path.basename(found), walk.ignored)
            continue
        if is_folder(found):
            files = walk.files(found)
        elif found.lower().endswith(_LISTS) and place.lower().endswith(_LISTS):
            yield from (coco if found.lower().endswith(coco.SUFFIX) else lists).read(found)
            continue
        elif is_pattern and decode.is_image_name(found):
            files = iter([found])
        elif is_pattern:
            ignore(os.path.basename(found), walk.ignored)
            continue
        else:
            raise FileNotFoundError(
                "The image folder does not exist, or is neither a folder, a .zip or .tar file, nor a list of paths, "
                f".txt, .csv, .tsv or COCO-style .json. Received: {place!r}"
            )
        for path in files:
            key = path.removeprefix(root).replace(os.sep, "/")
            yield path, key, _class_of(key)


def _list_archive(folder: str, walk: Walk) -> Iterator[tuple[str, str, str | None]]:
    """The same for an archive or a folder in one."""
    root = _root(folder)
    keys = [path.removeprefix(root) for path in walk.files(folder)]
    yield from ((root + key, key, name) for key, name in zip(keys, _classes_of(folder, keys), strict=True))


def _outside_runs(paths: Sequence[str], root: str) -> list[str]:
    """Leaves out the folders of the system and of runs below `root`, and what lies in them."""

    @functools.cache
    def is_kept(folder: str) -> bool:
        return len(folder) <= len(root) or (is_users(folder) and is_kept(os.path.dirname(folder)))

    return [path for path in paths if is_kept(os.path.dirname(path)) and is_users(path)]


def _root(folder: str) -> str:
    return os.path.join(folder, "")


def _classes_of(folder: str, keys: Sequence[str]) -> list[str | None]:
    """The class of every image in a folder, whose keys are relative to it."""
    found = sidecars.find(folder, keys) if archives.split(folder) is not None else None
    return found if found is not None else [_class_of(key) for key in keys]


def _class_of(key: str) -> str | None:
    first, slash, _ = key.partition("/")
    return sys.intern(first) if slash and first.lower() not in _UNLABELLED else None

"""Lists of large folders, cached for the next start."""

import collections
import os
import pathlib

import numpy as np

from tf_simclr import files
from tf_simclr.data.files.names import Names
from tf_simclr.data.files.walk import Walk, is_local
from tf_simclr.data.formats import decode

# A folder that changed this shortly before it was listed may change again without a new time.
_SETTLED_NANOSECONDS = 2 * 10**9


def load(folder: str, cache_folder: pathlib.Path | None) -> tuple[Names, collections.Counter[str]] | None:
    """The names that `save` stored, and `Walk.ignored`; None if a folder has changed since, or they cannot be read."""
    path = _path(folder, cache_folder)
    if path is None:
        return None
    try:
        with np.load(path) as arrays:
            folders = Names.unpack(arrays["folder_bytes"], arrays["folder_ends"])
            for name, time_changed in zip(folders, arrays["times"].tolist(), strict=True):
                if os.stat(name).st_mtime_ns != time_changed:
                    return None
            ignored = zip(arrays["ignored"].tolist(), arrays["ignored_counts"].tolist(), strict=True)
            return Names.unpack(arrays["name_bytes"], arrays["name_ends"]), collections.Counter(dict(ignored))
    except files.DAMAGED:  # There is none yet, or a folder is gone.
        return None


def save(names: Names, walk: Walk, folder: str, cache_folder: pathlib.Path | None) -> None:
    """Stores the names and the counts that a walk found, unless a folder has just changed or could not be read."""
    path = _path(folder, cache_folder)
    settled = walk.started_nanoseconds - _SETTLED_NANOSECONDS
    if path is None or walk.problems or max(walk.folders.values()) > settled:
        return
    name_bytes, name_ends = names.pack()
    folder_bytes, folder_ends = Names(walk.folders).pack()
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as beside:
        np.savez(
            beside,
            name_bytes=name_bytes,
            name_ends=name_ends,
            folder_bytes=folder_bytes,
            folder_ends=folder_ends,
            times=np.array(list(walk.folders.values()), np.int64),
            ignored=np.array(list(walk.ignored), np.str_),
            ignored_counts=np.array(list(walk.ignored.values()), np.int64),
        )


def _path(folder: str, cache_folder: pathlib.Path | None) -> pathlib.Path | None:
    if cache_folder is None or not is_local(folder):
        return None
    listed = repr((os.path.abspath(folder), decode.IMAGE_SUFFIXES))
    return cache_folder / f"{files.digest(listed.encode())}.npz"

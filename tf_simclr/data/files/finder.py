"""Finds the image files that a list of images names."""

import contextlib
import functools
import os

from tf_simclr.data.files import archive_index, archives
from tf_simclr.data.files.names import in_print
from tf_simclr.data.files.walk import exists, is_folder, is_local, readable_entries
from tf_simclr.data.formats import decode


class Finder:
    """Finds the image files that the cells of a list stand for.

    Cells are paths or names without suffix; the places are the folder of the list, the folders in it, the folder above,
    and `images` there. Backslashes may stand for slashes.

    Args:
      path: The list.
      is_wide: Whether archives beside the list, folders in them, and all of these in the folder above are places, too.
    """

    def __init__(self, path: str, is_wide: bool = False) -> None:
        self._folder = os.path.dirname(path)
        self._is_wide = is_wide
        self._list_name = os.path.basename(path).lower()
        self._files = functools.cache(_files_in)

    def direct(self, cell: str) -> tuple[str, str]:
        """(path, key) of a cell that is a path."""
        return os.path.join(self._folder, cell) if is_local(cell) else cell, cell

    def is_path(self, cell: str) -> bool:
        """Whether a cell is the path of an existing file."""
        path, _ = self.direct(cell)
        if is_local(path) and archives.split(path) is None:
            return os.path.isfile(os.fsencode(path))
        return exists(path) and not is_folder(path)

    def find(self, cell: str) -> list[tuple[str, str]]:
        """All files, as (path, key), that a cell may stand for; those in the first of the places that has any."""
        names = dict.fromkeys([cell, cell.replace("\\", "/"), as_text(cell)] if cell else [])
        for name in names:
            if self.is_path(name):
                return [self.direct(name)]
        for name in names:
            for places in self._places:
                hits = [hit for place in places if (hit := self._look(place, name)) is not None]
                if hits:
                    # The list of the training images may have ids that also stand for other test images.
                    return [hit for hit in hits if _place_of(hit[1]) in self._list_name] or hits
        return []

    def find_one(self, cell: str) -> tuple[str, str]:
        """(path, key) of the file that a cell stands for; if it is not found, of the file that it would be.

        Raises:
          ValueError: If it may stand for several files.
        """
        hits = self.find(cell)
        if len(hits) > 1:
            raise ValueError(
                f"An id in a list must stand for one file, but this one stands for {in_print(hits[0][0])} and "
                f"{in_print(hits[1][0])}: give paths instead. Received: {cell!r}"
            )
        return hits[0] if hits else self.direct(cell)

    @functools.cached_property
    def _places(self) -> list[list[str]]:
        places = [[""], self._below(""), [".."], ["../images"]]
        return [*places, self._below("../")] if self._is_wide else places

    def _below(self, start: str) -> list[str]:
        """The folders in a folder and, if the search is wide, the archives there and the folders in these."""
        folder = os.path.join(self._folder, start) or "."
        below = sorted(entry.name for entry in readable_entries(folder) if entry.is_folder)
        if self._is_wide and is_local(folder) and archives.split(folder) is None:
            for archive in _archives_in(folder):
                with contextlib.suppress(ValueError):  # It is damaged, or none.
                    inner = [entry for entry in readable_entries(os.path.join(folder, archive)) if entry.is_folder]
                    below += [archive, *(f"{archive}/{entry.name}" for entry in inner)]
        return [start + name for name in below]

    def _look(self, place: str, name: str) -> tuple[str, str] | None:
        folder, base = os.path.split(os.path.join(place, name))
        found = self._files(os.path.join(self._folder, folder)).get(base)
        return None if found is None else self.direct(os.path.join(folder, found))


def _archives_in(folder: str) -> list[str]:
    """The names of the archives in a folder; none if it cannot be listed."""
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(folder) if name.lower().endswith(archive_index.SUFFIXES))
    return []


def _place_of(key: str) -> str:
    """The first folder or archive on a path, in lower case and without the suffix of an archive."""
    name = next(part for part in key.split("/") if part != "..").lower()
    return os.path.splitext(name)[0] if name.endswith(archive_index.SUFFIXES) else name


def _files_in(folder: str) -> dict[str, str]:
    """The names of the images in a folder, by their names and by their names without suffix."""
    names = sorted(
        entry.name
        for entry in readable_entries(folder or ".")
        if decode.is_image_name(entry.name) and not entry.is_folder
    )
    return {os.path.splitext(name)[0]: name for name in reversed(names)} | {name: name for name in names}


def as_text(cell: str) -> str:
    """A cell whose bytes are not UTF-8 as the Latin-1 that Excel writes."""
    try:
        cell.encode()
    except UnicodeEncodeError:
        return os.fsencode(cell).decode("latin-1")
    return cell

"""The folder of a run among the places of its images: the run must not write where it reads."""

import os
import pathlib
from collections.abc import Iterator

from tf_simclr.data.files import listing, walk
from tf_simclr.settings import RunConfig

# What a training, a check and an evaluation write beside their findings.
_PICTURES = ("views.png", "check_views.png", "check_duplicates.png", "label_efficiency.png")


def check_apart(config: RunConfig, folder: pathlib.Path, has_started: bool) -> None:
    """Checks, before anything is written, that the run's folder is none of images.

    Folders of runs are left out when images are listed (see `walk.is_users`), so all images in it would vanish.

    Args:
      config: The run.
      folder: Its folder, which need not exist.
      has_started: Whether a run has trained there, in whose folder people may keep pictures of their own.

    Raises:
      ValueError: If the folder is a place of images or the root of a pattern for them, or holds images of the user.
    """
    path = pathlib.Path(os.path.realpath(folder))
    is_inside = False
    for setting, place in _places(config):
        root = pathlib.Path(os.path.realpath(listing.root_of(place)))
        if root == path:
            raise ValueError(
                f"--model_dir must be another folder than --{setting}: the run would write pictures beside the images. "
                f"Received: {place!r} and {str(folder)!r}"
            )
        is_inside |= root in path.parents
    for image in () if has_started else _images(os.fspath(folder), is_inside):
        if os.path.basename(image) not in _PICTURES:
            raise ValueError(
                "--model_dir must be a folder without images of yours: in the folder of a run they are left out. "
                f"Received: {str(folder)!r}, which holds {image!r}"
            )


def _places(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yields (setting, path or pattern) for all places of image files."""
    data = config.data
    if data.dataset == "folder" and data.data_dir is not None:
        yield from (("data_dir", place) for place in listing.split_places(data.data_dir))
    if data.eval_data_dir is not None:
        yield from (("eval_data_dir", place) for place in listing.split_places(data.eval_data_dir))


def _images(folder: str, at_any_depth: bool) -> Iterator[str]:
    if at_any_depth and walk.is_folder(folder):
        yield from walk.Walk().files(folder)
    else:
        yield from (entry.name for entry in walk.readable_entries(folder) if not entry.is_folder)

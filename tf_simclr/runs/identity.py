"""What a resumed run may not change: its settings, but for a few, and its images."""

import pathlib

from tf_simclr import files
from tf_simclr.data import sources
from tf_simclr.settings import SETTINGS, RunConfig, differences, to_text


def check_same_settings(old: RunConfig, new: RunConfig, folder: pathlib.Path) -> None:
    """Raises a `ValueError` that lists the settings that differ, if a resumed run may not change them."""
    changed = [
        f"{name} was {to_text(before)}, is {to_text(after)}"
        for name, (before, after) in differences(old, new).items()
        if not SETTINGS[name].resumable
    ]
    if changed:
        raise ValueError(
            f"{folder} holds a run with other settings: {'; '.join(changed)}. "
            "Choose another --model_dir, or give the settings of the run"
        )


def check_same_images(source: sources.Source, folder: pathlib.Path, start_step: int) -> None:
    """Notes in `images.json` which images a run learns from, and checks on its return that they are still the same.

    Args:
      source: The images to train on.
      folder: The run's folder.
      start_step: Where the training starts; at 0, any images will do.

    Raises:
      ValueError: If there are other images than those that the run started with.
    """
    path, found = folder / "images.json", source.identity()
    if start_step == 0 or not path.is_file():
        files.write_json(path, found)
        return
    before = files.read_json(path)
    changed = [
        f"{name} was {before.get(name)}, is {value}" for name, value in found.items() if value != before.get(name)
    ]
    if changed:
        raise ValueError(
            f"The images have changed since the run in {folder} started: {'; '.join(changed)}. "
            "Put them back as they were, or start anew in another --model_dir"
        )

"""Checks that a resumed run keeps its images and its settings, except for resumable settings."""

import pathlib

from tf_simclr import files
from tf_simclr.data import sources
from tf_simclr.settings import DEFAULT_BATCH_SIZE, SETTINGS, RunConfig, differences, to_text


def check_same_settings(old: RunConfig, new: RunConfig, folder: pathlib.Path) -> None:
    """Raises a `ValueError` that lists the changed settings, if a resumed run must keep them."""
    changed = [
        f"{name} was {to_text(before)}, is {to_text(after)}"
        for name, (before, after) in differences(old, new).items()
        if not SETTINGS[name].resumable
        # A run that has trained with the default of 512 has at least as many images, for which "not set" is the same.
        and not (name == "train.global_batch_size" and {before, after} == {None, DEFAULT_BATCH_SIZE})
    ]
    if changed:
        raise ValueError(
            f"{folder} holds a run with other settings: {'; '.join(changed)}. "
            "Choose another --model_dir, or use the settings of that run"
        )


def check_same_images(source: sources.Source, folder: pathlib.Path, start_step: int) -> None:
    """Records in `images.json` which images a run trains on; if the run resumes, checks that they are the same.

    Args:
      source: The images to train on.
      folder: The run's folder.
      start_step: Step at which training starts; at 0, any images are accepted.

    Raises:
      ValueError: If the images are not those that the run started with.
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
            "Put them back as they were, or start over in another --model_dir"
        )

"""What a resumed run may not change: its settings, but for a few, and its images."""

import pathlib

from tf_simclr import files
from tf_simclr.data import sources
from tf_simclr.settings import RunConfig, differences

# What may differ when a run is resumed, because it does not change what is learnt: fields and whole sections.
FREE = (
    "name",
    "mode",
    "model_dir",
    "strategy",
    "tpu_name",
    "data.eval_split",
    "data.eval_data_dir",
    "data.max_broken_fraction",
    "data.cache",
    "data.service",
    "train.checkpoint_epochs",
    "train.checkpoint_steps",
    "train.keep_checkpoints",
    "train.log_every_seconds",
    "train.log_every_steps",
    "eval",
    "export",
)


def check_same_settings(old: RunConfig, new: RunConfig, folder: pathlib.Path) -> None:
    """Raises a `ValueError` that lists the settings that differ, if a resumed run may not change them."""
    changed = [
        f"{name} was {before}, is {after}"
        for name, (before, after) in differences(old, new).items()
        if name not in FREE and name.split(".")[0] not in FREE
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

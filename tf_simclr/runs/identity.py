"""Checks that a resumed run keeps its images and its settings, except for resumable settings."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tf_simclr import builders, files
from tf_simclr.data import sources
from tf_simclr.settings import DEFAULT_BATCH_SIZE, SETTINGS, DataConfig, RunConfig, differences, to_text

FILE = "images.json"
# Names and labels may be the same where images are not, so a few files are compared, too.
_NUM_COMPARED = 16
_CONTENT = f"digest of {_NUM_COMPARED} images"


def check_same_settings(old: RunConfig, new: RunConfig, folder: pathlib.Path) -> None:
    """Raises a `ValueError` that lists the changed settings, if a resumed run must keep them."""
    changed = [
        f"{name} was {to_text(before)}, is {to_text(after)}"
        for name, (before, after) in differences(old, new).items()
        if not SETTINGS[name].resumable
        and not _is_same_place(name, before, after)
        # A run that has trained with the default of 512 has at least as many images, for which "not set" is the same.
        and not (name == "train.global_batch_size" and {before, after} == {None, DEFAULT_BATCH_SIZE})
    ]
    if changed:
        raise ValueError(
            f"{folder} holds a run with other settings: {'; '.join(changed)}. "
            "Choose another --model_dir, or use the settings of that run"
        )


def _is_same_place(name: str, before: str | None, after: str | None) -> bool:
    """Whether two spellings of a path lead to the same place."""
    if not SETTINGS[name].is_path or before is None or after is None:
        return False
    return os.path.realpath(before) == os.path.realpath(after)


def check_same_images(images: builders.Sources, data: DataConfig, folder: pathlib.Path, start_step: int) -> None:
    """Records in `images.json` which images a run uses; if the run resumes, checks that they are the same.

    The images count, not where they lie. If the settings name other images for the evaluation, it may have them.

    Args:
      images: The images of the run.
      data: Where they come from.
      folder: The run's folder.
      start_step: Step at which training starts; at 0, any images are accepted.

    Raises:
      ValueError: If the images are not those that the run started with.
    """
    found: dict[str, Any] = {part: _identity(source, data.cache) for part, source in images._asdict().items()}
    found["evaluation"] = {"eval_data_dir": data.eval_data_dir, "eval_split": data.eval_split}
    path = folder / FILE
    if start_step and path.is_file():
        changed = list(_changes(files.read_json(path), found))
        if changed:
            raise ValueError(
                f"The images have changed since the run in {folder} started: {'; '.join(changed)}. Put them back as "
                "they were (data.cache, too: TFDS data sets come from memory in another order), or start over in "
                "another --model_dir"
            )
    files.write_json(path, found)


def _identity(source: sources.Source, cache: str) -> dict[str, Any]:
    identity = source.identity()
    if cache != "disk":  # Its files are decoded, so they are others.
        with contextlib.suppress(tf.errors.OpError):
            sample = source.sample_encoded(_NUM_COMPARED)
            # A file that cannot be read is left out, and counts as broken elsewhere.
            if len(sample) == min(_NUM_COMPARED, source.num_examples):
                identity[_CONTENT] = files.digest(b"".join(sample))
    return identity


def _changes(before: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """What has changed, in words."""
    if "images" in before:  # Earlier versions recorded the training images only, and no content.
        before = {"train": before}
    is_same_evaluation = before.get("evaluation") == found["evaluation"]
    for part, prefix in (("train", ""), ("probe", "labelled "), ("test", "test ")):
        if part not in before or (part != "train" and not is_same_evaluation):
            continue
        for name in {**before[part], **found[part]}:
            old, new = before[part].get(name), found[part].get(name)
            if old != new and (name != _CONTENT or None not in (old, new)):
                yield f"{prefix}{name} was {old}, is {new}"

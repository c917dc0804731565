"""Reads the settings of a run from its folder or from a checkpoint."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging

from tf_simclr import files
from tf_simclr.runs import architecture
from tf_simclr.settings import SETTINGS, VERSION, RunConfig, from_dict, override

FILE = "config.json"


def settings_of_run(folder: str | os.PathLike[str]) -> RunConfig | None:
    """The settings of the run in a folder, or `None` if it holds no run.

    Raises:
      ValueError: If the run has settings of another version, which cannot be used.
    """
    path = pathlib.Path(folder) / FILE
    if not path.is_file():
        return None
    values = files.read_json(path)
    version = _version(values)
    if version != VERSION:
        raise ValueError(
            f"{folder} holds a run of another version of tf_simclr, which is not resumed: choose another --model_dir, "
            f"and use --checkpoint={folder} to start from its weights. "
            f"Received: {FILE} of version {version}, not {VERSION}"
        )
    return from_dict(values)


def settings_of_checkpoint(path: str | os.PathLike[str]) -> RunConfig:
    """The reference's defaults, with the architecture of a checkpoint, on the embedded data.

    Args:
      path: What `weights.find_checkpoint` takes. The architecture comes from the run's settings if the path lies in the
        folder of a run, even of an earlier version; otherwise from the shapes of the weights.

    Raises:
      FileNotFoundError: If there is no weights file.
      ValueError: If it does not hold a known ResNet.
    """
    folder = folder_of_run(path)
    if folder is not None:
        changes = _settings_of_model(files.read_json(folder / FILE))
        for name in ("model.sk_ratio", "model.se_ratio"):  # Version 1 used 0 for "none".
            changes[name] = changes.get(name) or None
    else:
        found = architecture.read_architecture(path)
        changes = {f"model.{name}": value for name, value in found.items() if name != "num_classes"}
        changes["data.image_size"] = 32 if found["stem"] == "cifar" else 224
    return override(RunConfig(), changes | {"name": pathlib.Path(path).resolve().name, "data.dataset": "shapes"})


def settings_of_weights(path: str | os.PathLike[str], precision: str) -> RunConfig:
    """The settings of the run in a folder, or those that a checkpoint implies, in another precision.

    Outside a run's folder, warns of what is taken for granted.

    Raises:
      FileNotFoundError: If there is no weights file.
      ValueError: If it does not hold a known ResNet.
    """
    try:
        run = settings_of_run(path)
    except ValueError:  # Of an earlier version, whose architecture can be read still.
        run = None
    if run is not None:
        return run
    implied = settings_of_checkpoint(path)
    if folder_of_run(path) is None:
        logging.warning(
            "%s is in no folder of a run. What its file does not tell is taken to be so: the stem %s, images of %d px, "
            "and a classifier, if it has one, that reads the representation. If it is otherwise, export it by "
            "--mode=export --checkpoint with --stem, --image_size and --ft_proj_selector, and name the SavedModel",
            path,
            implied.model.stem,
            implied.data.image_size,
        )
    return override(implied, {"train.precision": precision})


def folder_of_run(path: str | os.PathLike[str]) -> pathlib.Path | None:
    """The folder of the run, of any version, that a path is in; None if it is in none."""
    place = pathlib.Path(path).resolve()
    folder = next((one for one in (place, *place.parents[:2]) if (one / "checkpoints").is_dir()), None)
    return folder if folder is not None and (folder / FILE).is_file() else None


def _settings_of_model(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the model, and the image size, from a run's `config.json`.

    From another version, takes only the settings that have kept their names.
    """
    found = {f"model.{name}": value for name, value in values.get("model", {}).items()}
    if "image_size" in values.get("data", {}):
        found["data.image_size"] = values["data"]["image_size"]
    is_known = _version(values) == VERSION
    return {name: value for name, value in found.items() if is_known or name in SETTINGS}


def _version(values: Mapping[str, Any]) -> int:
    """The version of a `config.json`; version 1 did not state it."""
    return values.get("version", 1)

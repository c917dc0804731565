"""Reads the settings of a run from its folder or from a checkpoint."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

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
    place = pathlib.Path(path).resolve()
    runs = [folder for folder in (place, *place.parents[:2]) if (folder / "checkpoints").is_dir()]
    if runs and (runs[0] / FILE).is_file():
        changes = _settings_of_model(files.read_json(runs[0] / FILE))
    else:
        found = architecture.read_architecture(path)
        changes = {f"model.{name}": value for name, value in found.items() if name != "num_classes"}
        changes["data.image_size"] = 32 if found["stem"] == "cifar" else 224
    for ratio in ("model.sk_ratio", "model.se_ratio"):  # Weights, and version 1, use 0 for "none".
        changes[ratio] = changes.get(ratio) or None
    return override(RunConfig(), changes | {"name": place.name, "data.dataset": "shapes"})


def settings_of_weights(path: str | os.PathLike[str], precision: str) -> RunConfig:
    """The settings of the run in a folder, or those that a checkpoint implies, in another precision.

    Raises:
      FileNotFoundError: If there is no weights file.
      ValueError: If it does not hold a known ResNet.
    """
    try:
        run = settings_of_run(path)
    except ValueError:  # Of an earlier version, whose architecture can be read still.
        run = None
    return run or override(settings_of_checkpoint(path), {"train.precision": precision})


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

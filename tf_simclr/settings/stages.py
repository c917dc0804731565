"""Runs in a row, each of which may start from an earlier one: where they lie, and what flags may change of them."""

import os
from collections.abc import Mapping
from typing import Any

from tf_simclr.settings.declaration import flatten
from tf_simclr.settings.override import override
from tf_simclr.settings.run_config import SETTINGS, RunConfig

# They name weights: those of an earlier stage by its name.
STARTS = ("checkpoint", "distill.teacher")
# What makes one stage differ from another.
_OF_ONE_STAGE = ("name", "train_mode", *STARTS, "data.label_percent")
_MODES = ("train", "train_then_eval", "eval", "export")


def place(planned: Mapping[str, RunConfig], root: str) -> dict[str, RunConfig]:
    """Gives every stage its folder, ROOT/STAGE, and what starts from a stage the folder of that.

    Args:
      planned: The stages by name, in order.
      root: The folder of all.

    Raises:
      ValueError: If a stage has the name of a section of the settings, or starts from a later one.
    """
    placed: dict[str, RunConfig] = {}
    for name, config in planned.items():
        if name in {one.partition(".")[0] for one in SETTINGS} or os.path.basename(name) != name or not name:
            raise ValueError(f"A stage must have a name of its own, such as finetune_1. Received: {name!r}")
        changes: dict[str, Any] = {"name": name, "model_dir": os.path.join(root, name)}
        values = flatten(config)
        for setting in STARTS:
            value = values[setting]
            if value in planned and value not in placed:
                raise ValueError(
                    f"A stage starts from an earlier one: move {value} before {name}. Received: {setting}={value}"
                )
            if value in placed:
                changes[setting] = placed[value].model_dir
        placed[name] = override(config, changes)
    return placed


def check_shared(changes: Mapping[str, Any], planned: Mapping[str, RunConfig]) -> None:
    """Raises a `ValueError` if a change of all stages is of a setting that differs from stage to stage."""
    for name in (name for name in _OF_ONE_STAGE if name in changes):
        raise ValueError(
            f"{SETTINGS[name].title} differs from stage to stage: change one stage, such as "
            f"--set={next(iter(planned))}.{name}=VALUE. Received: {changes[name]}"
        )
    if changes.get("mode") not in (None, *_MODES):
        raise ValueError(
            f"A config of several stages takes --mode={', '.join(_MODES)}: look at one stage by the --model_dir below "
            f"that of all. Received: {changes['mode']}"
        )
    if changes.get("strategy") == "multi_worker":
        raise ValueError(
            "Several stages run in one process, on the devices of one machine: use another --strategy. "
            "Received: multi_worker"
        )

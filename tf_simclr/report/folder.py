"""Reads the folder of a run: finished, still training, killed, or of an older version."""

import dataclasses
import io
import json
import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tf_simclr import files
from tf_simclr.data.files.names import printable
from tf_simclr.report.images import ImageMap, read_map
from tf_simclr.settings import VERSION, RunConfig, from_dict

# Any of them says that a folder is one of a run.
_SIGNS = ("config.json", "metrics.jsonl", "result.json")
# What reading a file raises if it is missing half or none of ours.
_BROKEN = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, pa.ArrowException)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What a run's folder says.

    Attributes:
      folder: The folder.
      config: `config.json` as it is; empty if missing.
      settings: The same as settings; None if it is missing or of another version.
      environment: `run.json`; empty if missing.
      metrics: The lines of `metrics.jsonl`, the oldest first; so are the next two.
      speed: Those of `speed.jsonl`.
      health: Those of `health.jsonl`.
      result: `result.json`; empty if missing.
      check: `check.json`; empty if missing.
      confusions: Matrices int64 [C, C] by protocol, rows for the classes of the images.
      class_names: The names of the classes; empty if unknown.
      num_train_images: Images that it is trained on; None if unknown.
      images: The map of representations; None if missing.
      troubles: A sentence about each file that could not be read.
    """

    folder: pathlib.Path
    config: Mapping[str, Any]
    settings: RunConfig | None
    environment: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    speed: Sequence[Mapping[str, Any]]
    health: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any]
    check: Mapping[str, Any]
    confusions: Mapping[str, np.ndarray]
    class_names: Sequence[str]
    num_train_images: int | None
    images: ImageMap | None
    troubles: Sequence[str]

    @property
    def name(self) -> str:
        """The run's name, or else that of its folder, printable."""
        return printable(str(self.config.get("name") or self.folder.resolve().name))

    @property
    def has_accuracies(self) -> bool:
        """Whether it has been evaluated on labelled images."""
        return "eval/num_test_images" in self.result


def is_run(folder: pathlib.Path) -> bool:
    """Whether a folder is one of a run."""
    return any((folder / name).is_file() for name in _SIGNS)


def read_run(folder: pathlib.Path) -> Run:
    """Reads a run's folder; what is missing stays empty, and what is broken is said in `troubles`.

    Raises:
      FileNotFoundError: If the folder is not one of a run.
    """
    if not is_run(folder):
        raise FileNotFoundError(
            f"A report takes the folder of a run, which holds {', '.join(_SIGNS[:-1])} or {_SIGNS[-1]}. "
            f"Received: {printable(str(folder))}"
        )
    troubles: list[str] = []

    def read(name: str, reader: Any, otherwise: Any) -> Any:
        if not (folder / name).is_file():
            return otherwise
        try:
            return reader(folder / name)
        except _BROKEN as error:
            troubles.append(printable(f"{name} cannot be read ({type(error).__name__}), and is left out."))
            return otherwise

    config = read("config.json", _read_object, {})
    return Run(
        folder=folder,
        config=config,
        settings=_settings(config, troubles),
        environment=read("run.json", _read_object, {}),
        metrics=read("metrics.jsonl", files.read_metrics, []),
        speed=read("speed.jsonl", files.read_metrics, []),
        health=read("health.jsonl", files.read_metrics, []),
        result=read("result.json", _read_object, {}),
        check=read("check.json", _read_object, {}),
        confusions=read("features/confusion.npz", _read_arrays, {}),
        class_names=read("export_inputs.npz", _class_names, []),
        num_train_images=read("images.json", _num_train_images, None),
        images=read("features/map.parquet", read_map, None),
        troubles=troubles,
    )


def is_number(value: Any) -> bool:
    """Whether a value of a file is a number, and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _read_object(path: pathlib.Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} must hold an object")
    return value


def _read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(path.read_bytes())) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _class_names(path: pathlib.Path) -> list[str]:
    with np.load(io.BytesIO(path.read_bytes())) as arrays:
        return [printable(name) for name in arrays["class_names"].tolist()] if "class_names" in arrays else []


def _num_train_images(path: pathlib.Path) -> int:
    return int(_read_object(path)["train"]["images"])


def _settings(config: Mapping[str, Any], troubles: list[str]) -> RunConfig | None:
    if not config:
        return None
    if (version := config.get("version", 1)) != VERSION:
        troubles.append(
            f"config.json is of another version of tf_simclr ({version!r}, not {VERSION}), and is shown as it is."
        )
        return None
    try:
        return from_dict(config)
    except ValueError as error:
        troubles.append(printable(f"config.json is shown as it is: {error}."))
        return None

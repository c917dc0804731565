"""What a run was asked to do and where: its title, progress, settings, environment and commands."""

import datetime
import os
import pathlib
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tf_simclr.data.files.names import printable
from tf_simclr.report.folder import Run
from tf_simclr.settings import SETTINGS, RunConfig, differences, to_text

_TASKS = {
    "pretrain": "pretrained without labels",
    "finetune": "fine-tuned on labels",
    "supervised": "trained on labels",
    "distill": "taught by another network",
}

# The longest command on one line.
_LINE = 90


class Changed(NamedTuple):
    """A setting that is not at its default."""

    name: str
    value: str
    default: str
    help: str


class Progress(NamedTuple):
    """How far the training has come.

    Attributes:
      step: The last step that is known; 0 if none is.
      steps: Those of the whole run; None if unknown.
      written: When `metrics.jsonl` was written last, in UTC; None if there is none.
    """

    step: int
    steps: int | None
    written: str | None

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, as far as is known."""
        return self.steps is None or self.step >= self.steps


class Command(NamedTuple):
    """Something to type, and what it does."""

    title: str
    text: str


def subtitle(run: Run) -> str:
    """What was trained on what, in one line."""
    config = run.settings
    if config is None:
        return "A run whose settings this version cannot read"
    model = config.model
    encoder = f"ResNet-{model.resnet_depth}" if model.encoder == "resnet" else model.encoder
    if model.encoder == "resnet" and model.width_multiplier != 1:
        encoder += f" ({model.width_multiplier:g}×)"
    images = "" if run.num_train_images is None else f"{run.num_train_images:,} images of "
    return printable(f"{encoder}, {_TASKS[config.train_mode]} on {images}{_data(config)}")


def _data(config: RunConfig) -> str:
    """What its images are called: their data set, or the last parts of their paths."""
    if config.data.dataset != "folder" or config.data.data_dir is None:
        return config.data.dataset
    places = map(str.strip, config.data.data_dir.split(","))
    return ", ".join(pathlib.PurePath(place).name or place for place in places if place)


def progress(run: Run) -> Progress:
    """How far the run has come."""
    steps = [int(line["step"]) for line in run.metrics[-1:]]
    steps += [run.result["global_step"]] if isinstance(run.result.get("global_step"), int) else []
    total = None
    if run.settings is not None and run.metrics and run.num_train_images is not None:
        total = run.settings.total_steps(run.num_train_images)
    path = run.folder / "metrics.jsonl"
    written = None
    if path.is_file():
        time = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.timezone.utc)
        written = f"{time:%Y-%m-%d %H:%M} UTC"
    return Progress(max(steps, default=0), total, written)


def changed_settings(config: RunConfig) -> list[Changed]:
    """The settings that are not at their defaults, in the order of their declaration."""
    return [
        Changed(name, printable(to_text(value)) or "empty", to_text(default) or "empty", SETTINGS[name].help)
        for name, (default, value) in differences(RunConfig(), config).items()
    ]


def environment(run: Run) -> list[tuple[str, str]]:
    """What it ran on, as names with values."""
    found = run.environment
    names = {
        "python": "Python",
        "tensorflow": "TensorFlow",
        "keras": "Keras",
        "machine": "machine",
        "cpus": "CPU cores",
    }
    rows = [(title, str(found[name])) for name, title in names.items() if found.get(name) is not None]
    if isinstance(found.get("devices"), list):
        rows.insert(3, ("devices", ", ".join(map(str, found["devices"]))))
    rows += [("seed", str(found["seed"]))] if "seed" in found else []
    return [(title, printable(value)) for title, value in rows]


def commands(run: Run) -> list[Command]:
    """How to make the run again, to go on with it, to load and to serve what it exported."""
    return list(_commands(run))


def _commands(run: Run) -> Iterator[Command]:
    folder = shlex.quote(printable(os.fspath(run.folder)))
    typed = run.environment.get("command")
    if isinstance(typed, list) and typed:
        yield Command("The last command that worked on this folder", _shown(["python", *map(str, typed)]))
    if run.settings is not None:
        yield Command("The same run again, with every setting written out, in a new folder", _again(run.settings))
    yield Command("This report again", f"python run.py --mode=report --model_dir={folder}")
    exports = sorted((path for path in run.folder.glob("saved_model/*") if path.name.isdecimal()), key=_step)
    if exports:
        path = printable(os.fspath(exports[-1]))
        yield Command("Load the encoder in Python; it needs TensorFlow alone", _LOADING.format(path=path))
        mount = shlex.quote(printable(os.fspath(exports[-1].parent.absolute())) + ":/models/encoder")
        yield Command("Serve it", _SERVING.format(mount=mount))


_LOADING = """\
import tensorflow as tf

encoder = tf.saved_model.load({path!r})
photos = tf.constant([tf.io.read_file(path).numpy() for path in paths])
out = encoder.signatures["serving_default"](image_bytes=photos)
out["embedding"], out["valid"]"""
_SERVING = "docker run -p 8501:8501 -v {mount} -e MODEL_NAME=encoder tensorflow/serving"


def _step(path: pathlib.Path) -> int:
    return int(path.name)


def _again(config: RunConfig) -> str:
    """The command with the settings of a run; those of its place are left out."""
    changes = {name: value for name, (_, value) in differences(RunConfig(), config).items()}
    changes = {name: value for name, value in changes.items() if name not in ("mode", "model_dir", "data.dataset")}
    mode = config.mode if config.trains else "train_then_eval"
    words = ["python", "run.py", f"--mode={mode}", "--model_dir=NEW_FOLDER", f"--dataset={config.data.dataset}"]
    changes = {"name": config.name} | changes  # Or the run would be named after its data set.
    words += [SETTINGS[name].typed(value) for name, value in changes.items()]
    return _shown(words)


def _shown(words: Sequence[str]) -> str:
    """A command as a shell takes it, one option a line if it is long."""
    quoted = [printable(shlex.quote(word)) for word in words]
    text = " ".join(quoted)
    if len(text) <= _LINE:
        return text
    start = next((number for number, word in enumerate(words) if word.startswith("-")), len(words))
    return " \\\n  ".join([" ".join(quoted[:start]), *quoted[start:]])

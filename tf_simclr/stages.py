"""Runs the stages of a config one after the other, and compares what they have reached."""

import contextlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from tf_simclr import files
from tf_simclr.keras import keras
from tf_simclr.metrics.paired import difference_interval
from tf_simclr.runs import predictions, saved_models, weights
from tf_simclr.runs.checkpoint_list import list_checkpoints
from tf_simclr.runs.folder import as_started, make_folder
from tf_simclr.runs.results import LABEL, headline
from tf_simclr.runs.saved_outputs import Place
from tf_simclr.settings import RunConfig, flatten, from_dict, to_dict
from tf_simclr.settings.stages import STARTS

# The rows of the table, beside the folders of the stages.
FILE = "stages.json"
# The digests of the weights that a stage started from, and the settings that it has been run with to its end.
_DONE = "stage.json"


def run_all(planned: Mapping[str, RunConfig], run: Callable[[RunConfig], str]) -> str:
    """Runs all stages in order, but those that have been run to their end with the same settings.

    Args:
      planned: The stages by name, as `settings.stages.place` returns them.
      run: Runs one of them.

    Returns:
      The table for the terminal, of which `stages.json` has the numbers.

    Raises:
      ValueError: If stages have started from weights that have changed since, or are gone and would be trained anew.
    """
    _check_starts(planned)
    for number, (name, config) in enumerate(planned.items(), 1):
        logging.info("Stage %d of %d, %s: %s", number, len(planned), name, config.folder)
        _run_once(config, run)
    rows = compare(planned)
    root = pathlib.Path(next(iter(planned.values())).folder).parent
    files.write_json(root / FILE, rows)
    width = max(map(len, planned)) + 2
    return "\n".join([describe(rows), "", *(f"{name + ':':{width}}{one.folder}" for name, one in planned.items())])


def _run_once(planned: RunConfig, run: Callable[[RunConfig], str]) -> None:
    config, done = as_started(planned), _read_done(planned)
    if _is_of(done, config):
        logging.info("The stage is finished")
        return
    path, starts = pathlib.Path(config.folder, _DONE), done.get("starts", {}) | _digests(planned)
    if "settings" not in done:  # Of a stage that was finished, these are known, and its new settings may be refused.
        make_folder(config)
        files.write_json(path, {"starts": starts})
    run(config)
    files.write_json(path, {"settings": to_dict(config), "starts": starts})
    keras.backend.clear_session()  # Its graphs would stay in memory.


def _is_of(done: dict[str, Any], config: RunConfig) -> bool:
    """Whether a stage was run to its end with these settings, of which there may be more now."""
    try:
        return "settings" in done and from_dict(done["settings"]) == config
    except ValueError:  # Of another version.
        return False


def _read_done(config: RunConfig) -> dict[str, Any]:
    """The starts of a stage that has begun, and its settings if it was run to its end; empty for others."""
    path = pathlib.Path(config.folder, _DONE)
    return files.read_json(path) if path.is_file() else {}


def _starts(config: RunConfig) -> dict[str, str]:
    """The places of the weights that a stage starts from, by setting."""
    values = flatten(config)
    return {name: values[name] for name in STARTS if values[name] is not None}


def _digests(config: RunConfig) -> dict[str, str]:
    """The digests of the weights that a stage starts from, by setting, of those that are there."""
    found = {}
    for name, place in _starts(config).items():
        folder = Place.parse(place).path
        is_saved_model = saved_models.is_saved_model(folder)
        with contextlib.suppress(FileNotFoundError):
            found[name] = saved_models.digest(folder) if is_saved_model else weights.digest(place, weights.PARTS)
    return found


def _check_starts(planned: Mapping[str, RunConfig]) -> None:
    """Raises a `ValueError` if stages have weights of their own, but those that they started from are others now."""
    to_come, stale = set(), []
    for config in planned.values():
        done, starts = _read_done(config), _starts(config)
        if "settings" not in done and not list_checkpoints(pathlib.Path(config.folder)):
            to_come.add(config.folder)
            continue
        known = done.get("starts", {})
        now = _digests(config) if known else {}
        # What is gone, and will not be trained anew, cannot have changed.
        has_changed = any(now.get(name, digest) != digest for name, digest in known.items())
        if has_changed or to_come.intersection(starts.values()):
            to_come.add(config.folder)  # It will be, and so are the stages that start from it.
            stale.append(config.folder)
    if stale:
        raise ValueError(
            "The weights that stages have started from are gone or have changed: remove the folders of these stages, "
            f"so that they run anew, or put the weights back. Received: {', '.join(stale)}"
        )


def compare(planned: Mapping[str, RunConfig]) -> list[dict[str, Any]]:
    """The rows of the table: what each stage has reached, beside supervised training on the same labels.

    Returns:
      For each stage with a result, its name, train_mode and label_percent; the measure, "label" for its own classifier
      or a protocol that judges the frozen encoder on all labels; top_1_accuracy with _low and _high; and, where the
      plan has a supervised stage with as many labels, top_1_difference to that with its interval, image by image.
    """
    scratch = {one.data.label_percent: one for one in planned.values() if one.train_mode == "supervised"}
    rows = []
    for name, config in planned.items():
        path = pathlib.Path(config.folder, "result.json")
        result = files.read_json(path) if path.is_file() else {}
        is_own = "eval/label_top_1_accuracy" in result
        measure = LABEL if is_own and config.train_mode != "pretrain" else headline(config.eval.protocols)
        key = f"eval/{measure}_top_1_accuracy"
        if key not in result:
            continue
        row = {"stage": name, "train_mode": config.train_mode, "label_percent": config.data.label_percent}
        row |= {"measure": measure} | {f"top_1_accuracy{end}": result[key + end] for end in ("", "_low", "_high")}
        other = scratch.get(config.data.label_percent)
        if measure == "label" and other is not None and other is not config:
            row |= _difference(config, other)
        rows.append(row)
    return rows


def _difference(config: RunConfig, other: RunConfig) -> dict[str, float]:
    """How much more often a stage is right than another one, with a paired interval; empty without predictions."""
    paths = [predictions.predictions_path(pathlib.Path(one.folder)) for one in (config, other)]
    if not all(path.is_file() for path in paths):
        return {}
    ours, theirs = (predictions.read(path)["eval/label"] for path in paths)
    if list(ours.examples) != list(theirs.examples):
        return {}
    hits = [one.predicted == one.labels for one in (ours, theirs)]
    low, high = difference_interval(*hits)
    name = "top_1_difference"
    return {name: float(hits[0].mean() - hits[1].mean()), f"{name}_low": low, f"{name}_high": high}


def describe(rows: list[dict[str, Any]]) -> str:
    """The table as text, in percent and percentage points."""
    if not rows:
        return "No stage has a result: the images have no labels, or --mode leaves the evaluation out"
    cells = [("stage", "labels", "judged by", "top-1 accuracy", "from scratch: difference")]
    for row in rows:
        judge = "its classifier" if row["measure"] == "label" else f"{row['measure']}, all labels"
        labels = "none" if row["train_mode"] == "pretrain" else f"{row['label_percent']} %"
        ends = "" if "top_1_difference" not in row else _in_percent(row, "top_1_difference", "+.1f")
        cells.append((row["stage"], labels, judge, _in_percent(row, "top_1_accuracy", ".1f"), ends))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def _in_percent(row: Mapping[str, float], name: str, form: str) -> str:
    value, low, high = (format(100 * row[name + end], form) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"

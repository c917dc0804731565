"""Several runs on one page: what they reached image by image, their curves, and the settings in which they differ."""

import os
import pathlib
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from tf_simclr import compare, files
from tf_simclr.data.files.names import printable
from tf_simclr.report import charts, facts, page, versus
from tf_simclr.report.folder import Run, is_number, read_run
from tf_simclr.report.write import FILE
from tf_simclr.settings import flatten, to_text

# Curves that are drawn over each other, by the file that they are in: key, title and whether it is a share.
_CURVES = {
    "metrics": (
        ("loss", "Loss", False),
        ("contrastive_top_1_accuracy", "Finds the other view, in the batch", True),
        ("classifier_top_1_accuracy", "Online classifier, in the batch", True),
        ("learning_rate", "Learning rate", False),
    ),
    "speed": (("images_per_second", "Images per second", False),),
    "health": (
        ("alignment", "Alignment", False),
        ("uniformity", "Uniformity", False),
        ("representation_effective_rank", "Effective rank of the representation", False),
        ("knn_top_1_accuracy", "kNN accuracy while it trains", True),
    ),
}
# Settings that say which run it is, not how it is made.
_PLACES = {"name", "model_dir"}


class Entry(NamedTuple):
    """A run on the page.

    Attributes:
      name: What tells it from the others, printable.
      link: To its own report, from the page; None if it has none.
      run: What its folder says.
      evaluation: What its last evaluation has kept; None if there is none that can be read.
    """

    name: str
    link: str | None
    run: Run
    evaluation: compare.Evaluation | None

    @property
    def subtitle(self) -> str:
        """What was trained on what."""
        return facts.subtitle(self.run)

    @property
    def state(self) -> str:
        """How far it has come."""
        done = facts.progress(self.run)
        if not done.step:
            return "not started"
        steps = f"step {done.step:,}"
        if not done.is_finished:
            return f"{steps} of {done.steps:,}, last written {done.written}"
        return f"{steps}, {'evaluated' if self.run.result else 'not evaluated'}"


def write_several(folders: Sequence[pathlib.Path], output: pathlib.Path) -> pathlib.Path:
    """Writes the comparison of runs, as `files.replacing` does, and returns its path.

    Args:
      folders: The runs' folders, which are only read; differences are from the first one that has been evaluated.
      output: The file to write.

    Raises:
      FileNotFoundError: If a folder is not one of a run.
      ValueError: If there are fewer than two runs.
    """
    distinct = list({folder.resolve(): folder for folder in folders}.values())
    if len(distinct) < 2:
        raise ValueError(f"A comparison takes two runs or more. Received: {', '.join(map(str, folders))}")
    names = short_names(distinct)
    entries = [read_entry(folder, name, output) for folder, name in zip(distinct, names, strict=True)]
    judged = [versus.Judged(one.name, one.evaluation, one.run.result) for one in entries if one.evaluation]
    found = versus.sort_out(judged)
    compared = [found.first.name, *(one.name for one in found.others)] if found else []
    entries.sort(key=lambda one: one.name not in compared)  # So that a run has the same colour in all charts.
    unjudged = [one.name for one in entries if not one.evaluation]
    reasons = {"no predictions for labelled test images": unjudged} if unjudged else {}
    text = page.render(
        "several.html",
        title=f"{len(entries)} runs compared",
        entries=entries,
        versus=found,
        significant=compare.SIGNIFICANT,
        left_out=reasons | dict(found.left_out if found else {}),
        curves=list(_curves(entries)),
        settings=differing([settings_of(entry.run) for entry in entries]),
        environment=differing([_environment(entry.run) for entry in entries]),
    )
    files.write_text(output, text)
    return output


def short_names(folders: Sequence[pathlib.Path]) -> list[str]:
    """What tells distinct folders from each other: their paths below the last folder that they have in common."""
    whole = [folder.resolve() for folder in folders]
    common = os.path.commonpath([path.parent for path in whole])
    return [printable(os.path.relpath(path, common)) for path in whole]


def read_entry(folder: pathlib.Path, name: str, output: pathlib.Path) -> Entry:
    """Reads a run for a page that will be at `output`."""
    link = None
    if (folder / FILE).is_file():
        way = os.path.relpath((folder / FILE).resolve(), output.resolve().parent)
        link = urllib.parse.quote(os.fsencode(way))
    try:
        evaluation = compare.load(os.fspath(folder))
    except (OSError, ValueError, KeyError):  # Not evaluated, without labels, or broken.
        evaluation = None
    return Entry(name, link, read_run(folder), evaluation if evaluation and evaluation.predictions else None)


def _curves(entries: Sequence[Entry]) -> Iterator[Markup]:
    for file, wanted in _CURVES.items():
        runs: list[Sequence[Mapping[str, Any]]] = [getattr(entry.run, file) for entry in entries]
        x = "epoch" if all(is_number(line.get("epoch")) for lines in runs for line in lines) else "step"
        for key, title, percent in wanted:
            series = []
            for entry, lines in zip(entries, runs, strict=True):
                points = [(line[x], line[key]) for line in lines if is_number(line.get(key))]
                series.append(charts.Series(entry.name, [a for a, _ in points], [b for _, b in points]))
            if any(one.x for one in series):
                yield charts.lines(title, series, x, "", percent=percent)


def settings_of(run: Run) -> dict[str, str]:
    """The settings of a run but those that say which one it is, as text; empty if this version cannot read them."""
    values = flatten(run.settings) if run.settings is not None else {}
    return {name: printable(to_text(value)) for name, value in values.items() if name not in _PLACES}


def _environment(run: Run) -> dict[str, str]:
    return {name: value for name, value in facts.environment(run) if name != "seed"}  # A setting, too.


def differing(runs: Sequence[Mapping[str, str]]) -> dict[str, list[str | None]]:
    """The values of the runs by name, where they are not the same in all; None where one of them is not known.

    A run of which nothing is known does not count.
    """
    names = dict.fromkeys(name for run in runs for name in run)
    found = {name: [run.get(name) for run in runs] for name in names}
    return {
        name: row for name, row in found.items() if len({one for one, run in zip(row, runs, strict=True) if run}) > 1
    }

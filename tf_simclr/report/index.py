"""The runs below a folder in one table, which sorts by any of its columns."""

import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_simclr import compare, files
from tf_simclr.data.files.names import counted, printable
from tf_simclr.report import facts, page
from tf_simclr.report.charts.markup import NOTHING, number
from tf_simclr.report.folder import Run, is_run
from tf_simclr.report.several import Entry, differing, read_entry, settings_of, short_names

# Settings that get a column because the runs differ in them; more would hide the numbers.
_MAX_SETTINGS = 10
_ACCURACY_TITLE = "accuracy, "
_ACCURACY = re.compile(r"eval/(\w+)_top_1_accuracy")
# Of the last lines of these files: key, title and whether it is a share.
_LAST = {
    "metrics": (("loss", "loss", False), ("contrastive_top_1_accuracy", "finds the other view", True)),
    "health": (("representation_effective_rank", "effective rank", False), ("uniformity", "uniformity", False)),
}


class Cell(NamedTuple):
    """What a run has in a column: how it reads, and what the column sorts by; None comes last."""

    text: str = NOTHING
    value: float | str | None = None


def write_index(folder: pathlib.Path, output: pathlib.Path) -> pathlib.Path:
    """Writes the table of the runs below a folder, as `files.replacing` does, and returns its path.

    Args:
      folder: The folder, in which nothing else is changed.
      output: The file to write.

    Raises:
      FileNotFoundError: If there is no run in the folder.
      OSError: If the file cannot be written.
    """
    runs = sorted(find_runs(folder))
    if not runs:
        raise FileNotFoundError(f"There is no run in the folder. Received: {printable(str(folder))}")
    entries = [read_entry(one, name, output) for one, name in zip(runs, short_names(runs), strict=True)]
    rows = [_cells(entry) for entry in entries]
    test_sets = _number_test_sets(entries)
    for row, test_set in zip(rows, test_sets, strict=True):
        row["test set"] = Cell() if test_set is None else Cell(str(test_set), test_set)
    settings = differing([settings_of(entry.run) for entry in entries])
    for name in list(settings)[:_MAX_SETTINGS]:
        for row, value in zip(rows, settings[name], strict=True):
            row[name] = Cell() if value is None else Cell(value, _sortable(value))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    first = _main(rows)
    order = sorted(range(len(rows)), key=lambda i: _rank(rows[i].get(first)))
    text = page.render(
        "index.html",
        script="table.js",
        title=f"{counted(len(entries), 'run')} in {printable(folder.resolve().name)}",
        columns=[(name, any(isinstance(row.get(name, Cell()).value, str) for row in rows)) for name in columns],
        sorted_by=first,
        rows=[(entries[i], [rows[i].get(name, Cell()) for name in columns]) for i in order],
        num_test_sets=len({one for one in test_sets if one is not None}),
        more_settings=list(settings)[_MAX_SETTINGS:],
    )
    files.write_text(output, text)
    return output


def find_runs(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folders of runs in a folder, at any depth; not those that are in the folder of a run, or hidden."""
    for place, names, _ in os.walk(folder):
        if is_run(pathlib.Path(place)):
            yield pathlib.Path(place)
            names.clear()
        names[:] = [name for name in names if not name.startswith(".")]


def _cells(entry: Entry) -> dict[str, Cell]:
    """What a run has, by column; those of the settings are not among them."""
    run, cells = entry.run, {}
    cells["step"] = _number(facts.progress(run).step)
    for protocol, value in _accuracies(run):
        cells[f"{_ACCURACY_TITLE}{protocol}"] = _number(value, percent=True)
    for file, wanted in _LAST.items():
        lines: Sequence[Any] = getattr(run, file)
        for key, title, percent in wanted:
            found = [line[key] for line in lines if isinstance(line.get(key), (int, float))]
            if found:
                cells[title] = _number(found[-1], percent=percent)
    speeds = [
        line["images_per_second"] for line in run.speed if isinstance(line.get("images_per_second"), (int, float))
    ]
    if speeds:
        cells["images/s"] = _number(float(np.median(speeds)))
    return cells


def _main(rows: Sequence[Mapping[str, Cell]]) -> str:
    """The accuracy that most of the runs have, of these the last one; empty if there is none."""
    names = [name for row in rows for name in row if name.startswith(_ACCURACY_TITLE)]
    last = {name: place for place, name in enumerate(names)}
    return max(last, key=lambda name: (names.count(name), last[name]), default="")


def _rank(cell: Cell | None) -> float:
    """Sorts numbers from the largest, and what is missing last."""
    return -cell.value if cell is not None and isinstance(cell.value, (int, float)) else np.inf


def _number_test_sets(entries: Sequence[Entry]) -> list[int | None]:
    """From 1, the same number for runs that were evaluated on the same test images; None if they are not known."""
    known: list[compare.Evaluation] = []
    numbers: list[int | None] = []
    for one in (entry.evaluation for entry in entries):
        if one is None:
            numbers.append(None)
            continue
        same = [i for i, other in enumerate(known) if compare.are_on_same_images(other, one)]
        if not same:
            known.append(one)
        numbers.append(1 + (same[0] if same else len(known) - 1))
    return numbers


def _accuracies(run: Run) -> Iterator[tuple[str, float]]:
    protocols = run.result.get("protocols")
    for key, value in run.result.items():
        if (name := _ACCURACY.fullmatch(key)) and isinstance(value, (int, float)):
            settings = protocols.get(name[1]) if isinstance(protocols, dict) else None
            title = settings.get("title") if isinstance(settings, dict) else None
            yield printable(str(title or name[1])), value


def _number(value: float, *, percent: bool = False) -> Cell:
    if np.isfinite(value) and not isinstance(value, int):
        value = float(f"{value:.4g}")
    return Cell(number(value, percent=percent), value if np.isfinite(value) else None)


def _sortable(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text

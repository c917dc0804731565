"""Finds the labels in a table of images.

They are in the first of LABEL_COLUMNS that the table has; or else, with a header, in the only column besides that of
the files, or in columns of which one is 1 and the others are 0; without a header, in the only column that does not hold
numbers. A first column that counts the rows, a column of splits and one whose values all differ hold no labels, unless
they have such a name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tf_simclr.data.formats import decode

# Columns of labels, as `plain` writes them; the first of them that a table has counts.
LABEL_COLUMNS = (
    "label", "labels", "class", "classname", "classlabel", "labelname", "category", "categoryname", "target", "species",
    "breed", "variety", "diagnosis", "dx", "y", "classid", "labelid", "categoryid", "classes", "level",
)  # fmt: skip
_SPLITS = {
    "train",
    "training",
    "test",
    "testing",
    "val",
    "valid",
    "validation",
    "dev",
    "eval",
    "unlabeled",
    "unlabelled",
}
# What programs write for an unknown label, in any case. "NA" may be a country, "none" a finding: both are classes.
_UNKNOWN = ("", "nan", "null", "<na>", "n/a")

# Labels that all differ are names or captions, unless there are so few that they may just be different.
_MAX_DISTINCT = 10


def plain(header: str) -> str:
    """The name of a column in lower case, without blanks and signs."""
    return re.sub(r"[\W_]", "", header.lower())


def to_class_name(label: Any) -> str | None:
    """The name of the class that a label stands for, the same from lists, arrays and records; None if it is unknown.

    Unknown are None, NaN and empty ones, and the texts "nan", "null", "<NA>" and "N/A", in any case, and "None". Whole
    numbers are written without ".0", which pandas adds beside gaps; blanks around a text do not count.

    Args:
      label: A text, bytes in UTF-8 or not, a number or None.
    """
    text = (label.decode("utf-8", "surrogateescape") if isinstance(label, bytes) else str(label)).strip()
    if text == "None" or text.lower() in _UNKNOWN:
        return None
    whole = re.fullmatch(r"(-?\d{1,18})\.0+", text)
    return str(int(whole[1])) if whole else text


def find(rows: Sequence[Sequence[str]], header: Sequence[str], path_column: int) -> tuple[list[str | None], str]:
    """Finds the label of every row.

    Args:
      rows: The cells of every row, without the header; at least one row.
      header: The names of the columns; empty if there are none.
      path_column: The column of the files.

    Returns:
      (the label of every row, None where it is unknown; what was understood, for the log).
    """
    width = max(len(header), *(len(row) for row in rows))
    names = [*header, *[""] * (width - len(header))]
    columns = {i: [row[i].strip() if i < len(row) else "" for row in rows] for i in range(width) if i != path_column}
    is_index = _counts_rows(columns.get(0, [])) and plain(names[0]) not in LABEL_COLUMNS
    columns = {i: cells for i, cells in columns.items() if any(cells) and not (i == 0 and is_index)}
    columns = {i: cells for i, cells in columns.items() if not all(map(decode.is_image_name, cells))}
    splits = [i for i, cells in columns.items() if plain(names[i]) not in LABEL_COLUMNS and _are_splits(cells)]
    others = {i: cells for i, cells in columns.items() if i not in splits}
    titles = {i: f"`{names[i]}`" if names[i] else str(i + 1) for i in columns}
    chosen = _choose(others, names, bool(header))
    if len(chosen) > 1:
        meaning = f"labels in the {len(chosen)} columns of which one is 1, from {titles[chosen[0]]} on"
        found = [names[chosen[flags.index(1.0)]] for flags in _flags(others.values())]
    elif chosen:
        meaning = f"labels in column {titles[chosen[0]]}"
        found = others[chosen[0]]
    else:
        which = f", as none of the columns {', '.join(titles[i] for i in others)} is called label or class"
        meaning = f"no labels{which if others else ''}"
        found = [""] * len(rows)
    labels = [to_class_name(label) for label in found]
    if 0 < labels.count(None) < len(labels):
        meaning += f" but for {labels.count(None):,} of the rows"
    if splits:
        meaning += f"; column {titles[splits[0]]} names splits and is not used: make a list of each split"
    return labels, meaning


def _choose(columns: Mapping[int, list[str]], names: Sequence[str], has_header: bool) -> list[int]:
    """The column that holds the labels, or those of a one-hot code, or none."""
    named = [i for name in LABEL_COLUMNS for i in columns if plain(names[i]) == name]
    if named:
        return named[:1]
    if has_header and len(columns) > 1 and all(sum(flags) == 1 == max(flags) for flags in _flags(columns.values())):
        return list(columns)
    common = [i for i, cells in columns.items() if len(cells) <= _MAX_DISTINCT or len(set(cells)) < len(cells)]
    if len(columns) > 1 and not has_header:
        common = [i for i in common if not all(_is_number(cell) for cell in columns[i])]
    return common if len(common) == 1 and (len(columns) == 1 or not has_header) else []


def _are_splits(cells: Sequence[str]) -> bool:
    return {cell.lower() for cell in cells} <= _SPLITS


def _counts_rows(cells: Sequence[str]) -> bool:
    """Whether the cells are 0, 1, 2, ... or 1, 2, 3, ..., as an index is."""
    return any(list(cells) == [str(i + first) for i in range(len(cells))] for first in (0, 1))


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", cell, re.IGNORECASE) is not None


def _flags(columns: Iterable[Sequence[str]]) -> list[list[float]]:
    """The numbers of every row, 0 or 1; what is neither is 2."""
    value = {"0": 0.0, "0.0": 0.0, "false": 0.0, "1": 1.0, "1.0": 1.0, "true": 1.0}
    return [[value.get(cell.lower(), 2.0) for cell in row] for row in zip(*columns, strict=True)]

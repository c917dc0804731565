"""Reads lists of images: text files with a path per line, and tables with a column of files and perhaps one of labels.

What a list means follows from the files that it names: its delimiter, whether it has a header and which column holds
files are those with which files are found. The log says in one line what was understood.
"""

import csv
import functools
import io
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from absl import logging

from tf_simclr.data.files import archives, labels
from tf_simclr.data.files.finder import Finder, as_text
from tf_simclr.data.files.names import counted, in_print
from tf_simclr.data.formats import decode

SUFFIXES = (".csv", ".tsv", ".txt")

# Columns of files, as `labels.plain` writes them; they only decide between columns of as many files.
_PATH_COLUMNS = (
    "path", "filepath", "imagepath", "imgpath", "filename", "file", "imagename", "imgname", "image", "img", "imageid",
    "imgid", "idcode", "id", "name",
)  # fmt: skip
_SAMPLED_CHARACTERS = 1 << 20
_SAMPLED_ROWS = 20

_Rows = list[list[str]]
_T = TypeVar("_T")


def read(path: str) -> Iterator[tuple[str, str, str | None]]:
    """Yields the files that a list names, each once, as (path, key, class name or None).

    Args:
      path: A .txt, .csv or .tsv file, local, in an archive, or any that `tf.io.gfile` reads.

    Raises:
      ValueError: If it names no file that exists, a row has no file, or an id stands for several files.
    """
    finder = Finder(path)
    text = _read_text(path)
    part, column = _find_layout(text, path, finder)
    all_rows = part(text)
    rows = _without_comments(all_rows, finder)
    if not rows:
        raise ValueError(f"Every quote in a list must be closed. Received: {in_print(path)!r}")
    first = _cell(rows[0], column)
    has_header = len(rows) > 1 and not decode.is_image_name(first) and not finder.find(first)
    header = rows.pop(0) if has_header else []
    num_skipped = len(all_rows) - len(rows)
    cells = [_cell(row, column) for row in rows]
    if "" in cells:
        number = cells.index("")
        raise ValueError(
            f"Row {num_skipped + number + 1} of {in_print(path)} has no image path. "
            f"Received: {','.join(rows[number])!r}"
        )
    found, meaning = labels.find(rows, header, column)
    are_paths = all(finder.is_path(cell) for cell in _spread(cells))  # Then the others are not looked for.
    files: dict[tuple[str, str], str | None] = {}
    several: dict[str, None] = {}
    for cell, label in zip(cells, found, strict=True):
        file = finder.direct(cell) if are_paths else finder.find_one(cell)
        if files.setdefault(file, label) != label:
            several[file[1]] = files[file] = None
    if several:
        meaning += f"; unlabelled for having several labels: {len(several):,}, first {in_print(next(iter(several)))}"
    name = f"`{header[column]}`" if header else f"{column + 1} of a table without a header"
    logging.info(
        "%s: %s with %s, in column %s; %s",
        in_print(path), counted(len(rows), "row"), counted(len(files), "different file"), name, meaning,
    )  # fmt: skip
    for (place, key), label in files.items():
        yield place, key, None if label is None else as_text(label)


def _read_text(path: str) -> str:
    """The text of a file in UTF-8 or UTF-16; bytes that are not UTF-8 are kept as `os.fsdecode` keeps them."""
    content = archives.read(path)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    if b"\0" in content[:2]:  # UTF-16 without a mark: every other byte of English text is 0.
        return content.decode("utf-16-be" if content[0] == 0 else "utf-16-le", "replace")
    return os.fsdecode(content.removeprefix(b"\xef\xbb\xbf"))


def _find_layout(text: str, path: str, finder: Finder) -> tuple[Callable[[str], _Rows], int]:
    """How to part the text into rows of cells, and the column of files: with these, most files are found.

    Raises:
      ValueError: If none are found.
    """
    tables = [functools.partial(_parse, delimiter=mark, quote=quote) for mark in ",;\t|" for quote in "\"'"]
    lines = [functools.partial(_lines, part=part) for part in (_whole, _last_apart, _first_apart, str.split)]
    ways: list[Callable[[str], _Rows]] = [*lines[:1], *tables, *lines[1:]]
    if not path.lower().endswith(".txt"):
        ways = [*tables, *lines]
    best, fewest_missing = None, 0
    for part in ways:
        rows = _without_comments(part(text[:_SAMPLED_CHARACTERS]), finder)
        sample = _spread(rows)
        ranks = {}
        for column in range(max(map(len, sample), default=0)):
            cells = [_cell(row, column) for row in sample]
            is_named = labels.plain(_cell(rows[0], column)) in _PATH_COLUMNS
            ranks[column] = (
                sum(bool(finder.find(cell)) for cell in cells),
                sum(map(decode.is_image_name, cells)),
                is_named,
            )
        if not ranks:
            continue
        column = max(ranks, key=ranks.__getitem__)
        missing = len(sample) - ranks[column][0]
        if ranks[column][0] and (best is None or missing < fewest_missing):
            best, fewest_missing = (part, column), missing
        if missing == 0 or (missing == 1 and not any(map(decode.is_image_name, sample[0]))):  # The header is none.
            break
    if best is None:
        rows = ways[0](text)
        raise ValueError(
            f"A list must name images by paths relative to its folder, or by ids of files beside it, but none of the "
            f"{len(_spread(rows)):,} rows looked at in {in_print(path)} names a file that exists. Received: "
            f"{','.join(rows[0]) if rows else ''!r}"
        )
    return best


def _parse(text: str, delimiter: str, quote: str) -> _Rows:
    """The rows of a table that are not empty; none if it has another delimiter or quote."""
    text = re.sub(r"\Asep=.\r?\n", "", text)  # Excel's note of the delimiter.
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote, skipinitialspace=True)
    try:
        return [row for row in rows if any(cell.strip() for cell in row)]
    except csv.Error:  # Behind a quote that is not closed, a cell is longer than any.
        return []


def _lines(text: str, part: Callable[[str], list[str]]) -> _Rows:
    """The lines that are not empty; other marks that Unicode counts as ends of lines may be in names."""
    return [part(line.strip()) for line in text.split("\n") if line.strip()]


def _whole(line: str) -> list[str]:
    return [line]


def _last_apart(line: str) -> list[str]:
    return line.rsplit(None, 1)


def _first_apart(line: str) -> list[str]:
    return line.split(None, 1)


def _without_comments(rows: _Rows, finder: Finder) -> _Rows:
    """Leaves out the first rows that start with #; the last of them is the header if it fits a row of a file below."""

    def has_file(row: Sequence[str]) -> bool:
        return any(decode.is_image_name(cell) or finder.find(cell) for cell in map(str.strip, row))

    comments = list(itertools.takewhile(lambda row: row[0].startswith("#") and not has_file(row), rows))
    rest = rows[len(comments) :]
    if comments and rest and len(comments[-1]) == len(rest[0]) > 1 and has_file(rest[0]):
        return [comments[-1], *rest]
    return rest


def _cell(row: Sequence[str], column: int) -> str:
    return row[column].strip() if column < len(row) else ""


def _spread(rows: Sequence[_T]) -> list[_T]:
    """About `_SAMPLED_ROWS` of the rows, from the first to the last."""
    return list(rows[:: max(1, len(rows) // _SAMPLED_ROWS)])

"""Shows what was found about images: as a table, and in files that `--data_dir` takes back."""

import csv
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tf_simclr import files
from tf_simclr.data.files.names import printable
from tf_simclr.embeddings import pictures

# Rows and characters that a terminal shows.
_MAX_SHOWN, _MAX_WIDTH = 50, 60
_ROWS_AT_ONCE = 64


class Found(NamedTuple):
    """Images with what was found about them.

    Attributes:
      title: One sentence.
      paths: Their paths, as `os.fsdecode` returns them, [n].
      labels: The names of their classes, None where unknown, [n].
      columns: What was found, [n] each, by name: numbers or text.
    """

    title: str
    paths: Sequence[str]
    labels: Sequence[str | None]
    columns: Mapping[str, Sequence[Any]]


def cell(value: Any) -> str:
    """A value as text in one line."""
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else printable(str(value))


def table(found: Found) -> str:
    """The table for the terminal, of the first images."""
    columns = {**found.columns, "label": found.labels, "path": found.paths}
    if not any(found.labels):
        del columns["label"]
    shown = {name: [name, *map(cell, column[:_MAX_SHOWN])] for name, column in columns.items()}
    shown = {name: [_end(text) for text in column] for name, column in shown.items()}
    widths = [max(map(len, column)) for column in shown.values()]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*shown.values(), strict=True)
    ]
    more = len(found.paths) - _MAX_SHOWN
    return "\n".join([found.title, *(lines if found.paths else []), *([f"and {more:,} more"] if more > 0 else [])])


def _end(text: str) -> str:
    """The end of a long text, which tells paths apart."""
    return text if len(text) <= _MAX_WIDTH else f"...{text[3 - _MAX_WIDTH :]}"


def write(found: Found, path: pathlib.Path) -> None:
    """Writes a list, .csv, or the images themselves, .parquet.

    Raises:
      OSError: If the file cannot be written.
      ValueError: If it is to be of another kind.
    """
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise ValueError(f"--output must end in {' or '.join(writers)}. Received: {path}")
    with files.replacing(path) as beside:
        writers[path.suffix](found, beside)


def _write_csv(found: Found, path: pathlib.Path) -> None:
    # A column of labels even where none is known: another one would be taken for it.
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", *found.columns])
        labels = ["" if label is None else label for label in found.labels]
        writer.writerows(zip(found.paths, labels, *found.columns.values(), strict=True))


def _write_parquet(found: Found, path: pathlib.Path) -> None:
    """Writes the images with their bytes; those that are gone, and records, have none."""
    columns = {name: pa.array(column) for name, column in found.columns.items()}
    schema = pa.schema(
        [("path", pa.string()), ("label", pa.string()), ("image", pa.binary())]
        + [(name, column.type) for name, column in columns.items()]
    )
    with pa.OSFile(os.fsencode(path), "wb") as file, pq.ParquetWriter(file, schema) as writer:
        for start in range(0, len(found.paths), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            arrays = [
                pa.array(list(map(_utf8, found.paths[part])), pa.string()),
                pa.array(found.labels[part], pa.string()),
                pa.array(list(map(_content, found.paths[part])), pa.binary()),
            ]
            arrays += [column[part] for column in columns.values()]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _utf8(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def _content(path: str) -> bytes | None:
    try:
        return pictures.read(path)
    except OSError:
        return None


def groups(found: Found) -> Iterator[tuple[str, range]]:
    """(heading, rows) of what belongs together: the groups, or everything."""
    numbers = found.columns.get("group")
    if numbers is None:
        yield "", range(len(found.paths))
        return
    starts = [row for row in range(len(numbers)) if row == 0 or numbers[row] != numbers[row - 1]]
    for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True):
        yield f"Group {numbers[start]}", range(start, stop)

"""Reads files that list images: one path per line, or a table with a column of paths."""

import csv
import os
from collections.abc import Iterator

import tensorflow as tf

from tf_simclr.data.files.walk import is_local

SUFFIXES = (".txt", ".csv")


def read(path: str) -> Iterator[tuple[str, str, str | None]]:
    """Yields the files that a .txt or .csv file lists, as (path, key, class name or None)."""
    with tf.io.gfile.GFile(os.fsencode(path), "rb") as file:
        lines = os.fsdecode(file.read()).removeprefix("\ufeff").splitlines()
    rows = list(csv.reader(lines)) if path.lower().endswith(".csv") else [[line.strip()] for line in lines]
    columns = [cell.strip().lower() for cell in rows[0]] if rows else []
    has_header = "path" in columns
    path_column = columns.index("path") if has_header else 0
    label_column = (columns.index("label") if "label" in columns else len(columns)) if has_header else 1
    for number, row in enumerate(rows[has_header:], 1 + has_header):
        if not any(row):
            continue
        if len(row) <= path_column or not row[path_column].strip():
            raise ValueError(f"Line {number} of {path} has no image path. Received: {','.join(row)!r}")
        key = row[path_column].strip()
        label = row[label_column].strip() if len(row) > label_column else ""
        yield os.path.join(os.path.dirname(path), key) if is_local(key) else key, key, label or None

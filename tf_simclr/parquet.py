"""Writes and reads Parquet files at any path: pyarrow itself takes no path that is not UTF-8."""

import os
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tf_simclr import files


def write(path: str | os.PathLike[str], table: pa.Table, **options: Any) -> None:
    """Writes a table as `files.replacing` does, with options of `pyarrow.parquet.write_table`."""
    with files.replacing(path) as beside, pa.OSFile(os.fsencode(beside), "wb") as file:
        pq.write_table(table, file, **options)


def open_file(path: str | os.PathLike[str]) -> pq.ParquetFile:
    """Opens a file, or the address of one (`gs://...`), to read parts of it.

    Raises:
      FileNotFoundError: If there is none.
      pyarrow.ArrowInvalid: If it is no Parquet file, or a damaged one.
    """
    name = os.fspath(path)
    return pq.ParquetFile(name if "://" in name else pa.OSFile(os.fsencode(name)))


def read(path: str | os.PathLike[str]) -> pa.Table:
    """Reads a table."""
    return open_file(path).read()


def read_metadata(path: str | os.PathLike[str]) -> Mapping[bytes, bytes]:
    """Reads what a file says about itself, by key."""
    return open_file(path).schema_arrow.metadata or {}

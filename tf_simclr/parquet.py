"""Writes and reads Parquet files at any path: pyarrow itself takes no path that is not UTF-8."""

import os
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from tf_simclr import files


def write(path: str | os.PathLike[str], table: pa.Table) -> None:
    """Writes a table as `files.replacing` does."""
    with files.replacing(path) as beside, open(beside, "wb") as file:
        pq.write_table(table, file)


def read(path: str | os.PathLike[str]) -> pa.Table:
    """Reads a table."""
    with open(path, "rb") as file:
        return pq.read_table(file)


def read_metadata(path: str | os.PathLike[str]) -> Mapping[bytes, bytes]:
    """Reads what a file says about itself, by key."""
    with open(path, "rb") as file:
        return pq.read_schema(file).metadata or {}

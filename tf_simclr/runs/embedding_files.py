"""The Parquet files that `--mode=embed` writes: their columns, their names, and what they say about themselves.

A row is an image: `path` (text that can be printed anywhere), `path_bytes` (the bytes of a path that is not UTF-8),
`embedding` (a list of fixed size of float32 or float16; zeros if the image is broken), `valid`, `reason` (why it is
broken, or ""), `label` (the name of its class, if known).
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tf_simclr import parquet
from tf_simclr.data.files.names import in_print

# The key in a file's metadata.
_KEY = b"tf_simclr.embeddings"
_PATTERN = "embeddings-*.parquet"
# Rows in a file: 64 MiB of 2048 numbers each, and what a killed process loses at most.
ROWS_PER_FILE = 8192

# How an error says that files follow from something else.
_OTHER = {
    "model": "another model",
    "dtype": "another --embed_dtype",
    "shards": "another number of shards",
    "images": "other images, or the same ones before they changed",
    "rows": "files of another size",
}


class Rows(NamedTuple):
    """Images in order.

    Attributes:
      paths: Their paths, as `os.fsdecode` returns them, [n].
      embeddings: float [n, F]; zeros where the image is broken.
      reasons: Why they are broken, or "", [n].
      labels: The names of their classes, None where unknown, [n].
    """

    paths: Sequence[str]
    embeddings: np.ndarray
    reasons: Sequence[str]
    labels: Sequence[str | None]


def path_of(folder: pathlib.Path, shard: tuple[int, int], number: int) -> pathlib.Path:
    """The path of the file of this number, counted from 0, of the i-th of n shards."""
    return folder / f"embeddings-{shard[0]:05}-of-{shard[1]:05}-{number:06}.parquet"


def list_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files in a folder, in order."""
    return sorted(folder.glob(_PATTERN))


def write(path: pathlib.Path, rows: Rows, about: dict[str, Any]) -> None:
    """Writes a file, completely or not at all.

    Args:
      path: See `path_of`.
      rows: The images.
      about: What they follow from, as JSON; see `check_same`.
    """
    size = rows.embeddings.shape[1]
    printed = [in_print(one) for one in rows.paths]
    columns = {
        "path": pa.array(printed, pa.string()),
        "path_bytes": pa.array(
            [None if shown == one else os.fsencode(one) for one, shown in zip(rows.paths, printed, strict=True)],
            pa.binary(),
        ),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows.embeddings).ravel()), size),
        "valid": pa.array([not reason for reason in rows.reasons], pa.bool_()),
        "reason": pa.array([in_print(reason) for reason in rows.reasons], pa.string()),
        "label": pa.array([None if one is None else in_print(one) for one in rows.labels], pa.string()),
    }
    table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(about, sort_keys=True)})
    parquet.write(path, table, use_dictionary=["reason", "label"])


def open_file(path: pathlib.Path) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """Opens a file; returns it and what it says about itself.

    Raises:
      ValueError: If it is damaged, or of another origin.
    """
    try:
        opened = parquet.open_file(path)
        about = json.loads((opened.schema_arrow.metadata or {})[_KEY])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        reason = "it is none of --mode=embed" if isinstance(error, KeyError) else in_print(str(error))
        raise ValueError(f"A file of embeddings cannot be read ({reason}): remove it. Received: {path}") from None
    return opened, about


def check_same(folder: pathlib.Path, about: dict[str, Any]) -> None:
    """Checks that what a folder holds follows from the same model, and that of this shard from the same images.

    Args:
      folder: The folder of embeddings.
      about: "model", "dtype", "shards", "shard", "images" and "rows": what new files follow from.

    Raises:
      ValueError: If it follows from something else.
    """
    for path in list_files(folder):
        found = open_file(path)[1]
        compared = _OTHER if found["shard"] == about["shard"] else ("model", "dtype", "shards")
        different = [_OTHER[key] for key in compared if found[key] != about[key]]
        if different:
            raise ValueError(
                f"--output_dir holds embeddings of {' and of '.join(different)}: choose another folder, or remove "
                f"them. Received: {path}"
            )

"""Writes what every protocol predicted for every test image; `runs.predictions` reads it."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from tf_simclr import parquet
from tf_simclr.data.files.names import in_print
from tf_simclr.evaluation.features import Features
from tf_simclr.evaluation.verdict import Verdict
from tf_simclr.runs.predictions import IMAGES


def write(
    path: pathlib.Path, test: Features, verdicts: Mapping[str, Verdict], images: Mapping[str, Any] | None = None
) -> None:
    """Writes the predictions for the test images, by protocol, as `files.replacing` does.

    Args:
      path: The file.
      test: The test images.
      verdicts: The predictions.
      images: What identifies the images, as JSON; kept in the metadata of the file.
    """
    table = to_table(test, verdicts, test.labels)
    write_table(path, table.replace_schema_metadata({IMAGES: json.dumps(images)}))


def to_table(test: Features, verdicts: Mapping[str, Verdict], labels: np.ndarray) -> pa.Table:
    """The predictions for the test images and their labels, int64 [M], by protocol."""
    places = pa.array(list(verdicts))
    examples = pa.array([in_print(key) for key in test.keys] if test.keys is not None else [""] * len(test))
    count = len(test)
    return pa.table(
        {
            "protocol": pa.DictionaryArray.from_arrays(
                np.repeat(np.arange(len(verdicts), dtype=np.int32), count), places
            ),
            "example": pa.chunked_array([examples] * len(verdicts)),
            "label": np.tile(labels, len(verdicts)),
            "predicted": np.concatenate([verdict.predicted for verdict in verdicts.values()]),
            "score": np.concatenate([verdict.confidence for verdict in verdicts.values()]),
        }
    )


def write_table(path: pathlib.Path, table: pa.Table) -> None:
    """Writes what `to_table` gave, as `files.replacing` does."""
    path.parent.mkdir(exist_ok=True)
    parquet.write(path, table)

"""Which classes the protocols take for which, in a run's `features/confusion.npz`.

It has one array for each protocol that judged this encoder, and `label` for the trained classifier: int64 [C, C], rows
for the classes of the images, columns for those predicted. Of more classes than `MOST_CLASSES`, there is no such file.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from tf_simclr import files
from tf_simclr.data.files.names import in_print
from tf_simclr.metrics.confusion import confusion_matrix, most_frequent
from tf_simclr.runs.results import LABEL, headline

# Of more, the matrices would fill the memory, and nobody could look at them.
MOST_CLASSES = 4096
# Mistakes that the result names.
_NAMED = 3


def write(folder: pathlib.Path, labels: np.ndarray, predicted: Mapping[str, np.ndarray], num_classes: int) -> None:
    """Writes the matrices by protocol into the folder of a run, as `files.replacing` does, unless classes are too many.

    Args:
      folder: The run's folder.
      labels: int64 [M] in [0, num_classes), of the test images.
      predicted: The same of the predictions, by protocol.
      num_classes: C.
    """
    path = folder / "features" / "confusion.npz"
    if num_classes > MOST_CLASSES:
        logging.info("No confusion matrix of %s classes; predictions.parquet has all predictions", f"{num_classes:,}")
        path.unlink(missing_ok=True)  # Of an earlier evaluation.
        return
    matrices: dict[str, Any] = {
        name: confusion_matrix(labels, found, num_classes).toarray() for name, found in predicted.items()
    }
    with files.replacing(path) as beside:
        np.savez_compressed(beside, **matrices)


def describe(
    labels: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    num_classes: int,
    class_names: Sequence[str] | None,
    *,
    of: Sequence[str],
) -> dict[str, Any]:
    """The most frequent mistakes, for result.json; empty for two classes, where the accuracies tell as much.

    They are those of the `headline` of the protocols in `of`, or of the trained classifier if that is empty.
    """
    protocol = headline(of) if of else LABEL
    if num_classes <= 2 or protocol not in predicted:
        return {}
    mistakes = most_frequent(confusion_matrix(labels, predicted[protocol], num_classes), _NAMED)
    names = [in_print(name) for name in class_names or map(str, range(num_classes))]
    return {
        "protocol": protocol,
        "most_frequent": [
            {"label": names[label], "predicted": names[found], "count": count} for label, found, count in mistakes
        ],
    }

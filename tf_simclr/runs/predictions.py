"""What every protocol predicted for every test image, in a run's `features/predictions.parquet`.

The columns are `protocol` (the encoder and the protocol, such as "eval/linear"), `example` (the name of the image),
`label` and `predicted` (numbers of classes) and `score` (the probability of the predicted class). The evaluation writes
them; reading them takes no TensorFlow, which would be most of the time of a comparison.
"""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from tf_simclr import parquet

# The key in the file's metadata of what identifies the images.
IMAGES = b"images"


class Predictions(NamedTuple):
    """What one protocol predicted.

    Attributes:
      examples: The names of the images, [M].
      labels: int64 [M].
      predicted: int64 [M].
      scores: float32 [M].
    """

    examples: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    scores: np.ndarray


def predictions_path(folder: pathlib.Path) -> pathlib.Path:
    """Where a run's folder keeps the predictions of its last evaluation."""
    return folder / "features" / "predictions.parquet"


def read(path: pathlib.Path) -> dict[str, Predictions]:
    """Reads the predictions by protocol, in the order in which they were written."""
    table = parquet.read(path)
    places = table["protocol"].to_numpy()
    columns = [table[name].to_numpy() for name in ("example", "label", "predicted", "score")]
    return {
        str(place): Predictions(*(column[places == place] for column in columns)) for place in dict.fromkeys(places)
    }


def read_images(path: pathlib.Path) -> dict[str, Any] | None:
    """What identifies the images of the predictions; None if that was not kept."""
    return json.loads(parquet.read_metadata(path).get(IMAGES, b"null"))

"""The interface of a protocol, and its result."""

import dataclasses
import typing

import numpy as np

from tf_simclr.evaluation.features import Features
from tf_simclr.evaluation.probe import LinearProbe


@dataclasses.dataclass(frozen=True)
class Scores:
    """The verdict of a protocol.

    Attributes:
      metrics: Values by name, such as "top_1_accuracy" in [0, 1], and the settings that determine them, such as "k".
      predictions: The predicted class of every test image, int64 [M].
      probe: The linear classifier that predicted them, if it is one.
    """

    metrics: dict[str, float]
    predictions: np.ndarray
    probe: LinearProbe | None = None


class Protocol(typing.Protocol):
    """Judges representations: learns from those of the training images and predicts the classes of the test images.

    A protocol is a frozen dataclass whose fields are its settings. It chooses nothing by the test images, and the same
    features give the same scores.

    Attributes:
      name: Prefix of its metrics in `result.json`; a lower-case word.
    """

    name: typing.ClassVar[str]

    def __call__(self, train: Features, test: Features) -> Scores:
        """Learns from the training images and predicts the class of every test image."""

"""What a protocol is, and what it returns."""

import dataclasses
import typing

import numpy as np

from tf_simclr.evaluation.features import Features


@dataclasses.dataclass(frozen=True)
class Scores:
    """The verdict of a protocol.

    Attributes:
      metrics: Values by name, such as "top_1_accuracy" in [0, 1], and the settings that decide them, such as "k".
      predictions: The predicted class of every test image, int64 [M].
    """

    metrics: dict[str, float]
    predictions: np.ndarray


class Protocol(typing.Protocol):
    """Judges representations by what can be learned from those of the training images about the test images.

    A protocol is a frozen dataclass whose fields are its settings. Nothing is chosen by the test images, and the same
    features give the same scores.

    Attributes:
      name: Begins the names of its metrics in `result.json`; a lower-case word.
    """

    name: typing.ClassVar[str]

    def __call__(self, train: Features, test: Features) -> Scores:
        """Learns from the training images and predicts the class of every test image."""

"""The interface of a protocol, and its result."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_simclr.evaluation.features import Features
from tf_simclr.evaluation.probe import LinearProbe


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """What a protocol says about the test images; `verdict.judge` compares it with their labels.

    Attributes:
      probabilities: Of every class for every test image, float [M, C], rows of sum 1.
      settings: Those that decide the number, such as {"k": 200}, as JSON.
      chosen: Those that the protocol has chosen by itself, as JSON.
      probe: The linear classifier that they are from, if they are from one.
    """

    probabilities: np.ndarray
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    chosen: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    probe: LinearProbe | None = None


class Protocol(typing.Protocol):
    """Judges representations: learns from those of the training images and predicts the classes of the test images.

    A protocol is a frozen dataclass whose fields are its settings. It sees no label of a test image, and the same
    features give the same scores.

    Attributes:
      name: Prefix of its metrics in `result.json`; lower-case words joined by "_".
      title: Its name in reports, which may have settings of its scores in it, such as "kNN (k={k})".
    """

    name: typing.ClassVar[str]
    title: typing.ClassVar[str]

    def __call__(self, train: Features, test: np.ndarray) -> Scores:
        """Learns from the training images and predicts the classes of the test images.

        Args:
          train: The training images.
          test: The representations of the test images, float32 [M, F].
        """


def settings_of(protocol: Protocol) -> dict[str, Any]:
    """The name of a protocol and its fields, as JSON."""
    return {"protocol": protocol.name, **dataclasses.asdict(protocol)}  # type: ignore[call-overload]

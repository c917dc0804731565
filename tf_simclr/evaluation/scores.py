"""The interface of a protocol, and its result."""

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tf_simclr.evaluation.features import Features
from tf_simclr.evaluation.probe import LinearProbe

# Probabilities that are held at a time: 512 MiB of float64, which are all of ImageNet's.
_BLOCK_ELEMENTS = 1 << 26


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """What a protocol says about the test images; `verdict.judge` compares it with their labels.

    Attributes:
      probabilities_of: Of every class for the test images of a slice, float [m, C], rows of sum 1. Those of all images
        at once would fill the memory where classes are many.
      shape: (the number of test images M, the number of classes C).
      settings: Those that decide the number, such as {"k": 200}, as JSON.
      chosen: Those that the protocol has chosen by itself, as JSON.
      probe: The linear classifier that they are from, if they are from one.
    """

    probabilities_of: Callable[[slice], np.ndarray]
    shape: tuple[int, int]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    chosen: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    probe: LinearProbe | None = None

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """The probabilities of some images after others, and which images these are; one block at least."""
        num_images, num_classes = self.shape
        step = max(1, _BLOCK_ELEMENTS // num_classes)
        for start in range(0, max(1, num_images), step):
            rows = slice(start, min(start + step, num_images))
            yield rows, self.probabilities_of(rows)

    @property
    def probabilities(self) -> np.ndarray:
        """Those of all images, [M, C]."""
        return self.probabilities_of(slice(0, self.shape[0]))

    def predicted(self) -> np.ndarray:
        """The class of the highest probability of every image, int64 [M]; ties go to the lower class."""
        return np.concatenate([np.argmax(block, axis=1) for _, block in self.blocks()])


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

"""The linear classifier that an evaluation fits, kept in the run's folder for the export."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_simclr import files
from tf_simclr.keras import keras
from tf_simclr.models.heads import linear_classifier


@dataclasses.dataclass(frozen=True, eq=False)
class LinearProbe:
    """A linear classifier of representations.

    Attributes:
      weights: float32 [F, C].
      bias: float32 [C]; minus infinity for a class without a training example.
      regularization_c: Inverse strength of the L2 penalty: |w|^2 / 2 is added to C times the summed loss.
      temperature: The softmax of the logits divided by it is calibrated on examples that were not fitted.
      class_names: The names of the classes, if they have any.
    """

    weights: np.ndarray
    bias: np.ndarray
    regularization_c: float
    temperature: float = 1.0
    class_names: tuple[str, ...] | None = None

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Class logits, float32 [M, C], of features, float32 [M, F]."""
        return features @ self.weights + self.bias

    @property
    def digest(self) -> str:
        """The digest of what it answers."""
        return files.digest(np.concatenate([self.weights, self.bias[None]]) / np.float32(self.temperature))

    def to_layer(self) -> keras.layers.Dense:
        """A layer from representations [B, F] to logits, float32 [B, C], whose softmax is calibrated."""
        layer = linear_classifier(len(self.bias))
        layer.build([None, len(self.weights)])
        bias = np.maximum(self.bias / self.temperature, np.finfo(np.float32).min)  # Finite, so that gradients are.
        layer.set_weights([self.weights / self.temperature, bias])
        return layer

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to an .npz file, as `files.replacing` does."""
        with files.replacing(path) as beside:
            np.savez(beside, **self.to_arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LinearProbe":
        """Reads what `save` wrote."""
        with np.load(path) as arrays:
            return cls.from_arrays(dict(arrays))

    def to_arrays(self) -> dict[str, Any]:
        """Its attributes by name, without the class names if it has none."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "LinearProbe":
        """Takes what `to_arrays` gave."""
        names = tuple(arrays["class_names"].tolist()) if "class_names" in arrays else None
        numbers = float(arrays["regularization_c"]), float(arrays["temperature"])
        return cls(arrays["weights"], arrays["bias"], *numbers, names)


def probe_path(folder: pathlib.Path, step: int) -> pathlib.Path:
    """Where a run's folder keeps the linear classifier of the encoder at a step."""
    return folder / "features" / f"linear_{step}.npz"

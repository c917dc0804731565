"""The outputs of a SavedModel's functions: which of them are representations, which are logits."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

# Outputs that are representations whatever else a model returns, the likeliest first.
REPRESENTATIONS = (
    "embedding", "embeddings", "image_embedding", "image_embeddings", "representation", "representations",
    "feature_vector", "features", "pooled", "pooled_output", "pooler_output", "final_avg_pool", "avg_pool", "default",
)  # fmt: skip
# The same for what tells classes apart. Probabilities are as good: their logarithms are logits.
LOGITS = (
    "logits_sup", "logits", "class_logits", "scores", "probabilities", "probs", "predictions", "classification",
)  # fmt: skip
# A probability that is 0 in float32 still has a logarithm.
_SMALLEST = 1e-30


class Place(NamedTuple):
    """PATH#FUNCTION:OUTPUT, of which the names may be missing.

    Attributes:
      path: The SavedModel.
      function: The name of a signature, or `CALL`.
      output: The name of an output.
    """

    path: str
    function: str | None = None
    output: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Takes the text apart.

        >>> Place.parse("models/a#serving_default:features")
        Place(path='models/a', function='serving_default', output='features')
        >>> Place.parse("models/a")
        Place(path='models/a', function=None, output=None)
        """
        if tf.io.gfile.exists(os.fsencode(text)):  # A path may have a "#" in it.
            return cls(text)
        path, _, names = text.rpartition("#") if "#" in text else (text, "", "")
        function, _, output = names.partition(":")
        return cls(path, function or None, output or None)


def outputs_of(found: Any) -> dict[str, tf.Tensor]:
    """The outputs of a function by name; those of a list by position."""
    if isinstance(found, Mapping):
        named = {f"{name}": value for name, value in found.items()}
    elif isinstance(found, (list, tuple)):
        named = {f"output_{position}": value for position, value in enumerate(found)}
    else:
        return {"output": found}
    flat: dict[str, tf.Tensor] = {}
    for name, value in named.items():
        inner = outputs_of(value)
        flat |= {name: value} if list(inner) == ["output"] else {f"{name}/{key}": one for key, one in inner.items()}
    return flat


def choose_representations(outputs: Mapping[str, Any], count: int, function: str, place: Place) -> str:
    """The name of the representations among the outputs for so many images.

    Takes the one with a name of `REPRESENTATIONS`, or the only float [B, F], or the only float [B, h, w, F].

    Raises:
      ValueError: If there are none, or several that it may be.
    """
    candidates = _candidates(outputs, count, ranks=(2, 4))
    listed = _listed(candidates)
    flat = [name for name, shape in candidates.items() if len(shape) == 2]
    likely = [name for name in REPRESENTATIONS if name in candidates]
    if place.output is not None:
        if place.output in candidates:
            return place.output
    elif likely or len(flat) == 1 or len(candidates) == 1:
        return (likely or flat or list(candidates))[0]
    what = (
        f"no representations called {place.output}" if place.output else "several outputs that may be representations"
    )
    if not candidates:
        raise ValueError(
            f"The function {function} of a SavedModel must return floats [B, F] or [B, h, w, F]. "
            f"Received: {place.path}, which returns {', '.join(outputs) or 'nothing'}"
        )
    raise ValueError(
        f"The function {function} of a SavedModel has {what}: name one of them as {place.path}#{function}:OUTPUT, of "
        f"{listed}. Received: {place.path}"
    )


def choose_logits(outputs: Mapping[str, Any], count: int, function: str, place: Place) -> str:
    """The name of the logits, or of the probabilities of classes, among the outputs for so many images.

    An output with a name of `REPRESENTATIONS` is taken for logits only if the place names it.

    Raises:
      ValueError: If there are none, or several that it may be.
    """
    candidates = _candidates(outputs, count, ranks=(2,))
    likely = [name for name in LOGITS if name in candidates]
    others = [name for name in candidates if name not in REPRESENTATIONS]
    if place.output is not None and place.output in candidates:
        return place.output
    if place.output is None and (likely or len(others) == 1):
        return (likely or others)[0]
    raise ValueError(
        f"The function {function} of a SavedModel has no output that is known to be logits [B, C]: name it as "
        f"{place.path}#{function}:OUTPUT, of {_listed(candidates) or 'none'}. Received: {place.path}"
    )


def to_logits(values: tf.Tensor, are_probabilities: bool) -> tf.Tensor:
    """Logits [B, C] as they are; of probabilities, the logarithms."""
    return tf.math.log(tf.maximum(values, _SMALLEST)) if are_probabilities else values


def are_probabilities(values: np.ndarray) -> bool:
    """Whether the rows of an output, float [n, C], are at least 0 and sum to 1, as logits hardly ever do."""
    return bool(np.all(values >= 0) and np.allclose(values.sum(axis=1), 1, atol=1e-2))


def _candidates(outputs: Mapping[str, Any], count: int, ranks: Sequence[int]) -> dict[str, list[int | None]]:
    """The shapes of the float outputs for so many images, by name."""
    return {
        name: value.shape.as_list()
        for name, value in sorted(outputs.items())
        if tf.is_tensor(value) and value.dtype.is_floating and value.shape.rank in ranks and value.shape[0] == count
    }


def _listed(candidates: Mapping[str, list[int | None]]) -> str:
    return ", ".join(f"{name} {['B', *shape[1:]]}".replace("'", "") for name, shape in candidates.items())

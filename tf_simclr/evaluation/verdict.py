"""What an evaluation found out about an encoder by a protocol, and where it is kept."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

from tf_simclr import files
from tf_simclr.evaluation.cache import code_of, digest_of, remove_older
from tf_simclr.evaluation.probe import LinearProbe
from tf_simclr.evaluation.scores import Scores
from tf_simclr.metrics.probabilities import Answers, compare, measure, measure_several

# The code that numbers follow from, besides that of the representations.
JUDGEMENT = ("data/sources/subsets.py", "evaluation/**/*.py", "metrics/*.py", "schedules.py")


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """The numbers of a protocol, and what they are from.

    Attributes:
      metrics: Values by name, such as "top_1_accuracy" and "top_1_accuracy_low".
      settings: Those of the protocol that decide the numbers.
      chosen: Those that it has chosen by itself.
      predicted: The predicted class of every test image, int64 [M].
      confidence: Its probability, float32 [M].
      probe: The linear classifier, if it is one.
    """

    metrics: Mapping[str, float]
    settings: Mapping[str, Any]
    chosen: Mapping[str, Any]
    predicted: np.ndarray
    confidence: np.ndarray
    probe: LinearProbe | None = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to an .npz file, as `files.replacing` does."""
        numbers = json.dumps({name: dict(getattr(self, name)) for name in ("metrics", "settings", "chosen")})
        probe = {} if self.probe is None else self.probe.to_arrays()
        arrays = {f"probe_{name}": value for name, value in probe.items()}
        with files.replacing(path) as beside:
            np.savez(beside, numbers=numbers, predicted=self.predicted, confidence=self.confidence, **arrays)

    @classmethod
    def load(cls, path: pathlib.Path) -> "Verdict":
        """Reads what `save` wrote."""
        with np.load(path) as arrays:
            probe = {name.removeprefix("probe_"): arrays[name] for name in arrays.files if name.startswith("probe_")}
            numbers = json.loads(str(arrays["numbers"]))
            return cls(
                **numbers,
                predicted=arrays["predicted"],
                confidence=arrays["confidence"],
                probe=LinearProbe.from_arrays(probe) if probe else None,
            )


def judge(scores: Scores, labels: np.ndarray) -> Verdict:
    """Compares what a protocol says with the labels of the test images, int64 [M], or bool [M, C] of several each."""
    if labels.ndim == 2:
        probabilities = scores.probabilities
        metrics = measure_several(probabilities, labels)
        predicted, confidence = np.argmax(probabilities, axis=1), np.max(probabilities, axis=1)
    else:
        parts = [compare(probabilities, labels[rows]) for rows, probabilities in scores.blocks()]
        answers = Answers(*map(np.concatenate, zip(*parts, strict=True)))
        metrics = measure(answers, labels, scores.shape[1])
        predicted, confidence = answers.predicted, answers.confidence
    return Verdict(metrics, scores.settings, scores.chosen, predicted, confidence.astype(np.float32), scores.probe)


def keyed(purpose: pathlib.Path, origin: Mapping[str, Any], suffix: str) -> pathlib.Path:
    """Where something is kept for a purpose: at that path with the key of its origin and of the code that judges."""
    return purpose.with_name(f"{purpose.name}_{digest_of({**origin, 'code': code_of(*JUDGEMENT)})}{suffix}")


def keep_verdict(purpose: pathlib.Path, origin: Mapping[str, Any], find: Callable[[], Verdict]) -> Verdict:
    """The verdict kept for the same purpose and origin, or else a new one, which takes the place of older ones.

    Args:
      purpose: The path to keep it at, without the key.
      origin: What it follows from besides the code, as JSON.
      find: Makes it.
    """
    path = keyed(purpose, origin, ".npz")
    if path.is_file():
        return Verdict.load(path)
    verdict = find()
    if verdict.chosen:
        chosen = ", ".join(f"{name} {_text(value)}" for name, value in verdict.chosen.items())
        logging.info("Chosen on training images, %s: %s", purpose.name, chosen)
    verdict.save(path)
    remove_older(path)
    return verdict


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

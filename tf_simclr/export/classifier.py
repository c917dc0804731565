"""Chooses what the signature `classify` of a run's export answers with."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from tf_simclr.evaluation.probe import LinearProbe, probe_path
from tf_simclr.export.directory import CARD
from tf_simclr.export.served import Served
from tf_simclr.files import read_json
from tf_simclr.runs.results import PROBED


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The classifier to export.

    Attributes:
      served: The parts of the model, with this classifier or none.
      card: Its entry in the model card: where it comes from and how good it is; None without a classifier.
      class_names: The names of its classes, if they were kept with it.
    """

    served: Served
    card: dict[str, Any] | None
    class_names: tuple[str, ...] | None = None


def choose_classifier(served: Served, home: pathlib.Path, step: int, *, is_pretrained: bool, is_own: bool) -> Chosen:
    """The classifier whose accuracy an evaluation reported.

    After a pretraining, this is the linear classifier of the evaluation. The online classifier is not: it learns on
    the side, and its probabilities mean little. Weights from elsewhere keep the classifier that came with them, unless
    they lie in a run that was evaluated.

    Args:
      served: The parts of the model.
      home: The folder of the run that the weights are from.
      step: The step of the weights.
      is_pretrained: Whether an evaluation judges the encoder, frozen, rather than the model's classifier.
      is_own: Whether the run trained the weights, as opposed to loading them for this export.
    """
    kept, results = probe_path(home, step), home / f"result_{step}.json"
    result = read_json(results) if results.is_file() else {}
    count = {"test_images": result.get("eval/num_test_images")}
    if is_pretrained and kept.is_file():
        probe = LinearProbe.load(kept)
        judged = next((name for name in PROBED if f"eval/{name}_top_1_accuracy" in result), PROBED[0])
        card = {
            "source": "linear evaluation",
            "top_1_accuracy": result.get(f"eval/{judged}_top_1_accuracy"),
            "mean_confidence": result.get(f"eval/{judged}_mean_confidence"),
            **count,
            "digest": probe.digest,
        }
        served = dataclasses.replace(served, classifier=probe.to_layer(), classifier_layer=0)
        return Chosen(served, card, probe.class_names)
    if served.classifier is None or (is_pretrained and is_own):
        return Chosen(dataclasses.replace(served, classifier=None), None)
    if not is_own:
        return Chosen(served, {"source": "the weights file", "top_1_accuracy": None})
    return Chosen(served, {"source": "training", "top_1_accuracy": result.get("eval/label_top_1_accuracy"), **count})


def answers_with(export: pathlib.Path, card: Mapping[str, Any] | None) -> bool:
    """Whether an export was made with the classifier of this entry in the model card."""
    path = export / CARD
    exported = read_json(path).get("classifier") if path.is_file() else None
    return (exported or {}).get("digest") == (card or {}).get("digest")

"""What the entries of a run's `result.json` mean, for all who read it; without TensorFlow, which takes seconds to load.

An accuracy is under "ENCODER/PROTOCOL_top_1_accuracy".
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

# The run's own encoder; the names of those beside it start with "eval_".
THIS = "eval"
# The classifier that was trained with the encoder, in place of a protocol; it has a row of its own.
LABEL = "label"
# Marks other protocols that have one, among their settings.
OWN_ROW = "trains_encoder"
# The protocols whose classifier is kept and exported: the first of them that was asked for.
PROBED = ("linear", "linear_45")

# The series of label efficiency by their keys, in the order of the legend, and what they are called there.
KNN, LINEAR, FINETUNED = "eval/knn", "eval/linear", "eval/semi_supervised"
UNTRAINED, SCRATCH = "eval_untrained/linear", "eval/supervised"
TITLES = {
    KNN: "this encoder, kNN",
    LINEAR: "this encoder, linear",
    FINETUNED: "this encoder, fine-tuned",
    UNTRAINED: "the untrained encoder, linear",
    SCRATCH: "from scratch",
}
SHORT_TITLES = {
    KNN: "kNN",
    LINEAR: "linear",
    FINETUNED: "fine-tuned",
    UNTRAINED: "untrained, linear",
    SCRATCH: "from scratch",
}


def headline(protocols: Sequence[str]) -> str:
    """The protocol that sentences are about, of at least one: the one whose classifier is kept, or else the last."""
    return next((name for name in PROBED if name in protocols), protocols[-1])


def labels_needed(labels: Sequence[int], accuracies: Sequence[float], accuracy: float) -> float:
    """With how many labels a curve first reaches an accuracy, interpolated in the logarithm of the labels.

    >>> labels_needed([100, 1000], [0.2, 0.6], 0.4)
    316.22776601683796

    Args:
      labels: Increasing, [n].
      accuracies: Those of the curve, [n].
      accuracy: The one to reach.

    Returns:
      The number; 0 if the curve begins above the accuracy, infinity if it never reaches it.
    """
    if accuracy <= accuracies[0]:
        return float(labels[0]) if accuracy == accuracies[0] else 0.0
    for (first, low), (second, high) in itertools.pairwise(zip(labels, accuracies, strict=True)):
        if low < accuracy <= high:
            share = (accuracy - low) / (high - low)
            return math.exp(math.log(first) + share * (math.log(second) - math.log(first)))
    return math.inf


def worth_of_labels(table: Sequence[dict[str, Any]]) -> str:
    """What 1 and 10 % of the labels with this encoder are worth without it; empty if that was not measured."""
    by_series = {key: [row for row in table if row["series"] == key] for key in TITLES}
    reference = SCRATCH if by_series[SCRATCH] else UNTRAINED
    if not by_series[LINEAR] or not by_series[reference]:
        return ""
    labels, means = zip(*((row["labels"], row["mean"]) for row in by_series[reference]), strict=True)
    with_reference = "from scratch" if reference == SCRATCH else "with the untrained encoder (linear)"
    parts = []
    for row in by_series[LINEAR]:
        if row["fraction"] in (0.01, 0.1):
            needed = labels_needed(labels, means, row["mean"])
            number = (
                f"more than all {labels[-1]:,}" if needed == math.inf
                else f"fewer than {labels[0]:,}" if needed == 0
                else f"about {_round(needed):,}"
            )  # fmt: skip
            parts.append(f"{row['labels']:,} labels with this encoder (linear) are worth {number} {with_reference}")
    return "; ".join(parts) + "."


def _round(number: float) -> int:
    """To two digits, as many as an interpolation can bear: 1,234 -> 1,200."""
    return int(float(f"{number:.2g}"))

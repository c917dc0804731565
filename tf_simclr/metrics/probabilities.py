"""Metrics of the probabilities that a classifier gives to the classes of test examples, with intervals."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from tf_simclr.metrics.classification import rank_of_label
from tf_simclr.metrics.intervals import bootstrap
from tf_simclr.metrics.precision import MeanAveragePrecision

# Bins of confidence in the expected calibration error; Guo et al. use 15.
CALIBRATION_BINS = 15


class Answers(NamedTuple):
    """What probabilities say about test examples with one label each.

    Attributes:
      predicted: The class of the highest one, int64 [M]; ties go to the lower class.
      confidence: The highest one, float [M].
      rank: How many classes come before the label, int64 [M].
    """

    predicted: np.ndarray
    confidence: np.ndarray
    rank: np.ndarray


def compare(probabilities: np.ndarray, labels: np.ndarray) -> Answers:
    """Compares probabilities, float [M, C], with labels, integers [M] in [0, C)."""
    predicted, confidence = np.argmax(probabilities, axis=1), np.max(probabilities, axis=1)
    return Answers(predicted, confidence, rank_of_label(probabilities, labels))


def measure(answers: Answers, labels: np.ndarray, num_classes: int) -> dict[str, float]:
    """Judges answers by every metric that has a meaning for their number of classes.

    All but the mean confidence have a bootstrap interval over the test examples, beside them under `<name>_low` and
    `<name>_high`:

    * `top_1_accuracy`: the share of the examples whose label has the highest probability; ties go to the lower class.
    * `top_5_accuracy`: the share whose label is among the five highest; only for more than five classes.
    * `mean_per_class_accuracy`: the mean of the classes' top-1 accuracies, over the classes among the labels.
    * `expected_calibration_error`: the mean distance between confidence and accuracy over 15 bins of equal width,
      weighted by their examples (Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3).
    * `mean_confidence`: the mean probability of the predicted class; about the accuracy if that is calibrated.

    Args:
      answers: To M examples.
      labels: Integers [M] in [0, C).
      num_classes: C.

    Returns:
      The metrics and the ends of their intervals, all in [0, 1].
    """
    predicted, confidence, rank = answers
    count = len(labels)
    hits = (predicted == labels).astype(np.float64)
    names = ["top_1_accuracy"]
    columns = [hits]
    if num_classes > 5:
        names.append("top_5_accuracy")
        columns.append((rank < 5).astype(np.float64))
    means = np.stack(columns, axis=1)
    by_class = _indicators(labels, num_classes)
    hits_by_class = by_class.multiply(hits[:, None]).tocsr()
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = _indicators(bins, CALIBRATION_BINS).multiply((confidence - hits)[:, None]).tocsr()

    def metrics(counts: np.ndarray) -> np.ndarray:
        """How often examples were drawn, [R, M], to the metrics, [R, K]."""
        drawn, right = counts @ by_class, counts @ hits_by_class
        of_classes = np.divide(right, drawn, out=np.zeros_like(right), where=drawn > 0)
        mean_per_class = of_classes.sum(axis=1) / np.maximum((drawn > 0).sum(axis=1), 1)
        calibration_error = np.abs(counts @ gaps).sum(axis=1) / count
        return np.concatenate([counts @ means / count, np.stack([mean_per_class, calibration_error], axis=1)], axis=1)

    names += ["mean_per_class_accuracy", "expected_calibration_error"]
    return _with_intervals(names, metrics, count) | {"mean_confidence": float(np.mean(confidence))}


def measure_several(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Judges examples with several labels: `mean_average_precision`, the one of PASCAL VOC 2007, and its interval.

    Args:
      scores: Float [M, C]; see `precision.mean_average_precision`.
      labels: Whether an example has a class, bool [M, C].

    Returns:
      The metric and the ends of its interval, all in [0, 1].
    """
    return _with_intervals(["mean_average_precision"], MeanAveragePrecision(scores, labels), len(labels))


def _with_intervals(
    names: Sequence[str], metrics: Callable[[np.ndarray], np.ndarray], num_examples: int
) -> dict[str, float]:
    """The metrics of all examples by name, and the ends of their intervals; `metrics` is as in `bootstrap`."""
    (values,), intervals = metrics(np.ones([1, num_examples])), bootstrap(metrics, num_examples)
    found: dict[str, float] = {}
    for name, value, (low, high) in zip(names, values.tolist(), intervals, strict=True):
        found |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return found


def _indicators(groups: np.ndarray, num_groups: int) -> sparse.csr_matrix:
    """Whether each example is in each group, float64 [M, G]."""
    rows = np.arange(len(groups))
    return sparse.csr_matrix((np.ones(len(groups)), (rows, groups)), [len(groups), num_groups])

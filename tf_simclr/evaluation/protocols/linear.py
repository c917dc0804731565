"""Linear evaluation: a linear classifier on frozen representations.

Source: Chen et al. (2020), appendix B.8, and Kornblith et al., "Do Better ImageNet Models Transfer Better?"
(2019): logistic regression by L-BFGS, its L2 penalty chosen on a part of the training set.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from absl import logging
from scipy.special import expit, softmax
from tqdm import tqdm

from tf_simclr.evaluation.features import Features
from tf_simclr.evaluation.probe import LinearProbe
from tf_simclr.evaluation.regression import Objective, Regression, fit_path
from tf_simclr.evaluation.scores import Scores
from tf_simclr.metrics.classification import calibrate
from tf_simclr.metrics.precision import mean_average_precision

HELD_OUT_FRACTION = 0.1
# One part decides if a tenth is this many examples; otherwise, parts are held out in turn until they are as many.
_ENOUGH_HELD_OUT = 1000

# Fits that could take longer are announced.
_ANNOUNCE_SECONDS = 30.0
# An easy fit converges after so many evaluations of the objective; a hard one goes on to the last iteration.
_FEW_EVALUATIONS = 20
# Held-out features that are read at a time.
_BLOCK_ELEMENTS = 1 << 22


@dataclasses.dataclass(frozen=True)
class Linear:
    """Judges representations by a linear classifier; see `fit_linear`.

    Attributes:
      seed: Decides which training images are held out to choose the regularisation.
      regularization_grid: Candidates for C, the inverse strength of the L2 penalty, in increasing order.
      max_iterations: Most iterations of L-BFGS for each candidate.
    """

    seed: int = 0
    # On standardised features, the best is seldom at either end.
    regularization_grid: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    max_iterations: int = 200

    name: ClassVar[str] = "linear"
    title: ClassVar[str] = "linear"

    def __call__(self, train: Features, test: np.ndarray) -> Scores:
        """The probabilities of the classifier, and how its penalty was chosen.

        They are calibrated, but for images with several labels.

        Raises:
          ValueError: If the training labels do not suffice to choose the regularisation.
        """
        probe, chosen = fit_linear(
            train.representations,
            train.labels,
            num_classes=train.num_classes,
            seed=self.seed,
            grid=self.regularization_grid,
            max_iterations=self.max_iterations,
            is_validation=train.is_validation,
        )
        parts = _held_out_masks(train.labels, self.seed, train.is_validation)
        settings = {
            "regularization_candidates": len(self.regularization_grid),
            "regularization_least_c": self.regularization_grid[0],
            "regularization_most_c": self.regularization_grid[-1],
            "held_out_fraction": HELD_OUT_FRACTION if train.is_validation is None else float(np.mean(parts[0])),
            "held_out_parts": len(parts),
            "max_iterations": self.max_iterations,
            "seed": self.seed,
        }

        def probabilities(rows: slice) -> np.ndarray:
            logits = probe.scores(test[rows]).astype(np.float64) / probe.temperature
            return expit(logits) if train.is_multi_label else softmax(logits, axis=1)

        return Scores(probabilities, (len(test), train.num_classes), settings, chosen, probe)


@dataclasses.dataclass(frozen=True)
class Linear45(Linear):
    """The same with the grid of the papers: 45 penalties l2, logarithmically spaced from 1e5 down to 1e-6.

    The papers do not say what the penalty is a factor of. In the code that an author published later (google-research,
    linear_eval, 2021), it is that of |w|^2 beside the summed loss, so C = 1 / (2 l2), from 5e-6 to 5e5. There, the
    features are not standardised; where all of them have the deviation s, an l2 there is l2 / s^2 here.
    """

    regularization_grid: tuple[float, ...] = tuple((0.5 / np.logspace(5, -6, 45)).tolist())

    name: ClassVar[str] = "linear_45"
    title: ClassVar[str] = "linear (45 penalties)"


def fit_linear(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    seed: int,
    grid: Sequence[float],
    max_iterations: int,
    is_validation: np.ndarray | None = None,
) -> tuple[LinearProbe, dict[str, Any]]:
    """Fits a multinomial logistic regression and chooses its regularisation on held-out examples.

    Holds out a tenth of every class. On the rest, weakens the penalty step by step, starting each fit where the last
    one ended. A temperature calibrates the held-out logits of every penalty. The penalty of the best held-out accuracy
    wins; of equal ones, that of the least log-loss after calibration. A small part cannot tell accuracies apart: if it
    holds fewer than 1,000 examples, further parts are held out in turn, up to all ten, until they hold as many
    together, and the least log-loss over all of them wins. Then fits all examples with that penalty. Each fit
    standardises the features by its own examples, and the probe applies the same to its input.

    Examples with several labels get a binary regression for every class, with one penalty for all of them. A tenth of
    the examples is held out, the mean average precision stands for the accuracy, and nothing is calibrated.

    L-BFGS sees all examples in every iteration. They are read in blocks where they are; see `regression.Objective`.

    Args:
      features: float32 [N, F].
      labels: Integers [N] in [0, num_classes), of at least two classes; or bool [N, C].
      num_classes: Number of classes C.
      seed: Decides which examples are held out.
      grid: Candidates for C, the inverse strength of the penalty, in increasing order.
      max_iterations: Most iterations of L-BFGS for each candidate.
      is_validation: Which examples to hold out instead, bool [N]: one part, however small.

    Returns:
      The classifier, for features as they are (not standardised), and what was chosen for it, as JSON: C, whether it is
      an end of the grid, the temperature, and whether the last fit converged.

    Raises:
      ValueError: If the labels name fewer than two classes, or no class has two examples.
    """
    task = _Task(features, labels, num_classes)
    parts = _held_out_masks(labels, seed, is_validation)
    if len(task.known) < 2 or not parts:
        raise ValueError(
            "Linear evaluation needs two classes and, to choose its regularisation, two examples of a class. "
            f"Received: {len(labels)} examples of {len(task.known)} classes"
        )
    best, temperature = _choose(task, parts, grid, max_iterations)
    found = next(fit_path(task.objective(np.arange(len(labels))), [grid[best]], max_iterations))
    chosen = {
        "regularization_c": grid[best],
        "regularization_at_end": best in (0, len(grid) - 1),
        "temperature": temperature,
        "converged": found.is_converged,
    }
    return dataclasses.replace(task.probe(found), temperature=temperature), chosen


def _choose(
    task: "_Task", parts: Sequence[np.ndarray], grid: Sequence[float], max_iterations: int
) -> tuple[int, float]:
    """The place in the grid of the best C by the examples held out in turn, masks [N], and its temperature."""
    objectives = [task.objective(np.flatnonzero(~held_out)) for held_out in parts]
    _announce(objectives, len(grid), max_iterations)
    labels = np.concatenate([task.labels[held_out] for held_out in parts])
    paths = [
        task.logits(np.flatnonzero(held_out), fit_path(objective, grid, max_iterations))
        for objective, held_out in zip(objectives, parts, strict=True)
    ]

    def judge_next() -> _Judged:
        logits = [next(path) for path in paths]
        return _judge(logits[0] if len(parts) == 1 else np.concatenate(logits), labels)

    # Penalty by penalty: the logits of a large part fit in memory once, and not beside the next fit.
    judged = [judge_next() for _ in grid]
    best = min(range(len(grid)), key=lambda i: (-judged[i].accuracy if len(parts) == 1 else 0.0, judged[i].loss))
    return best, judged[best].temperature


def _announce(objectives: Sequence[Objective], num_candidates: int, max_iterations: int) -> None:
    """Logs how long the fits will take, unless that is short."""
    rounds = num_candidates * sum(one.seconds() for one in objectives) + objectives[0].seconds()
    least, most = (rounds * min(count, max_iterations) for count in (_FEW_EVALUATIONS, max_iterations))
    if most > _ANNOUNCE_SECONDS:
        logging.info(
            "Linear evaluation: %d fits of %d examples with %d features will take %s to %s",
            num_candidates * len(objectives) + 1, objectives[0].num_rows, len(objectives[0].mean),
            tqdm.format_interval(least), tqdm.format_interval(most),
        )  # fmt: skip


class _Judged(NamedTuple):
    """The held-out accuracy, or mean average precision, of a candidate; its log-loss at its best temperature."""

    accuracy: float
    loss: float
    temperature: float


def _judge(logits: np.ndarray, labels: np.ndarray) -> _Judged:
    if labels.ndim == 1:
        temperature, loss = calibrate(logits, labels)
        return _Judged(float(np.mean(np.argmax(logits, axis=1) == labels)), loss, temperature)
    known = logits[:, np.isfinite(logits[0])].astype(np.float64)
    losses = np.logaddexp(0, known) - known * labels[:, np.isfinite(logits[0])]
    return _Judged(mean_average_precision(logits, labels), float(losses.sum()) / len(labels), 1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class _Task:
    """Examples to fit.

    Attributes:
      features: float32 [N, F].
      labels: Integers [N] in [0, num_classes), or bool [N, C].
      num_classes: C.
    """

    features: np.ndarray
    labels: np.ndarray
    num_classes: int

    @property
    def is_multi_label(self) -> bool:
        return self.labels.ndim == 2

    @functools.cached_property
    def known(self) -> np.ndarray:
        """The classes that have an example."""
        return np.flatnonzero(self.labels.any(axis=0)) if self.is_multi_label else np.unique(self.labels)

    @functools.cached_property
    def _targets(self) -> np.ndarray:
        if self.is_multi_label:
            return self.labels[:, self.known]
        if len(self.known) == 2:  # One weight for each feature, as in scikit-learn.
            return (self.labels == self.known[1])[:, None]
        return np.searchsorted(self.known, self.labels)

    def objective(self, rows: np.ndarray) -> Objective:
        """That of fitting the examples at `rows`."""
        targets = self._targets
        return Objective(self.features, targets, rows, len(self.known) if targets.ndim == 1 else targets.shape[1])

    def probe(self, found: Regression) -> LinearProbe:
        """Gives every class its column."""
        coefficients, intercept = found.weights, found.bias
        if coefficients.shape[1] < len(self.known):  # The second class's logit against the first's.
            coefficients = np.concatenate([-coefficients, coefficients], axis=1) / 2
            intercept = np.concatenate([-intercept, intercept]) / 2
        weights = np.zeros([len(coefficients), self.num_classes], np.float32)
        bias = np.full([self.num_classes], -np.inf, np.float32)
        weights[:, self.known] = coefficients
        bias[self.known] = intercept
        return LinearProbe(weights, bias, found.regularization_c)

    def logits(self, rows: np.ndarray, path: Iterator[Regression]) -> Iterator[np.ndarray]:
        """The logits of the examples at `rows`, float32 [n, C], by one regression after another."""
        for found in path:
            yield self._logits_of(rows, self.probe(found))

    def _logits_of(self, rows: np.ndarray, probe: LinearProbe) -> np.ndarray:
        step = max(1, _BLOCK_ELEMENTS // self.features.shape[1])
        logits = np.empty([len(rows), self.num_classes], np.float32)
        for start in range(0, len(rows), step):
            logits[start : start + step] = probe.scores(self.features[rows[start : start + step]])
        return logits


def _held_out_masks(labels: np.ndarray, seed: int, is_validation: np.ndarray | None = None) -> list[np.ndarray]:
    """Disjoint parts of the examples, a tenth of every class each: as many as it takes to hold out enough of them.

    A class has one example in a part at least, until it has no more; the only example of a class is never held out.
    Examples with several labels count as one class. A part that is given is the only one.
    """
    if is_validation is not None:
        return [is_validation]
    labels = labels if labels.ndim == 1 else np.zeros(len(labels), np.int64)
    generator = np.random.default_rng(seed)
    classes = [generator.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    sizes = [max(1, round(HELD_OUT_FRACTION * len(members))) for members in classes]
    masks = []
    for part in range(min(10, math.ceil(_ENOUGH_HELD_OUT / (HELD_OUT_FRACTION * len(labels))))):
        held_out = np.zeros(len(labels), bool)
        for members, size in zip(classes, sizes, strict=True):
            if len(members) > 1:
                held_out[members[part * size : (part + 1) * size]] = True
        if held_out.any():
            masks.append(held_out)
    return masks

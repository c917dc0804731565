"""Linear evaluation: a linear classifier on frozen representations.

Source: Chen et al. (2020), appendix B.8, and Kornblith et al., "Do Better ImageNet Models Transfer Better?"
(2019): logistic regression by L-BFGS, its L2 penalty chosen on a part of the training set.
"""

import dataclasses
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from absl import logging
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from tf_simclr.evaluation.features import Features
from tf_simclr.evaluation.probe import LinearProbe
from tf_simclr.evaluation.scores import Scores
from tf_simclr.metrics.classification import calibrate, top_k_accuracy

_HELD_OUT_FRACTION = 0.1
# One part decides if a tenth is this many examples; otherwise, parts are held out in turn until they are as many.
_ENOUGH_HELD_OUT = 1000


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
    max_iterations: int = 100

    name: ClassVar[str] = "linear"
    title: ClassVar[str] = "linear"

    def __call__(self, train: Features, test: np.ndarray) -> Scores:
        """The calibrated probabilities of the classifier, and how its penalty was chosen.

        Raises:
          ValueError: If the training labels do not suffice to choose the regularisation.
        """
        probe = fit_linear(
            train.representations,
            train.labels,
            num_classes=train.num_classes,
            seed=self.seed,
            grid=self.regularization_grid,
            max_iterations=self.max_iterations,
            is_validation=train.is_validation,
        )
        chosen = {"regularization_c": probe.regularization_c, "temperature": probe.temperature}
        parts = _held_out_masks(train.labels, self.seed, train.is_validation)
        settings = {
            "regularization_candidates": len(self.regularization_grid),
            "held_out_fraction": _HELD_OUT_FRACTION if train.is_validation is None else float(np.mean(parts[0])),
            "held_out_parts": len(parts),
            "max_iterations": self.max_iterations,
            "seed": self.seed,
        }
        logits = probe.scores(test).astype(np.float64) / probe.temperature
        return Scores(softmax(logits, axis=1), settings, chosen, probe)


# The matrix products are thin and memory-bound: BLAS threads speed them up little, and slow them down tenfold if other
# work keeps the cores busy.
@threadpool_limits.wrap(limits=1, user_api="blas")
def fit_linear(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    seed: int,
    grid: Sequence[float],
    max_iterations: int,
    is_validation: np.ndarray | None = None,
) -> LinearProbe:
    """Fits a multinomial logistic regression and chooses its regularisation on held-out examples.

    Holds out a tenth of every class. On the rest, weakens the penalty step by step, starting each fit where the last
    one ended. A temperature calibrates the held-out logits of every penalty. The penalty of the best held-out accuracy
    wins; of equal ones, that of the least log-loss after calibration. A small part cannot tell accuracies apart: if it
    holds fewer than 1,000 examples, further parts are held out in turn, up to all ten, until they hold as many
    together, and the least log-loss over all of them wins. Then fits all examples with that penalty. Each fit
    standardises the features by its own examples, and the probe applies the same to its input.

    L-BFGS sees all examples in every iteration, which suits up to about 100,000 of them.

    Args:
      features: float32 [N, F].
      labels: Integers [N] in [0, num_classes), of at least two classes.
      num_classes: Number of classes C.
      seed: Decides which examples are held out.
      grid: Candidates for C, the inverse strength of the penalty, in increasing order.
      max_iterations: Most iterations of L-BFGS for each candidate.
      is_validation: Which examples to hold out instead, bool [N]: one part, however small.

    Returns:
      The classifier, for features as they are (not standardised).

    Raises:
      ValueError: If the labels name fewer than two classes, or no class has two examples.
    """
    parts = _held_out_masks(labels, seed, is_validation)
    if len(np.unique(labels)) < 2 or not parts:
        raise ValueError(
            "Linear evaluation needs two classes and, to choose its regularisation, two examples of a class. "
            f"Received: {len(labels)} examples of {len(np.unique(labels))} classes"
        )
    paths = [
        [
            probe.scores(features[held_out])
            for probe in _fit_path(features[~held_out], labels[~held_out], num_classes, grid, max_iterations)
        ]
        for held_out in parts
    ]
    held_out_labels = np.concatenate([labels[held_out] for held_out in parts])
    candidates = [np.concatenate(logits) for logits in zip(*paths, strict=True)]
    accuracies = [top_k_accuracy(logits, held_out_labels) for logits in candidates]
    temperatures, losses = zip(*(calibrate(logits, held_out_labels) for logits in candidates), strict=True)
    best = min(range(len(grid)), key=lambda i: (-accuracies[i] if len(parts) == 1 else 0.0, losses[i]))
    logging.info(
        "Linear evaluation: C=%g, with accuracy %.4f and log-loss %.4f on %d held-out images",
        grid[best], accuracies[best], losses[best], len(held_out_labels),
    )  # fmt: skip
    probe = next(_fit_path(features, labels, num_classes, [grid[best]], max_iterations))
    return dataclasses.replace(probe, temperature=temperatures[best])


def _held_out_masks(labels: np.ndarray, seed: int, is_validation: np.ndarray | None = None) -> list[np.ndarray]:
    """Disjoint parts of the examples, a tenth of every class each: as many as it takes to hold out enough of them.

    A class has one example in a part at least, until it has no more; the only example of a class is never held out.
    A part that is given is the only one.
    """
    if is_validation is not None:
        return [is_validation]
    generator = np.random.default_rng(seed)
    classes = [generator.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    sizes = [max(1, round(_HELD_OUT_FRACTION * len(members))) for members in classes]
    masks = []
    for part in range(min(10, math.ceil(_ENOUGH_HELD_OUT / (_HELD_OUT_FRACTION * len(labels))))):
        held_out = np.zeros(len(labels), bool)
        for members, size in zip(classes, sizes, strict=True):
            if len(members) > 1:
                held_out[members[part * size : (part + 1) * size]] = True
        if held_out.any():
            masks.append(held_out)
    return masks


def _fit_path(
    features: np.ndarray, labels: np.ndarray, num_classes: int, grid: Sequence[float], max_iterations: int
) -> Iterator[LinearProbe]:
    """Fits one probe after another for the values of C in `grid`, each starting from the one before."""
    scaler = StandardScaler()
    standardized = scaler.fit_transform(features)
    classifier = LogisticRegression(max_iter=max_iterations, warm_start=True)
    for regularization_c in grid:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            classifier.set_params(C=regularization_c).fit(standardized, labels)
        if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
            logging.debug("L-BFGS stopped before it converged, at C=%g", regularization_c)
        yield _to_probe(classifier, scaler, num_classes)


def _to_probe(classifier: LogisticRegression, scaler: StandardScaler, num_classes: int) -> LinearProbe:
    """Folds the standardisation into the weights and gives every class its column."""
    coefficients, intercept = classifier.coef_.T, classifier.intercept_
    if len(classifier.classes_) == 2:  # scikit-learn keeps the second class's logit against the first's.
        coefficients = np.concatenate([-coefficients, coefficients], axis=1) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    coefficients = coefficients / scaler.scale_[:, None]
    weights = np.zeros([len(coefficients), num_classes], np.float32)
    bias = np.full([num_classes], -np.inf, np.float32)
    weights[:, classifier.classes_] = coefficients
    bias[classifier.classes_] = intercept - scaler.mean_ @ coefficients
    return LinearProbe(weights, bias, float(classifier.C))

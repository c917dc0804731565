"""Linear evaluation: a linear classifier on frozen representations.

Source: Chen et al. (2020), appendix B.8, and Kornblith et al., "Do Better ImageNet Models Transfer Better?"
(2019): logistic regression by L-BFGS, its L2 penalty chosen on a part of the training set.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from absl import logging
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from tf_simclr.evaluation.features import Features
from tf_simclr.evaluation.scores import Scores
from tf_simclr.metrics.classification import top_k_accuracy

_HELD_OUT_FRACTION = 0.1


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

    def __call__(self, train: Features, test: Features) -> Scores:
        """Scores with the metrics `top_1_accuracy` and, for more than 5 classes, `top_5_accuracy`, and the settings.

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
        )
        logits = probe.scores(test.representations)
        metrics = {"top_1_accuracy": top_k_accuracy(logits, test.labels)}
        if train.num_classes > 5:
            metrics["top_5_accuracy"] = top_k_accuracy(logits, test.labels, 5)
        metrics |= {
            "regularization_c": probe.regularization_c,
            "regularization_candidates": len(self.regularization_grid),
            "held_out_fraction": _HELD_OUT_FRACTION,
            "max_iterations": self.max_iterations,
            "seed": self.seed,
        }
        return Scores(metrics, np.argmax(logits, axis=1))


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of representations.

    Attributes:
      weights: float32 [F, C].
      bias: float32 [C]; minus infinity for a class without a training example.
      regularization_c: Inverse strength of the L2 penalty: |w|^2 / 2 is added to C times the summed loss.
    """

    weights: np.ndarray
    bias: np.ndarray
    regularization_c: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Class logits, float32 [M, C], of features, float32 [M, F]."""
        return features @ self.weights + self.bias


def fit_linear(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    seed: int,
    grid: Sequence[float],
    max_iterations: int,
) -> LinearProbe:
    """Fits a multinomial logistic regression and chooses its regularisation on a held-out part of the examples.

    Holds out a tenth of every class. On the rest, weakens the penalty step by step, starting each fit where the last
    one ended. Then fits all examples with the penalty of the best held-out accuracy, the stronger one if two are equal.
    Each fit standardises the features by its own examples, and the probe applies the same to its input.

    L-BFGS sees all examples in every iteration, which suits up to about 100,000 of them.

    Args:
      features: float32 [N, F].
      labels: Integers [N] in [0, num_classes), of at least two classes.
      num_classes: Number of classes C.
      seed: Decides which examples are held out.
      grid: Candidates for C, the inverse strength of the penalty, in increasing order.
      max_iterations: Most iterations of L-BFGS for each candidate.

    Returns:
      The classifier, for features as they are (not standardised).

    Raises:
      ValueError: If the labels name fewer than two classes, or no class has two examples.
    """
    held_out = _held_out_mask(labels, seed)
    if len(np.unique(labels)) < 2 or not held_out.any():
        raise ValueError(
            "Linear evaluation needs two classes and, to choose its regularisation, two examples of a class. "
            f"Received: {len(labels)} examples of {len(np.unique(labels))} classes"
        )
    best_c, best_accuracy = 0.0, -1.0
    for probe in _fit_path(features[~held_out], labels[~held_out], num_classes, grid, max_iterations):
        accuracy = top_k_accuracy(probe.scores(features[held_out]), labels[held_out])
        if accuracy > best_accuracy:
            best_c, best_accuracy = probe.regularization_c, accuracy
    logging.info("Linear evaluation: C=%g has the best held-out accuracy, %.4f", best_c, best_accuracy)
    return next(_fit_path(features, labels, num_classes, [best_c], max_iterations))


def _held_out_mask(labels: np.ndarray, seed: int) -> np.ndarray:
    """Marks a tenth of every class: one example at least, but never the only one."""
    generator = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        if len(members) > 1:
            held_out[members[: max(1, round(_HELD_OUT_FRACTION * len(members)))]] = True
    return held_out


def _fit_path(
    features: np.ndarray, labels: np.ndarray, num_classes: int, grid: Sequence[float], max_iterations: int
) -> Iterator[LinearProbe]:
    """Fits one probe after another for the values of C in `grid`, each starting from the one before."""
    scaler = StandardScaler()
    standardized = scaler.fit_transform(features)
    classifier = LogisticRegression(max_iter=max_iterations, warm_start=True)
    for regularization_c in grid:
        # The matrix products are thin and memory-bound: BLAS threads speed them up little, and slow them down
        # tenfold if other work keeps the cores busy.
        with threadpool_limits(1, user_api="blas"), warnings.catch_warnings(record=True) as caught:
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

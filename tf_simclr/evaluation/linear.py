"""Linear evaluation: a linear classifier on frozen representations.

Source: Chen et al. (2020), appendix B.8, and Kornblith et al., "Do Better ImageNet Models Transfer Better?"
(2019): logistic regression by L-BFGS, its L2 penalty chosen on a part of the training set.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from absl import logging
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from tf_simclr.evaluation.knn import top_k_accuracy

# From strong to weak regularisation; on standardised features the best is seldom at an end.
_REGULARIZATION_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_HELD_OUT_FRACTION = 0.1
_MAX_ITERATIONS = 100


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of representations.

    Attributes:
      weights: float32 [F, C].
      bias: float32 [C]; minus infinity for a class without a training example.
      regularization_c: Inverse strength of the L2 penalty: it is |w|^2 / 2 beside C times the summed loss.
    """

    weights: np.ndarray
    bias: np.ndarray
    regularization_c: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Class logits, float32 [M, C], of features, float32 [M, F]."""
        return features @ self.weights + self.bias


def fit_linear(features: np.ndarray, labels: np.ndarray, *, num_classes: int, seed: int = 0) -> LinearProbe:
    """Fits a multinomial logistic regression, its regularisation chosen on a held-out part of the examples.

    A tenth of every class is held out. On the rest, the penalty is weakened from C = 1e-4 to C = 1 in steps of
    ten, each fit from where the last one ended. All examples are then fitted with the penalty of the best
    held-out accuracy, the stronger one of equals. Features are standardised by the examples fitted, and the
    probe does the same to those it is given.

    L-BFGS sees all examples in every iteration, which suits up to some 100,000 of them.

    Args:
      features: float32 [N, F].
      labels: Integers [N] in [0, num_classes), of at least two classes.
      num_classes: Number of classes C.
      seed: Decides which examples are held out.

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
    for probe in _fit_path(features[~held_out], labels[~held_out], num_classes, _REGULARIZATION_GRID):
        accuracy = top_k_accuracy(probe.scores(features[held_out]), labels[held_out])
        if accuracy > best_accuracy:
            best_c, best_accuracy = probe.regularization_c, accuracy
    logging.info("Linear evaluation: C=%g has the best held-out accuracy, %.4f", best_c, best_accuracy)
    return next(_fit_path(features, labels, num_classes, [best_c]))


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
    features: np.ndarray, labels: np.ndarray, num_classes: int, grid: Sequence[float]
) -> Iterator[LinearProbe]:
    """Fits one probe after another for the values of C in `grid`, each starting from the one before."""
    scaler = StandardScaler()
    standardized = scaler.fit_transform(features)
    classifier = LogisticRegression(max_iter=_MAX_ITERATIONS, warm_start=True)
    for regularization_c in grid:
        # The matrix products are thin and bound by memory: BLAS threads gain little on them, and slow them
        # down tenfold where other work keeps the cores busy.
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

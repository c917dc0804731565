"""Logistic regression by L-BFGS that reads its features in blocks of rows and never copies all of them.

The objective and the start are those of scikit-learn's `LogisticRegression` on features that `StandardScaler` has
standardised. scikit-learn holds the features two or three times, and wants those that are held out copied once more;
this reads them where they are, which may be a memory map. It also takes a few iterations where scikit-learn takes
hundreds: raw pixels and representations are correlated, which slows L-BFGS down, and coordinates in which the objective
curves alike in all directions (see `Objective.curvature`) are not.
"""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

# Features of a block: 4 MiB of float32, which stay in the cache of a core with what is computed from them.
_BLOCK_ELEMENTS = 1 << 20
# Features that are kept standardised (256 MiB of float32) rather than standardised again in every evaluation.
_KEPT_ELEMENTS = 1 << 26
# Shares of the rows, which as many threads sum as there are cores. Their number does not depend on the machine, so that
# sums are rounded alike everywhere. BLAS' own threads wait for each other in every product, and are ten times as slow
# if other work keeps the cores busy.
_SHARES = 16
# Copies of its parameters that a fit holds, in float64: ten past steps and gradients of L-BFGS, those of the line
# search, and the sums of each thread. Of 20,000 classes, two threads held 23 in all.
_HELD, _HELD_BY_A_THREAD = 24, 2
# Features that are not worth more than one share.
_FEW_ELEMENTS = 1 << 22
# Of the gradient in those coordinates. float32 products allow no smaller one: line searches would fail on rounding.
_GRADIENT_TOLERANCE = 1e-4
_LINE_SEARCH_STEPS = 50
# With more features than that, the products of every two of them would take more memory than they save time.
_MOST_FEATURES = 4096

# Rows that tell how long an evaluation takes.
_SAMPLE_ROWS = 1 << 14


@dataclasses.dataclass(frozen=True, eq=False)
class Regression:
    """A fitted regression, for features as they are (not standardised).

    Attributes:
      weights: float64 [F, K]; K is 1 for two classes.
      bias: float64 [K].
      regularization_c: Inverse strength of the penalty.
      is_converged: Whether the fit ended before its last iteration.
    """

    weights: np.ndarray
    bias: np.ndarray
    regularization_c: float
    is_converged: bool


class Objective:
    """The mean loss over some rows of features, and the penalty on the weights of standardised features.

        mean_i loss(W h~_i + b, y_i) + |W|^2 / (2 C n),  h~ = (h - mean) / deviation

    The mean and the deviation are those of the rows; a feature that is constant there is divided by 1. Products are
    float32, as scikit-learn's are; their sums over blocks are float64.

    Args:
      features: float32 [N, F].
      targets: Classes in [0, K), integers [N], of softmax cross entropy; or bool [N, K], of the sum of K sigmoid cross
        entropies.
      rows: Which rows to fit, integers [n], in increasing order.
      num_outputs: K.
    """

    def __init__(self, features: np.ndarray, targets: np.ndarray, rows: np.ndarray, num_outputs: int):
        self._features, self._rows, self.num_outputs = features, rows, num_outputs
        self._block = max(1, _BLOCK_ELEMENTS // max(features.shape[1], num_outputs))
        self._targets = targets[rows]
        self.mean, self.deviation = self._moments()
        self._kept: np.ndarray | None = None
        if len(rows) * features.shape[1] <= _KEPT_ELEMENTS:
            self._kept = np.concatenate([block for _, block in self._blocks(0, len(rows))])

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    def __call__(self, flat: np.ndarray, regularization_c: float) -> tuple[float, np.ndarray]:
        """The objective and its gradient.

        Args:
          flat: The parameters, float64 [K * (F + 1)]: for each output the weights, then the bias.
          regularization_c: C.
        """
        parameters = flat.reshape(self.num_outputs, -1)
        penalized = parameters[:, :-1]
        loss, gradient = self._sums(parameters, len(self._rows))
        strength = 1 / (regularization_c * len(self._rows))
        gradient /= len(self._rows)
        gradient[:, :-1] += strength * penalized
        return loss / len(self._rows) + 0.5 * strength * float(np.vdot(penalized, penalized)), gradient.ravel()

    def curvature(self, regularization_c: float) -> np.ndarray | None:
        """About the second derivative by the weights of one output, float64 [F, F]; None if it would cost too much.

        It is that of the start, where all outputs are zero: the moments of the features times the variance of a
        prediction, and the penalty's. The derivatives by the weights of two outputs are left out.
        """
        if not len(self.mean) < min(len(self._rows), _MOST_FEATURES):
            return None
        share = 0.5 if self._targets.ndim == 2 else 1 / self.num_outputs
        found = share * (1 - share) * self._second_moments.astype(np.float64)
        # At least as much as rounding leaves of moments that are zero: correlated features have some.
        rounding = share * (1 - share) * len(found) * np.finfo(np.float32).eps
        found.flat[:: len(found) + 1] += 1 / (regularization_c * len(self._rows)) + rounding
        return found

    @functools.cached_property
    def _second_moments(self) -> np.ndarray:
        """The mean product of every two standardised features, float32 [F, F]."""
        found = np.zeros([len(self.mean)] * 2)
        for _, block in self._blocks(0, len(self._rows)):
            found += block.T @ block
        return (found / len(self._rows)).astype(np.float32)

    def seconds(self) -> float:
        """About how long an evaluation takes, measured on some of the rows."""
        count = min(len(self._rows), _SAMPLE_ROWS)
        parameters = np.zeros([self.num_outputs, len(self.mean) + 1])
        with blas_threads(1):
            start = time.perf_counter()
            self._sums(parameters, count)
            return (time.perf_counter() - start) * len(self._rows) / count

    def _sums(self, parameters: np.ndarray, count: int) -> tuple[float, np.ndarray]:
        """The sum of the losses of the first rows, and its gradient, float64 [K, F + 1]."""
        share = functools.partial(self._sums_of, parameters.astype(np.float32))
        if count * len(self.mean) <= _FEW_ELEMENTS:
            return share(0, count)
        ends = np.linspace(0, count, _SHARES + 1).astype(int)
        with futures.ThreadPoolExecutor(_num_threads()) as threads:
            sums = threads.map(share, ends[:-1], ends[1:])
            loss, gradient = next(sums)
            for more, added in sums:  # In their order, and one after the other: all at once would be 16 gradients.
                loss += more
                gradient += added
        return loss, gradient

    def _sums_of(self, parameters: np.ndarray, start: int, stop: int) -> tuple[float, np.ndarray]:
        """The same of the rows from `start` to `stop` - 1, with float32 parameters."""
        weights, bias = np.ascontiguousarray(parameters[:, :-1]), parameters[:, -1:]
        differentiate = _sigmoid if self._targets.ndim == 2 else _softmax
        loss, gradient = 0.0, np.zeros(parameters.shape)
        for rows, block in self._blocks(start, stop):
            # By rows: sums over few classes are then sums of long vectors. The product is faster the other way round.
            outputs = np.ascontiguousarray((block @ weights.T).T) + bias
            loss += differentiate(outputs, self._targets[rows])
            gradient[:, :-1] += outputs @ block
            gradient[:, -1] += outputs.sum(axis=1)
        return loss, gradient

    def _blocks(self, first: int, stop: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Standardised features in blocks, with the places of their rows among those that are fitted."""
        mean, deviation = self.mean.astype(np.float32), self.deviation.astype(np.float32)
        for start in range(first, stop, self._block):
            rows = slice(start, min(start + self._block, stop))
            if self._kept is not None:
                yield rows, self._kept[rows]
            else:
                block = self._features[self._rows[rows]]
                block -= mean
                block /= deviation
                yield rows, block

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of the rows, float64 [F]."""
        count, starts = len(self._rows), range(0, len(self._rows), self._block)
        blocks = [self._rows[start : start + self._block] for start in starts]
        mean = sum(self._features[rows].sum(axis=0, dtype=np.float64) for rows in blocks) / count
        variance = sum(np.square(self._features[rows] - mean).sum(axis=0) for rows in blocks) / count
        # What is left of a constant after rounding is not worth magnifying (scikit-learn's bound).
        epsilon = np.finfo(np.float64).eps
        is_constant = variance <= count * epsilon * variance + (count * mean * epsilon) ** 2
        return mean, np.where(is_constant, 1.0, np.sqrt(variance))


def bytes_of_fit(num_features: int, num_outputs: int) -> int:
    """About how much memory a fit takes, beside the features."""
    return 8 * (_HELD + _HELD_BY_A_THREAD * _num_threads()) * num_outputs * (num_features + 1)


def _num_threads() -> int:
    return min(os.cpu_count() or 1, _SHARES)


def blas_threads(limit: int | None) -> contextlib.AbstractContextManager[Any]:
    """A context in which BLAS takes at most so many threads, or all."""
    return _blas().limit(limits=limit)


@functools.cache
def _blas() -> ThreadpoolController:
    """The BLAS libraries of the process; to find them takes as long as a small fit."""
    return ThreadpoolController().select(user_api="blas")


def _softmax(outputs: np.ndarray, labels: np.ndarray) -> float:
    """The summed cross entropy of logits [K, n], which become its derivative."""
    columns = np.arange(len(labels))
    outputs -= outputs.max(axis=0)
    of_labels = outputs[labels, columns].sum(dtype=np.float64)
    np.exp(outputs, out=outputs)
    sums = outputs.sum(axis=0)
    outputs /= sums
    outputs[labels, columns] -= 1
    return float(np.log(sums).sum(dtype=np.float64) - of_labels)


def _sigmoid(outputs: np.ndarray, targets: np.ndarray) -> float:
    """The summed cross entropies of logits [K, n] of targets [n, K]; the logits become its derivative."""
    of_targets = outputs.T[targets].sum(dtype=np.float64)
    loss = np.logaddexp(0, outputs).sum(dtype=np.float64) - of_targets
    np.exp(-np.logaddexp(0, -outputs), out=outputs)
    outputs -= targets.T
    return float(loss)


def fit_path(objective: Objective, grid: Sequence[float], max_iterations: int) -> Iterator[Regression]:
    """Fits one regression after another for the values of C in `grid`, each starting from the one before.

    Args:
      objective: Of the rows to fit.
      grid: The values of C.
      max_iterations: Most iterations of L-BFGS for each value.
    """
    parameters = np.zeros([objective.num_outputs, len(objective.mean) + 1])
    options = {
        "maxiter": max_iterations,
        "maxls": _LINE_SEARCH_STEPS,
        "gtol": _GRADIENT_TOLERANCE,
        "ftol": 64 * np.finfo(float).eps,
    }
    for regularization_c in grid:
        with blas_threads(1):
            inside = _Inside(objective, regularization_c)
            start = inside.of_weights(parameters)
            found = minimize(inside, start.ravel(), jac=True, method="L-BFGS-B", options=options)
            parameters, is_converged = inside.to_weights(found.x), found.nit < max_iterations
            del found  # It has the past gradients, which nobody needs while this waits for the next value.
        weights = parameters[:, :-1].T / objective.deviation[:, None]
        bias = parameters[:, -1] - objective.mean @ weights
        yield Regression(weights, bias, regularization_c, is_converged)


class _Inside:
    """An objective in the coordinates v = L^T w of the weights w of an output, with its curvature L L^T.

    There, a second derivative of L L^T is 1 in all directions. Biases stay as they are, and so do the weights where the
    curvature would cost too much.
    """

    def __init__(self, objective: Objective, regularization_c: float):
        self._objective, self._regularization_c = objective, regularization_c
        curvature = objective.curvature(regularization_c)
        self._lower = None if curvature is None else cholesky(curvature, True, overwrite_a=True, check_finite=False)

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """The objective and its gradient L^-1 g, g being that by w; both float64 [K * (F + 1)]."""
        value, gradient = self._objective(self.to_weights(flat).ravel(), self._regularization_c)
        return value, self._solve(gradient, "N").ravel()

    def of_weights(self, parameters: np.ndarray) -> np.ndarray:
        """Weights and biases in these coordinates, [K, F + 1]."""
        if self._lower is None:
            return parameters
        return np.concatenate([parameters[:, :-1] @ self._lower, parameters[:, -1:]], axis=1)

    def to_weights(self, flat: np.ndarray) -> np.ndarray:
        """The weights w = L^-T v and the biases, [K, F + 1]."""
        return self._solve(flat, "T")

    def _solve(self, flat: np.ndarray, trans: str) -> np.ndarray:
        rows = flat.reshape(self._objective.num_outputs, -1)
        if self._lower is None:
            return rows
        found = solve_triangular(self._lower, rows[:, :-1].T, trans=trans, lower=True, check_finite=False)
        return np.concatenate([found.T, rows[:, -1:]], axis=1)

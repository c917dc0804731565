"""Average precision of rankings: test examples that may have several classes each."""

import numpy as np

# Recalls at which the precision is read: 0, 0.1, ..., 1.
_POINTS = 11


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean over the classes of the 11-point interpolated average precision, as in PASCAL VOC 2007.

    For each class, the examples are ranked by their score, equal ones in their order. At each of the recalls 0, 0.1,
    ..., 1, the precision is the highest one that the ranking has at this or a higher recall, or 0; their mean is the
    average precision. Classes that no example has are left out.

    >>> scores = np.array([[0.9], [0.8], [0.7], [0.6]])
    >>> round(mean_average_precision(scores, np.array([[True], [False], [True], [False]])), 4)
    0.8485

    Source: Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge" (2010), section 4.2, and its
    development kit of 2007.

    Args:
      scores: Floats [M, C].
      labels: Whether an example has a class, bool [M, C].

    Returns:
      A number in [0, 1]; 0 if there is no class to rank for.
    """
    return float(MeanAveragePrecision(scores, labels)(np.ones([1, len(labels)]))[0, 0])


class MeanAveragePrecision:
    """The same for resamples of the examples, for `intervals.bootstrap`.

    An example that is drawn n times takes n places in the ranking, one after another.

    Args:
      scores: Floats [M, C].
      labels: bool [M, C].
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray):
        self._orders = np.argsort(-scores, axis=0, kind="stable").T
        self._relevant = [np.flatnonzero(labels[order, c]) for c, order in enumerate(self._orders)]

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        """How often each example is drawn, float64 [R, M], to the metric, [R, 1]."""
        total, classes = np.zeros(len(counts)), np.zeros(len(counts))
        for order, relevant in zip(self._orders, self._relevant, strict=True):
            if len(relevant):
                drawn = counts[:, order]
                found = np.cumsum(drawn[:, relevant], axis=1)
                total += _eleven_points(found, np.cumsum(drawn, axis=1)[:, relevant])
                classes += found[:, -1] > 0
        return (total / np.maximum(classes, 1))[:, None]


def _eleven_points(found: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The average precision after each of P relevant examples: how many were found, and seen, [R, P], to [R]."""
    # Between two relevant examples the precision only falls, so that the highest ones are found here.
    precisions = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    highest = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]
    rows = np.arange(len(found))
    points = [
        # In whole numbers: three of ten are a recall of 0.3, whatever a float makes of it.
        highest[rows, np.argmax((_POINTS - 1) * found >= point * found[:, -1:], axis=1)]
        for point in range(_POINTS)
    ]
    return np.sum(points, axis=0) / _POINTS

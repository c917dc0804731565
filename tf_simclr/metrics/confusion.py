"""Which classes are taken for which."""

import numpy as np


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """How often examples of a class, by row, are taken for a class, by column.

    >>> confusion_matrix(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2)
    array([[1, 1],
           [0, 2]])

    Args:
      labels: Integers [M] in [0, num_classes).
      predicted: The same of the predictions.
      num_classes: C.

    Returns:
      int64 [C, C].
    """
    pairs = np.bincount(num_classes * labels + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def most_frequent(matrix: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """The most frequent mistakes: (class, the class it is taken for, how often), the most frequent first.

    Of equal ones, those of the lower classes come first; what never happens is left out.

    >>> most_frequent(np.array([[5, 1, 0], [3, 5, 1], [0, 0, 5]]), 2)
    [(1, 0, 3), (0, 1, 1)]
    """
    mistakes = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(order, matrix.shape)
    return [(int(r), int(c), int(mistakes[r, c])) for r, c in zip(rows, columns, strict=True) if mistakes[r, c]]

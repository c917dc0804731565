"""Which classes are taken for which."""

import numpy as np
from scipy import sparse


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> sparse.csr_array:
    """How often examples of a class, by row, are taken for a class, by column.

    >>> confusion_matrix(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2).toarray()
    array([[1, 1],
           [0, 2]])

    Args:
      labels: Integers [M] in [0, num_classes).
      predicted: The same of the predictions.
      num_classes: C.

    Returns:
      int64 [C, C], sparse: of many classes, most are never taken for most others.
    """
    return sparse.csr_array((np.ones(len(labels), np.int64), (labels, predicted)), (num_classes, num_classes))


def most_frequent(matrix: np.ndarray | sparse.csr_array, count: int) -> list[tuple[int, int, int]]:
    """The most frequent mistakes: (class, the class it is taken for, how often), the most frequent first.

    Of equal ones, those of the lower classes come first; what never happens is left out.

    >>> most_frequent(np.array([[5, 1, 0], [3, 5, 1], [0, 0, 5]]), 2)
    [(1, 0, 3), (0, 1, 1)]
    """
    rows, columns, counts = sparse.find(matrix)
    order = [index for index in np.lexsort((columns, rows, -counts)) if rows[index] != columns[index]]
    return [(int(rows[i]), int(columns[i]), int(counts[i])) for i in order[:count]]

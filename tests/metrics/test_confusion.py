"""The confusion matrix against scikit-learn's."""

import numpy as np
from scipy import sparse
from sklearn import metrics

from tf_simclr.metrics.confusion import confusion_matrix, most_frequent


def test_is_scikit_learns_with_rows_for_classes_that_no_example_has():
    labels, predicted = np.random.default_rng(0).integers(0, 5, [2, 300])
    matrix = confusion_matrix(labels, predicted, 7).toarray()
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(labels, predicted, labels=range(7)))
    assert matrix.dtype == np.int64


def test_the_most_frequent_mistakes_come_first_and_hits_are_none():
    matrix = np.array([[90, 2, 0], [5, 80, 2], [0, 0, 70]])
    assert most_frequent(matrix, 3) == [(1, 0, 5), (0, 1, 2), (1, 2, 2)]
    assert most_frequent(matrix, 1) == [(1, 0, 5)]
    assert most_frequent(sparse.csr_array(matrix), 3) == most_frequent(matrix, 3)
    assert most_frequent(np.diag([3, 4]), 3) == []

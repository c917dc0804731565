"""How good frozen representations are: nearest neighbours and a linear classifier."""

import numpy as np

from tf_simclr.evaluation.features import extract
from tf_simclr.evaluation.knn import NUM_NEIGHBORS, knn_scores, top_k_accuracy
from tf_simclr.evaluation.linear import LinearProbe, fit_linear

__all__ = ["LinearProbe", "evaluate_features", "extract", "fit_linear", "knn_scores", "top_k_accuracy"]


def evaluate_features(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    *,
    num_classes: int,
    seed: int = 0,
) -> dict[str, float]:
    """Judges representations by kNN and by linear evaluation; nothing is chosen by the test examples.

    Args:
      train_features: float32 [N, F].
      train_labels: Integers [N] in [0, num_classes), of at least two classes.
      test_features: float32 [M, F].
      test_labels: Integers [M] in [0, num_classes).
      num_classes: Number of classes.
      seed: Decides which training examples are held out to choose the regularisation.

    Returns:
      `eval/knn_top_1_accuracy`, `eval/knn_k`, `eval/linear_top_1_accuracy`, `eval/linear_regularization_c`
      and, if there are more than 5 classes, `eval/linear_top_5_accuracy`. Accuracies lie in [0, 1].

    Raises:
      ValueError: If a label is out of range or the training labels do not allow linear evaluation.
    """
    for labels in (train_labels, test_labels):
        if len(labels) and (labels.min() < 0 or labels.max() >= num_classes):
            raise ValueError(f"Labels must lie in [0, {num_classes}). Received: {labels.min()} to {labels.max()}")
    knn = knn_scores(train_features, train_labels, test_features, num_classes=num_classes)
    probe = fit_linear(train_features, train_labels, num_classes=num_classes, seed=seed)
    logits = probe.scores(test_features)
    result = {
        "eval/knn_top_1_accuracy": top_k_accuracy(knn, test_labels),
        "eval/knn_k": min(NUM_NEIGHBORS, len(train_features)),
        "eval/linear_top_1_accuracy": top_k_accuracy(logits, test_labels),
        "eval/linear_regularization_c": probe.regularization_c,
    }
    if num_classes > 5:
        result["eval/linear_top_5_accuracy"] = top_k_accuracy(logits, test_labels, 5)
    return result

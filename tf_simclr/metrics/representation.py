"""What the features of views say about an encoder without labels.

Features are those of V views of n images, floats [V, n, D], with V and n at least 2, and are taken in float64.
docs/health.md says what the numbers mean, and which of them predict a good representation.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

# Equal bins of the similarities, over [-1, 1].
NUM_BINS = 40
BIN_CENTERS = (np.arange(NUM_BINS) + 0.5) * 2 / NUM_BINS - 1

# A dimension whose standard deviation is below this share of the features' root mean square is dead.
_DEAD_SHARE = 0.01


class Similarities(NamedTuple):
    """The cosine similarities of the features of V views of n images.

    Attributes:
      all: float64 [V n, V n], view after view.
      image: int64 [V n], the image that a row shows.
      positive: Of every two views of an image, float64 [n V (V - 1) / 2].
      negative: Of every two views of different images, float64 [V^2 n (n - 1) / 2].
    """

    all: np.ndarray
    image: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


def compare(features: np.ndarray) -> Similarities:
    """The cosine similarities of all views, floats [V, n, D]."""
    num_views, num_images, dimensions = features.shape
    rows = _unit(features).reshape(-1, dimensions)
    cosines = np.clip(rows @ rows.T, -1.0, 1.0)
    image = np.tile(np.arange(num_images), num_views)
    first, second = np.triu_indices(len(rows), 1)
    is_positive = image[first] == image[second]
    pairs = cosines[first, second]
    return Similarities(cosines, image, pairs[is_positive], pairs[~is_positive])


def alignment(found: Similarities) -> float:
    """Mean squared distance between two views of an image on the unit sphere, from 0 to 4; the less, the closer.

    Source: Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere" (2020), section 4.1, with alpha = 2.
    """
    return float(np.mean(2 - 2 * found.positive))


def uniformity(found: Similarities) -> float:
    """The log of the mean of exp(-2 d^2) over views of different images, d their distance on the unit sphere.

    It is 0 if all features point into one direction; the less, the more evenly they are spread, down to about -4 + 8/D
    for features spread over the whole sphere.

    Source: Wang and Isola (2020), section 4.1, with t = 2.
    """
    return float(np.log(np.mean(np.exp(-2 * (2 - 2 * found.negative)))))


def contrastive_accuracy(found: Similarities, num_negatives: int) -> float:
    """How often a view finds its image among `num_negatives` views of other images, in [0, 1].

    The expectation over random choices of them, with replacement, so that batches of another size can be compared. The
    most similar one of the image's other views must be more similar than all of them.
    """
    is_positive = found.image[:, None] == found.image[None, :]
    others = np.where(is_positive, -np.inf, found.all)
    itself = np.eye(len(found.image), dtype=bool)
    best = np.where(is_positive & ~itself, found.all, -np.inf).max(axis=1, keepdims=True)
    shares = (others >= best).sum(axis=1) / (~is_positive).sum(axis=1)
    return float(np.mean((1 - shares) ** num_negatives))


def rankme(features: np.ndarray) -> float:
    """The exponential of the entropy of the singular values of features [..., D] as shares of their sum: from 1 to D.

    Source: Garrido et al., "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised Representations
    by Their Rank" (2023), equation 1.
    """
    return _entropy_rank(_singular_values(_rows(features)))


def effective_rank(features: np.ndarray) -> float:
    """The effective rank of the covariance of the features [..., D]: about how many directions they vary in, from 1.

    The same as `rankme` of the covariance in place of the features: their mean counts for nothing, and a direction
    counts by its variance. It is 1 if they do not vary at all.

    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (2007), section 2.
    """
    rows = _rows(features)
    return _entropy_rank(_singular_values(rows - rows.mean(axis=0)) ** 2)


def spread(features: np.ndarray) -> float:
    """Mean standard deviation of the dimensions of unit vectors [..., D], times sqrt(D).

    It is 0 if all features point into one direction, and 1 if they point into all directions evenly.

    Source: Chen and He, "Exploring Simple Siamese Representation Learning" (2021), figure 2.
    """
    rows = _rows(_unit(features))
    return float(rows.std(axis=0).mean() * np.sqrt(rows.shape[1]))


def dead_dimensions(features: np.ndarray) -> int:
    """How many dimensions of the features [..., D] are the same for all, to 1 % of the features' root mean square."""
    rows = _rows(features)
    return int(np.sum(rows.std(axis=0) <= _DEAD_SHARE * np.sqrt(np.mean(rows**2))))


def correlation(found: Similarities, others: Similarities) -> float:
    """The rank correlation of two kinds of similarities, over the views of different images; 0 if one is constant."""
    ranks, other_ranks = rankdata(found.negative), rankdata(others.negative)
    if np.ptp(ranks) == 0 or np.ptp(other_ranks) == 0:
        return 0.0
    return float(np.corrcoef(ranks, other_ranks)[0, 1])


def histogram(cosines: np.ndarray) -> list[int]:
    """Counts of similarities in `NUM_BINS` equal bins over [-1, 1]."""
    return np.histogram(cosines, NUM_BINS, (-1, 1))[0].tolist()


def colors(views: np.ndarray) -> np.ndarray:
    """What is left of views [V, n, H, W, 3] if only colour counts: mean and spread of every channel, [V, n, 6].

    Standardised over the views, so that the cosine of two of them tells how much alike their colours are.
    """
    moments = np.concatenate([views.mean(axis=(2, 3)), views.std(axis=(2, 3))], axis=-1, dtype=np.float64)
    moments -= moments.mean(axis=(0, 1))
    deviations = moments.std(axis=(0, 1))
    return moments / np.where(deviations > 0, deviations, 1.0)


def measure(
    representations: np.ndarray,
    projections: np.ndarray,
    of_colors: Similarities,
    global_batch_size: int,
    num_views: int | None = None,
) -> dict[str, Any]:
    """All numbers of a line of health.jsonl that follow from the features of views.

    Args:
      representations: h of V views of n images, floats [V, n, F].
      projections: z of the same views, floats [V, n, D].
      of_colors: `compare(colors(views))`.
      global_batch_size: Images of a training step, whose views are compared.
      num_views: Views of each image among its candidates, by default V.
    """
    num_views = num_views or len(projections)
    num_negatives = num_views * (global_batch_size - 1)
    found = compare(projections)
    values: dict[str, Any] = {"alignment": alignment(found), "uniformity": uniformity(found)}
    for name, features in (("representation", representations), ("projection", projections)):
        values |= {
            f"{name}_effective_rank": effective_rank(features),
            f"{name}_rankme": rankme(features),
            f"{name}_std": spread(features),
            f"{name}_dead_dimensions": dead_dimensions(features),
            f"{name}_dimensions": features.shape[-1],
        }
    return values | {
        "contrastive_top_1_accuracy": contrastive_accuracy(found, num_negatives),
        "contrastive_candidates": num_views * global_batch_size - 1,
        "color_top_1_accuracy": contrastive_accuracy(of_colors, num_negatives),
        "color_correlation": correlation(found, of_colors),
        "positive_similarity": float(found.positive.mean()),
        "negative_similarity": float(found.negative.mean()),
        "positive_similarity_histogram": histogram(found.positive),
        "negative_similarity_histogram": histogram(found.negative),
    }


def _unit(features: np.ndarray) -> np.ndarray:
    """Vectors [..., D] of unit length; a zero stays zero."""
    features = np.asarray(features, np.float64)
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1.0)


def _rows(features: np.ndarray) -> np.ndarray:
    """Features [..., D] as a matrix, float64 [N, D]."""
    return np.asarray(features, np.float64).reshape(-1, features.shape[-1])


def _singular_values(rows: np.ndarray) -> np.ndarray:
    """The singular values of a matrix, by the smaller of its Gram matrices, which is much faster."""
    gram = rows.T @ rows if rows.shape[0] > rows.shape[1] else rows @ rows.T
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0))


def _entropy_rank(values: np.ndarray) -> float:
    """The exponential of the entropy of values >= 0 as shares of their sum; 1 if all are 0."""
    shares = values[values > 0] / values.sum() if values.any() else np.ones(1)
    return float(np.exp(-np.sum(shares * np.log(shares))))

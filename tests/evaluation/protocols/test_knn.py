"""The kNN protocol against a loop over examples."""

import numpy as np
import pytest
from clusters import make_clusters

from tf_simclr.evaluation import KNN, Features
from tf_simclr.evaluation.protocols.knn import nearest_images, votes


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (7, 0.1), (7, 1.0), (1000, 0.1)])
def test_agrees_with_a_loop_over_examples(k, temperature, monkeypatch):
    # Several blocks of unequal length.
    monkeypatch.setattr("tf_simclr.evaluation.protocols.knn._BLOCK_ELEMENTS", 256)
    train = make_clusters(50, 4, 6, noise=1.0, seed=1)
    test = make_clusters(23, 4, 6, noise=1.0, seed=2)
    references = train.representations.astype(np.float64)
    expected = np.zeros([23, 4])
    for row, query in enumerate(test.representations.astype(np.float64)):
        similarities = [query @ other / np.linalg.norm(query) / np.linalg.norm(other) for other in references]
        for neighbor in np.argsort(similarities)[::-1][:k]:
            expected[row, train.labels[neighbor]] += np.exp(similarities[neighbor] / temperature)
    judged = KNN(k, temperature)(train, test.representations)
    np.testing.assert_allclose(judged.probabilities, expected / expected.sum(1, keepdims=True), atol=1e-4)
    assert judged.settings == {"k": min(k, 50), "temperature": temperature}


def test_refuses_what_makes_no_sense():
    features = make_clusters(5, 2, 3, noise=1.0, seed=1)
    with pytest.raises(ValueError, match="k=0"):
        KNN(k=0)(features, features.representations)
    with pytest.raises(ValueError, match="temperature=0"):
        KNN(temperature=0)(features, features.representations)
    several = Features(features.representations, features.labels[:, None] == np.arange(2), 2)
    with pytest.raises(ValueError, match=r"kNN evaluation takes one label for each image.*Received: labels \[5, 2\]"):
        KNN()(several, features.representations)


def test_of_equally_near_images_the_first_count_whatever_the_blocks(monkeypatch):
    features = np.tile(np.eye(2, dtype=np.float32), [20, 1])  # 20 images at each of two places.
    labels = np.arange(40) // 2
    expected = np.zeros([2, 20])
    expected[:, :7] = 1  # The first 7 at the same place.
    for elements in (10, 34, 2**25):
        monkeypatch.setattr("tf_simclr.evaluation.protocols.knn._BLOCK_ELEMENTS", elements)
        similarities, neighbors = nearest_images(features, features[:2], 7)
        scores = votes(similarities, labels[neighbors], num_classes=20, temperature=0.1)
        np.testing.assert_array_equal(scores, expected)

"""Probabilities of many classes, which are held a block of images at a time."""

import numpy as np
import pytest
from clusters import make_clusters

from tf_simclr.evaluation import PROTOCOLS, confusions, scores
from tf_simclr.evaluation.verdict import judge
from tf_simclr.settings import RunConfig


@pytest.mark.parametrize("name", ["knn", "linear", "linear_sgd"])
def test_blocks_of_images_give_the_numbers_of_all_at_once(name, monkeypatch):
    train, test = (make_clusters(count, 6, 8, noise=1.0, seed=count) for count in (120, 50))
    found = PROTOCOLS[name](RunConfig())(train, test.representations)
    whole = judge(found, test.labels)
    monkeypatch.setattr(scores, "_BLOCK_ELEMENTS", 6 * 7)
    assert [block.shape for _, block in found.blocks()] == [(7, 6)] * 7 + [(1, 6)]
    blocks = np.concatenate([block for _, block in found.blocks()])
    np.testing.assert_allclose(blocks, found.probabilities, atol=1e-4)  # Products of other sizes are rounded otherwise.
    by_blocks = judge(found, test.labels)
    assert by_blocks.metrics == pytest.approx(whole.metrics, abs=1e-4) and 0.3 < whole.metrics["top_1_accuracy"] < 1
    np.testing.assert_array_equal(by_blocks.predicted, whole.predicted)
    np.testing.assert_array_equal(found.predicted(), whole.predicted)


def test_of_too_many_classes_there_is_no_matrix_and_an_older_one_goes(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", logger="absl")
    (tmp_path / "features").mkdir()
    labels, predicted = np.array([0, 1, 2, 2]), {"knn": np.array([0, 0, 1, 1])}
    confusions.write(tmp_path, labels, predicted, 3)
    path = tmp_path / "features" / "confusion.npz"
    with np.load(path) as matrices:
        np.testing.assert_array_equal(matrices["knn"], [[1, 0, 0], [1, 0, 0], [0, 2, 0]])
    monkeypatch.setattr(confusions, "MOST_CLASSES", 2)
    confusions.write(tmp_path, labels, predicted, 3)
    assert not path.exists() and "No confusion matrix of 3 classes" in caplog.text
    found = confusions.describe(labels, predicted, 3, None, of=["knn"])
    assert found["most_frequent"][0] == {"label": "2", "predicted": "1", "count": 2}

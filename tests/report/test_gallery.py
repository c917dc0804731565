"""Retrievals and label suspects on a map whose answer is known."""

import dataclasses

import numpy as np
import pytest

from tf_simclr.report.gallery import gallery
from tf_simclr.report.images import ImageMap

NUM = 18


@pytest.fixture
def images():
    """Three groups of six, each nearest to its own; image 0 lies in the group of "b", image 17 between all."""
    groups = np.repeat([0, 1, 2], 6)
    groups[0] = 1
    neighbors = [[other for other in range(NUM) if other != row and groups[other] == groups[row]] for row in range(NUM)]
    neighbors[17] = [1, 6, 12, 2, 7, 13]
    labels = [name for name in "abc" for _ in range(6)]
    distances = [[0.01 * (row + 1)] * len(near) for row, near in enumerate(neighbors)]
    return ImageMap(
        names=[f"{row}.png" for row in range(NUM)], labels=labels, predicted=labels, layouts={},
        clusters=groups, neighbors=neighbors, distances=distances,
        step=1, part="test", total=NUM, sprite=None, size_px=48, columns=45,
    )  # fmt: skip


def test_suspects_are_those_whose_neighbors_agree_on_another_label(images):
    found = gallery(images)
    assert [(one.row, one.label, one.other) for one in found.suspects] == [(0, "a", "b")]
    assert found.num_suspects == 1
    assert found.suspects[0].agreement == 0


def test_the_best_are_one_of_each_class_and_the_worst_no_suspects(images):
    found = gallery(images)
    assert [one.row for one in found.best] == [1, 12, 6]  # image 0 is a neighbour of 6; all of 12 are of "c"
    assert [one.agreement for one in found.best] == [4, 5, 5]
    assert found.worst[0].row == 17 and found.worst[0].agreement == 2
    assert 0 not in [one.row for one in found.worst]
    assert [near.agrees for near in found.worst[0].neighbors] == [False, False, True] * 2


def test_without_labels_the_closest_and_the_farthest_are_shown(images):
    found = gallery(dataclasses.replace(images, labels=[None] * NUM, predicted=[None] * NUM))
    # 0 shows 6 to 11, 1 the rest of its group, 12 that of the last; from the end, 17 shows 1, 2, 6, 7, 12 and 13.
    assert [one.row for one in found.best] == [0, 1, 12]
    assert [one.row for one in found.worst] == [17, 16, 11, 5]
    assert not found.suspects and found.best[0].agreement is None
    assert found.best[0].distance == pytest.approx(0.01)


def test_few_labelled_neighbors_make_no_suspect(images):
    labels = list(images.labels)
    labels[8:12] = [None] * 4  # leaves two in the group of image 0
    assert gallery(dataclasses.replace(images, labels=labels)).num_suspects == 0


def test_an_image_without_neighbors_is_left_out(images):
    alone = dataclasses.replace(images, neighbors=[[]] * NUM, distances=[[]] * NUM)
    assert not any(gallery(alone)[:3])

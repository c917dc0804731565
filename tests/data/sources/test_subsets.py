"""Class-balanced parts of labelled images."""

import hashlib

import numpy as np
import pytest

from tf_simclr.data import sources
from tf_simclr.data.sources.subsets import class_balanced, spread

KEYS = [f"photos/{number}.jpg" for number in range(600)]
LABELS = np.repeat([0, 1, -1, 2], [300, 97, 200, 3])


def test_every_class_gives_the_same_share_rounded_up_and_small_parts_lie_in_large_ones():
    parts = {fraction: class_balanced(KEYS, LABELS, fraction) for fraction in (0.01, 0.02, 0.07, 0.1, 0.25, 1.0)}
    counts = {fraction: np.bincount(LABELS[part], minlength=3).tolist() for fraction, part in parts.items()}
    assert counts == {
        0.01: [3, 1, 1], 0.02: [6, 2, 1], 0.07: [21, 7, 1], 0.1: [30, 10, 1], 0.25: [75, 25, 1], 1.0: [300, 97, 3]
    }  # fmt: skip
    for smaller, larger in zip(list(parts.values()), list(parts.values())[1:], strict=False):
        assert set(smaller) < set(larger) and (np.diff(larger) > 0).all()


def test_membership_follows_from_the_hash_of_draw_and_key_alone():
    def hashed(draw, key):
        return hashlib.blake2b(f"{draw}:{key}".encode(), digest_size=8).hexdigest()

    for draw in (0, 3):
        expected = sorted(range(300), key=lambda i: hashed(draw, KEYS[i]))[:3]
        assert class_balanced(KEYS[:300], LABELS[:300], 0.01, draw).tolist() == sorted(expected)
    assert hashed(0, "photos/0.jpg") == "8f7491b2b28b7e59"
    order = np.random.default_rng(0).permutation(600)
    moved = class_balanced([KEYS[i] for i in order], LABELS[order], 0.1)
    assert set(order[moved]) == set(class_balanced(KEYS, LABELS, 0.1))
    assert len({tuple(class_balanced(KEYS, LABELS, 0.1, draw)) for draw in range(5)}) == 5


def test_more_images_move_few():
    before = class_balanced(KEYS[:300], LABELS[:300], 0.1)
    more = [*KEYS[:300], *(f"more/{number}.jpg" for number in range(30))]
    after = class_balanced(more, np.zeros(330, int), 0.1)
    assert len(before) == 30 and len(after) == 33
    assert len(set(before) - set(after)) <= 5


def test_a_sample_has_as_many_of_every_class_as_there_are_and_moves_little_when_images_come():
    taken = spread(KEYS, LABELS, 23)
    assert np.unique(LABELS[taken], return_counts=True)[1].tolist() in ([7, 7, 6, 3], [7, 6, 7, 3], [6, 7, 7, 3])
    by_hash = sorted(
        np.flatnonzero(LABELS == 0), key=lambda i: hashlib.blake2b(f"0:{KEYS[i]}".encode(), digest_size=8).digest()
    )
    assert set(by_hash[:6]) <= set(taken) and (np.diff(taken) > 0).all()
    assert set(taken) <= set(spread(KEYS, LABELS, 100))  # A larger sample holds every smaller one.
    assert len(spread(KEYS, None, 23)) == 23 and spread(KEYS, LABELS, 600).tolist() == list(range(600))
    half = [KEYS[i] for i in range(0, 600, 2)]
    kept = {half[i] for i in spread(half, None, 20)}
    assert kept >= {KEYS[i] for i in spread(KEYS, None, 20)} & set(half)


def test_what_is_no_share():
    with pytest.raises(ValueError, match="above 0, at most 1. Received: 0"):
        class_balanced(KEYS, LABELS, 0)
    with pytest.raises(ValueError, match="images with labels"):
        class_balanced(KEYS[:2], np.array([-1, -1]), 0.1)
    unlabelled = sources.ArraySource(np.zeros([4, 8, 8, 3], np.uint8))
    with pytest.raises(ValueError, match="known before the images are read.*Received: a ArraySource"):
        unlabelled.few_labels(1)


def test_a_source_gives_its_few_labels():
    images = np.arange(600, dtype=np.uint8)[:, None, None, None] * np.ones([1, 8, 8, 3], np.uint8)
    source = sources.ArraySource(images, LABELS, names=tuple(KEYS))
    few = source.few_labels(10, draw=2)
    chosen = class_balanced(KEYS, LABELS, 0.1, 2)
    assert few.keys == tuple(KEYS[i] for i in chosen)
    np.testing.assert_array_equal(few.labels, LABELS[chosen])

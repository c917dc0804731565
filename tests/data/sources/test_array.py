"""Decoded images in memory as a source."""

import numpy as np
import pytest

from tf_simclr.data import sources


def test_holdout_of_an_array(photos):
    rest, held_out = sources.holdout(sources.ArraySource(photos, np.arange(16)), 0.01)
    assert (rest.num_examples, held_out.num_examples) == (15, 1)
    np.testing.assert_array_equal(held_out.images[0], photos[held_out.labels[0]])
    with pytest.raises(ValueError, match="between 0 and 1"):
        sources.holdout(rest, 1.0)


def test_arrays_are_checked(photos):
    with pytest.raises(ValueError, match="uint8.*Received: float64"):
        sources.ArraySource(photos / 255.0)
    with pytest.raises(ValueError, match=r"int64 of shape \[16\].*\[15\]"):
        sources.ArraySource(photos, np.arange(15))
    with pytest.raises(ValueError, match="-1 if it is unknown. Received: -2"):
        sources.ArraySource(photos, np.arange(16) - 2)


def test_an_array_without_a_known_label_has_no_classes(photos):
    assert sources.ArraySource(photos, np.full(16, -1)).num_classes is None
    assert sources.ArraySource(photos, np.arange(16) - 1).num_classes == 15


@pytest.mark.parametrize(
    ("names", "labels", "class_names"),
    [
        (["b", None, "a", ""], [1, -1, 0, -1], ("a", "b")),
        (["10", "9", None], [1, 0, -1], ("9", "10")),
        (["-1", "0", "1"], [-1, 0, 1], ("0", "1")),  # as Hugging Face and TFDS mark examples without a label
        (["-1", "1"], [0, 1], ("-1", "1")),
        (["a", "a", None], None, None),
        ([None, None], None, None),
    ],
)
def test_classes_are_numbered_and_unknown_ones_are_minus_one(names, labels, class_names):
    found, found_names = sources.number_classes(names, None, "here")
    assert (None if found is None else found.tolist(), found_names) == (labels, class_names)


def test_classes_of_a_test_part_are_those_of_training():
    found, _ = sources.number_classes(["b", None, "-1"], ("a", "b"), "here")
    assert found.tolist() == [1, -1, -1]
    with pytest.raises(ValueError, match="'here' has a class that the training images lack.*Received: 'c'"):
        sources.number_classes(["b", "c", None], ("a", "b"), "here")

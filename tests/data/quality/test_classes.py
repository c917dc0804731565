"""The classes of a set of images: counts, and signs that they are something else."""

import numpy as np
import pytest

from tf_simclr.data.quality import classes


def doubts(*names):
    """What is doubted about the classes that are the first folders of these paths."""
    class_names = sorted({name.split("/")[0] for name in names})
    labels = np.array([class_names.index(name.split("/")[0]) for name in names])
    return [text for text, _ in classes.doubts(class_names, labels, [f"/photos/{name}" for name in names])]


def test_counts_leave_out_images_without_a_label():
    assert classes.count(np.array([1, -1, 1, 0]), ("a", "b", "c")) == {"a": 1, "b": 2, "c": 0}
    assert classes.count(np.array([1, -1, 1, 0]), None) == {"0": 1, "1": 2}


@pytest.mark.parametrize(
    ("names", "doubt"),
    [
        (["train/1", "test/1"], "test, train: the names of parts"),
        (["cat/1", "dog/1", "Validation/1"], "Validation: the names of parts"),
        (["train_a/cat/1", "test_b/cat/1"], "test_b, train_a: the names of parts"),
        (["2019/1", "2020-05/1", "20210531/1"], "2019, 2020-05, 20210531: dates"),
        (["photo/cat/1", "photo/dog/1", "sketch/cat/1", "sketch/dog/1"], "the same folders (cat, dog)"),
        (["bottle/train/good/1", "bottle/test/1", "cable/train/1", "cable/test/1"], "folders (test, train)"),
    ],
)
def test_classes_that_look_like_something_else_are_doubted(names, doubt):
    (found,) = doubts(*names)
    assert doubt in found


@pytest.mark.parametrize(
    "names",
    [
        ["train/1", "car/1", "plane/1"],  # "train" may be a class
        ["n1/images/1", "n2/images/1"],
        ["cat/day/1", "dog/night/1"],
        ["1/1", "2/1", "1984/1"],
        ["test_tube/1", "cat/1"],
    ],
)
def test_classes_that_look_like_classes_are_not(names):
    assert not doubts(*names)

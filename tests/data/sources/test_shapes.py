"""The embedded data set: same pixels from the same seed, and a class that only the outline tells."""

import hashlib
import logging as standard_logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tf_simclr.data.sources import shapes


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    return {split: shapes.load(split, cache_dir=folder) for split in ("train", "test")}, folder


@pytest.mark.parametrize("split, size", [("train", 10_000), ("test", 2_000)])
def test_every_class_is_equally_frequent(splits, split, size):
    images, labels = splits[0][split]
    assert images.shape == (size, 32, 32, 3) and images.dtype == np.uint8
    assert labels.shape == (size,) and labels.dtype == np.int64
    np.testing.assert_array_equal(np.bincount(labels), size // len(shapes.CLASS_NAMES))
    assert len(shapes.CLASS_NAMES) == 10


def test_no_image_is_in_both_splits_or_twice_in_one(splits):
    images = [image.tobytes() for split in splits[0].values() for image in split[0]]
    assert len(set(images)) == 12_000


def test_pixels_are_those_of_the_version(splits):
    """A change of the pixels, or a platform that draws others, must not go unnoticed: it needs a new `_VERSION`."""
    images, labels = splits[0]["test"]
    assert labels[:8].tolist() == [3, 9, 7, 8, 6, 2, 7, 5]
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    assert digest == "292f4aa32b06b26b6f5b3844345a78f5a173c979406f986ba67ab55ce894d2b2"


def test_cache_returns_the_same_and_another_seed_does_not(splits, monkeypatch):
    (images, labels), folder = splits[0]["test"], splits[1]
    other_images, other_labels = shapes.load("test", seed=1, cache_dir=folder)
    assert not np.array_equal(labels, other_labels)
    assert np.mean(np.all(images == other_images, axis=(1, 2, 3))) == 0
    monkeypatch.setattr(shapes, "draw", lambda *_: pytest.fail("drawn again although cached"))
    for seed, expected in ((0, images), (1, other_images)):
        np.testing.assert_array_equal(shapes.load("test", seed=seed, cache_dir=folder)[0], expected)
    assert not list(folder.glob(".*"))


def test_broken_or_unwritable_cache_costs_a_warning_only(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(shapes, "NUM_EXAMPLES", {"train": 30, "test": 20})
    expected = shapes.load("test", cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    file = tmp_path / "file"
    file.write_text("not a folder")
    with caplog.at_level(standard_logging.WARNING, logger="absl"):
        for folder, reason in ((tmp_path, "cannot be read"), (file, "cannot be written")):
            np.testing.assert_array_equal(shapes.load("test", cache_dir=folder)[0], expected[0])
            assert reason in caplog.text
    with np.load(path) as repaired:
        np.testing.assert_array_equal(repaired["images"], expected[0])


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "NUM_EXAMPLES", {"train": 30, "test": 20})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shapes.load("train")
    assert [path.suffix for path in (tmp_path / "tf_simclr").iterdir()] == [".npz"]


@pytest.mark.parametrize("arguments, part", [({"split": "valid"}, "valid"), ({"split": "test", "seed": -1}, "-1")])
def test_wrong_arguments(arguments, part):
    with pytest.raises(ValueError, match=f"Received: {part}"):
        shapes.load(**arguments)


def test_colours_do_not_tell_the_class(splits):
    """Three standard errors above chance, for mean and spread of the colours; a disk and a ring differ in area."""
    features = {}
    for split, (images, labels) in splits[0].items():
        pixels = images.reshape(len(images), -1, 3) / np.float32(255)
        features[split] = np.concatenate([pixels.mean(1), pixels.std(1)], axis=1), labels
    accuracy = LogisticRegression(max_iter=500).fit(*features["train"]).score(*features["test"])
    assert accuracy < 0.2


def test_outline_tells_the_class():
    """Without nuisances, the nearest neighbour knows nearly every shape: the classes differ, also when rotated."""
    labels = np.arange(4000) % 10
    rng = np.random.default_rng(0)
    grid = np.arange(32, dtype=np.float32) - np.float32(15.5)
    coverage = shapes._coverage(rng, labels, grid[None, None, :], grid[None, :, None]).reshape(len(labels), -1)
    assert coverage.min() == 0 and coverage.max() == 1
    train, test = coverage[500:], coverage[:500]
    distances = (test**2).sum(1)[:, None] - 2 * test @ train.T + (train**2).sum(1)
    assert np.mean(labels[500:][distances.argmin(1)] == labels[:500]) > 0.9

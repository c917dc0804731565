"""Encoded images in memory and decoded ones on the disk."""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.augment import Augmentation
from tf_simclr.data import sources
from tf_simclr.data.batches import train_dataset
from tf_simclr.data.sources import cache

pytestmark = pytest.mark.usefixtures("quick_decoder")


@pytest.fixture
def files(photos, tmp_path) -> sources.FileSource:
    """Eight images of two classes, of which one breaks after the folder was opened."""
    for index, photo in enumerate(photos[:8]):
        path = tmp_path / "images" / "ab"[index % 2] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_jpeg(photo[: 20 + index]).numpy())
    source = sources.from_folder(tmp_path / "images")
    pathlib.Path(source.paths[2]).write_text("no longer an image")
    return source


def batches(source):
    dataset = train_dataset(source, global_batch_size=4, seed=1, total_steps=5, augmentation=Augmentation(8))
    return list(dataset.as_numpy_iterator())


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_cached_images_give_the_same_batches_without_the_originals(files, tmp_path, caplog, place):
    expected = batches(files)
    with caplog.at_level("INFO", logger="absl"):
        cached = cache.keep(files, place, tmp_path / "cache")
    assert "The cache takes about 0.00 GB in" in caplog.text
    shutil.rmtree(tmp_path / "images")
    for (batch, labels), (expected_batch, expected_labels) in zip(batches(cached), expected, strict=True):
        np.testing.assert_array_equal(batch["images"], expected_batch["images"])
        np.testing.assert_array_equal(labels, expected_labels)
    assert files.broken.paths() == (files.paths[2],)  # By its own name, not that of its copy.


def test_the_disk_is_filled_once_and_a_changed_file_is_decoded_again(files, tmp_path):
    cached = cache.keep(files, "disk", tmp_path / "cache")
    times = {path: pathlib.Path(path).stat().st_mtime_ns for path in cached.paths}
    pathlib.Path(files.paths[1]).write_bytes(pathlib.Path(files.paths[3]).read_bytes())
    again = cache.keep(files, "disk", tmp_path / "cache")
    assert [one == other for one, other in zip(cached.paths, again.paths, strict=True)] == [True, False] + [True] * 6
    assert all(pathlib.Path(path).stat().st_mtime_ns == times.get(path) for i, path in enumerate(again.paths) if i != 1)


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_what_does_not_fit_is_refused_before_it_is_read(files, tmp_path, monkeypatch, place):
    monkeypatch.setattr(cache.devices, "free_memory", lambda: 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 0, 1))
    with pytest.raises(ValueError, match=f"do not fit in the cache: .* GB in .*Received: data.cache={place}"):
        cache.keep(files, place, tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*"))


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_file_that_cannot_be_read_is_one_that_is_broken(files, tmp_path, place):
    pathlib.Path(files.paths[5]).unlink()
    batches(cache.keep(files, place, tmp_path / "cache"))
    assert set(files.broken.paths()) == {files.paths[2], files.paths[5]}


def test_in_memory_python_and_tensorflow_hold_the_bytes_once_each(files, tmp_path, monkeypatch):
    size = sum(pathlib.Path(path).stat().st_size for path in files.paths)
    monkeypatch.setattr(cache.devices, "free_memory", lambda: round(1.9 * size))
    with pytest.raises(ValueError, match="do not fit in the cache"):
        cache.keep(files, "memory", tmp_path)
    monkeypatch.setattr(cache.devices, "free_memory", lambda: round(2.1 * size))
    made = []
    constant = tf.constant
    monkeypatch.setattr(tf, "constant", lambda value, *more: made.append(value) or constant(value, *more))
    kept = cache.keep(files, "memory", tmp_path)
    batches(kept)
    assert sum(value is kept.contents for value in made) == 1


def test_an_empty_copy_is_decoded_again(files, tmp_path):
    """A lost machine may leave such a file."""
    cached = cache.keep(files, "disk", tmp_path / "cache")
    expected = pathlib.Path(cached.paths[0]).read_bytes()
    pathlib.Path(cached.paths[0]).write_bytes(b"")
    assert cache.keep(files, "disk", tmp_path / "cache").paths == cached.paths
    assert pathlib.Path(cached.paths[0]).read_bytes() == expected


def test_the_fingerprint_tells_contents_of_one_length_apart(files, tmp_path):
    before = cache.keep(files, "memory", tmp_path).fingerprint()
    assert cache.keep(files, "memory", tmp_path).fingerprint() == before
    path = pathlib.Path(files.paths[1])
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert cache.keep(files, "memory", tmp_path).fingerprint() != before

"""Archives as sources: what a folder of the same files gives, in training, evaluation and caches."""

import json
import os
import pathlib
import tarfile
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from layouts import lay_out

from tf_simclr.augment import Augmentation
from tf_simclr.data import sources
from tf_simclr.data.batches import train_dataset
from tf_simclr.data.files.broken import BrokenFiles
from tf_simclr.data.files.walk import Walk
from tf_simclr.data.sources import cache
from tf_simclr.data.sources.order import Steps

pytestmark = pytest.mark.usefixtures("quick_decoder")

KINDS = ("images.tar", "stored.zip", "deflated.zip")


@pytest.fixture
def folder(photos, tmp_path) -> pathlib.Path:
    """Twenty images of two classes and of different sizes; one is broken."""
    for index in range(20):
        path = tmp_path / "images" / "ab"[index % 2] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_jpeg(photos[index % len(photos)][: 20 + index]).numpy())
    (tmp_path / "images" / "a" / "4.jpg").write_text("no image")
    return tmp_path / "images"


def pack(folder, name):
    """Packs a folder in no particular order."""
    target = folder.parent / name
    paths = sorted(folder.rglob("*"), key=lambda path: path.name[::-1])
    if name.endswith(".tar"):
        with tarfile.open(target, "w") as tar:
            for path in paths:
                tar.add(path, path.relative_to(folder), recursive=False)
    else:
        method = zipfile.ZIP_DEFLATED if name == "deflated.zip" else zipfile.ZIP_STORED
        with zipfile.ZipFile(target, "w", method) as archive:
            for path in paths:
                archive.write(path, path.relative_to(folder))
    return str(target)


def batches(source, start=0):
    options = {"seed": 1, "start_step": start, "total_steps": 7, "augmentation": Augmentation(8)}
    return list(train_dataset(source, global_batch_size=4, **options).as_numpy_iterator())


def assert_same_batches(found, expected):
    for (batch, labels), (expected_batch, expected_labels) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(batch["images"], expected_batch["images"])
        np.testing.assert_array_equal(batch["keys"], expected_batch["keys"])
        np.testing.assert_array_equal(labels, expected_labels)


def evaluated(source, start=0):
    return [(int(i), key, image.tobytes(), int(label)) for i, key, image, label in
            source.eval_examples(start).as_numpy_iterator()]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_gives_what_its_folder_gives(folder, kind, monkeypatch):
    monkeypatch.setattr(sources.folders, "_CHECKED_BYTES", 10)  # The broken image is found in the first epoch.
    expected, source = sources.open_images(folder), sources.open_images(pack(folder, kind))
    assert source.is_archived and source.identity() == expected.identity()
    whole = batches(expected)
    assert_same_batches(batches(source), whole)
    assert_same_batches(batches(source, start=5), whole[5:])
    assert len(source.broken) == 1 and source.broken.paths()[0].endswith(f"{kind}/a/4.jpg")
    assert source.broken.reason(source.broken.paths()[0]).startswith("not a JPEG")
    assert evaluated(source) == evaluated(expected) and evaluated(source, 11) == evaluated(expected, 11)
    for seen, expected_sample in zip(source.sample(5), expected.sample(5), strict=True):
        assert seen.number == expected_sample.number and seen.name.endswith(expected.keys[seen.number])
        np.testing.assert_array_equal(seen.image, expected_sample.image)
    assert source.sample_encoded(5) == expected.sample_encoded(5)
    for part, expected_part in zip(sources.holdout(source), sources.holdout(expected), strict=True):
        assert part.identity() == expected_part.identity()
    assert source.few_labels(10).keys == expected.few_labels(10).keys
    (seen,), (expected_seen,) = (list(one.inspect(lambda images: {})) for one in (source, expected))
    assert seen["reason"].tolist() == expected_seen["reason"].tolist() and sum(map(bool, seen["reason"])) == 1
    assert seen["height"].tolist() == expected_seen["height"].tolist()


def test_damage_is_found_named_and_replaced(folder, tmp_path):
    place = pathlib.Path(pack(folder, "stored.zip"))
    content = bytearray(place.read_bytes())
    content[content.index(b"a/10.jpg") + 100] ^= 0xFF
    place.write_bytes(content)
    report = tmp_path / "data_report.json"
    source = sources.open_images(place, broken=BrokenFiles(report))
    assert source.num_examples == 18
    reasons = {entry["path"]: entry["reason"] for entry in json.loads(report.read_text())["skipped"]}
    assert reasons[f"{place}/a/10.jpg"] == "its content in the archive is damaged"
    known = BrokenFiles(report)
    assert len(known) == 2 and sources.open_images(place, broken=known).num_examples == 18
    os.utime(pack(folder, "stored.zip"), (0, 0))
    assert sources.open_images(place, broken=BrokenFiles(report)).num_examples == 19
    (folder / "a" / "4.jpg").write_bytes((folder / "a" / "2.jpg").read_bytes())
    assert len(evaluated(sources.open_images(pack(folder, "stored.zip")))) == 20


@pytest.mark.parametrize("kept", ["memory", "disk"])
def test_cached_archives_are_read_no_more(folder, tmp_path, kept):
    place = pathlib.Path(pack(folder, "images.tar"))
    source = sources.open_images(f"{place},{folder}/b")  # Several places: names are whole paths.
    expected = batches(source)
    cached = cache.keep(source, kept, tmp_path / "cache")
    files = sorted(tmp_path.rglob("*.bmp"))
    assert all(tmp_path / "cache" in path.parents for path in files) and len(files) == (29 if kept == "disk" else 0)
    place.unlink()
    assert_same_batches(batches(cached), expected)


def test_the_fingerprint_is_that_of_the_archive(folder):
    place = pack(folder, "stored.zip")
    first = sources.open_images(place).fingerprint()
    assert sources.open_images(place).fingerprint() == first
    (folder / "b" / "1.jpg").write_bytes((folder / "b" / "3.jpg").read_bytes())
    assert sources.open_images(pack(folder, "stored.zip")).fingerprint() != first


def test_the_parts_of_a_data_set_are_found_in_an_archive(tmp_path):
    lay_out(tmp_path / "set", *(f"set/{part}/{name}/x.png*3" for part in ("train", "test") for name in "ab"))
    train, test = sources.open_train_and_eval(pack(tmp_path / "set", "set.zip"))
    assert train.num_examples == test.num_examples == 6 and train.class_names == test.class_names == ("a", "b")
    assert isinstance(train, sources.ArraySource)  # Small images of one size are loaded, as from a folder.


@pytest.mark.parametrize("places, keys, classes", [
    (["set/all/a/1.png", "set/all/b/2.png"], ("a/1.png", "b/2.png"), ("a", "b")),
    (["a/1.png", "a/2.png"], ("a/1.png", "a/2.png"), None),
])  # fmt: skip
def test_a_packed_folder_of_class_folders_is_that_folder(tmp_path, places, keys, classes):
    source = sources.open_images(pack(lay_out(tmp_path / "set", *places), "set.zip"), max_cached_bytes=0)
    assert (tuple(source.keys), source.class_names) == (keys, classes)
    assert len(evaluated(source)) == 2


def test_a_kept_list_is_used_while_the_archive_is_unchanged(folder, tmp_path, monkeypatch):
    place = pathlib.Path(pack(folder, "images.tar"))
    old = place.stat().st_mtime - 60
    walked, files = [], Walk.files
    monkeypatch.setattr(Walk, "files", lambda self, root: walked.append(root) or files(self, root))
    for time, times_walked in ((old, 1), (old, 1), (old - 1, 2)):
        os.utime(place, (time, time))
        assert sources.open_images(place, broken=BrokenFiles(tmp_path / "data_report.json")).num_examples == 19
        assert len(walked) == times_walked


def test_data_services_cannot_read_archives(folder):
    source = sources.open_images(pack(folder, "images.tar"))
    with pytest.raises(ValueError, match="leave data.service out, or unpack the archives. Received: .*images.tar"):
        source.train_examples(Steps(seed=0, batch_size=4, per_epoch=4, start=0, stop=4), reports=False)

"""Listing: large trees, names of any bytes, what cannot be read, other file systems."""

import io
import json
import os
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.augment import Augmentation
from tf_simclr.data import sources
from tf_simclr.data.batches import train_dataset
from tf_simclr.data.files import ignored, list_cache, listing, walk
from tf_simclr.data.files.broken import BrokenFiles
from tf_simclr.data.files.names import Names

pytestmark = pytest.mark.usefixtures("quick_decoder")

ODD_NAMES = ["no utf-8 \udcff\udcfe", "new\nline", "a # b, c", "glob[1]*?", "quote\"'\\", "ü" * 120, "100%"]


def png(value: int, width: int = 9) -> bytes:
    return tf.io.encode_png(np.full([8, width, 3], value, np.uint8)).numpy()


def write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def train(source) -> list:
    dataset = train_dataset(source, global_batch_size=2, seed=0, total_steps=2, augmentation=Augmentation(8))
    return list(dataset.as_numpy_iterator())


def test_names_are_what_a_tuple_of_them_would_be():
    names = Names(ODD_NAMES, prefix="/folder/")
    expected = ["/folder/" + name for name in ODD_NAMES]
    assert names == expected and list(names) == expected and names != expected[1:]
    assert (names[0], names[-1], list(names[2:4])) == (expected[0], expected[-1], expected[2:4])
    assert names.take(np.array([3, 0, 3])) == [expected[3], expected[0], expected[3]]
    assert Names.unpack(*names.pack()).with_prefix("x") == ["x" + name for name in ODD_NAMES]
    name_at = tf.function(names.lookup())
    assert [os.fsdecode(name_at(i).numpy()) for i in range(len(names))] == expected


@pytest.mark.parametrize("as_pattern", [False, True])
def test_names_of_any_bytes_are_read_and_reported(tmp_path, as_pattern):
    root = f"{tmp_path}/#photos, [all]"
    for value, name in enumerate(ODD_NAMES):
        write(f"{root}/{name}/{name}.png", png(value, 9 + value))
    write(f"{root}/broken\udcff\n.png", b"no image")
    broken = BrokenFiles(tmp_path / "data_report.json")
    place = f"{tmp_path}/#photos, [[]all]/*" if as_pattern else root
    if as_pattern:  # A comma would part the places.
        os.rename(root, root := root.replace(",", ""))
        place = place.replace(",", "")
    source = sources.from_folder(place, broken=broken)
    # In a pattern the part without wildcards ends where the bracket is quoted.
    start = "#photos [all]/" if as_pattern else ""
    assert sorted(source.keys) == sorted(f"{start}{name}/{name}.png" for name in ODD_NAMES)
    assert as_pattern or len(train(source)) == 2
    broken.write()
    (entry,) = json.loads((tmp_path / "data_report.json").read_text())["skipped"]
    assert entry["path"] == f"{root}/broken\udcff\n.png"
    assert entry["path"] in BrokenFiles(tmp_path / "data_report.json")
    cached = sources.from_folder(place, broken=BrokenFiles(tmp_path / "data_report.json"))
    assert cached.keys == source.keys


def test_what_is_no_file_and_folders_that_vanish_are_skipped_and_named(tmp_path, monkeypatch):
    for i in range(4):
        write(f"{tmp_path}/a/{i}.png", png(i, 9 + i))
    os.mkfifo(tmp_path / "pipe.jpg")  # Who reads it waits forever.
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere")
    write(f"{tmp_path}/folder.jpg/5.png", png(5))
    (tmp_path / "gone").mkdir()
    (tmp_path / "locked").mkdir()
    scan = os.scandir

    def fail(folder):
        if folder.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        if folder.endswith("gone"):
            os.rmdir(folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", fail)
    broken = BrokenFiles()
    source = sources.from_folder(tmp_path, broken=broken)
    assert source.names == ["a/0.png", "a/1.png", "a/2.png", "a/3.png", "folder.jpg/5.png"]
    assert {os.path.basename(path): broken.reason(path) for path in broken.paths()} == {
        "pipe.jpg": "it is not a regular file",
        "link.jpg": "the link leads nowhere",
        "gone": "the folder cannot be listed: No such file or directory",
        "locked": "the folder cannot be listed: Permission denied",
    }
    assert broken.num_files == 9
    with pytest.raises(ValueError, match="locked: the folder cannot be listed: Permission denied"):
        sources.open_train_and_eval(tmp_path / "locked")


@pytest.fixture
def tree(tmp_path):
    """10,000 files in 100 folders, last changed a minute ago."""
    write(f"{tmp_path}/photo", png(1))
    for i in range(10_000):
        if i % 100 == 0:
            os.makedirs(folder := f"{tmp_path}/tree/{i // 100:02}")
        os.link(tmp_path / "photo", f"{folder}/{i:05}.png")
    for folder, _, _ in os.walk(tmp_path / "tree"):
        os.utime(folder, ns=(0, os.stat(folder).st_mtime_ns - 60 * 10**9))
    return tmp_path / "tree"


def test_the_list_of_a_large_tree_is_kept_until_a_folder_changes(tree, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(walk, "_PROGRESS_SECONDS", 0.0)
    visited = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: visited.append(folder) or scan(folder))
    with caplog.at_level("INFO", logger="absl"):
        cold = listing.list_images(str(tree), tmp_path / "lists")
    assert len(cold.keys) == 10_000 and len(visited) == 101 and "10,000 files so far" in caplog.text
    warm = listing.list_images(str(tree), tmp_path / "lists")
    assert warm.keys == cold.keys and warm.paths == cold.paths and warm.classes == cold.classes and len(visited) == 101
    os.remove(tree / "07" / "00703.png")
    write(f"{tree}/08/new.png", png(2))
    changed = listing.list_images(str(tree), tmp_path / "lists")
    assert set(cold.keys) ^ set(changed.keys) == {"07/00703.png", "08/new.png"}
    # Within the resolution of a folder's time, more may change unseen: what is that new is not kept.
    assert list_cache.load(str(tree), tmp_path / "lists") is None


def test_other_files_are_counted_by_suffix_and_the_kept_list_remembers_them(tree, tmp_path):
    for name in ("a.TIF", "b.tif", "c.heic", "labels.csv", "noise", "x.2019 in summer", ".hidden.tif", "Thumbs.db"):
        write(f"{tree}/00/{name}", b"x")
    os.utime(tree / "00", ns=(0, os.stat(tree / "00").st_mtime_ns - 60 * 10**9))
    expected = {".tif": 2, ".heic": 1, ".csv": 1, "": 2}
    assert listing.list_images(str(tree), tmp_path / "lists").ignored == expected
    names, counts = list_cache.load(str(tree), tmp_path / "lists")
    assert len(names) == 10_000 and counts == expected
    assert listing.list_images(str(tree), tmp_path / "lists").ignored == expected
    assert listing.list_images(f"{tree}/*/*").ignored == expected
    assert ignored.describe(expected).endswith(
        ": without a suffix 2, .tif 2, .heic 1, and 1 file that describes images: .csv 1"
    )


def test_files_of_a_suffix_that_is_not_known_are_named_when_there_is_nothing_else(tmp_path):
    write(f"{tmp_path}/a.tif", b"x")
    with pytest.raises(ValueError, match=r"at any depth; it holds 1 file that is not an image .*: \.tif 1\. Received"):
        listing.list_images(str(tmp_path))


def test_every_suffix_of_a_format_is_known(tmp_path):
    for name in ("a.JPG", "b.jpe", "c.jfif", "d.Jpeg", "e.dib", "f.apng"):
        write(f"{tmp_path}/{name}", png(1))
    assert len(listing.list_images(str(tmp_path)).keys) == 6


def test_what_runs_and_systems_leave_is_not_taken_for_images(tmp_path):
    for name in (
        "a/1.png",
        "b/1.png",
        "runs/one/check_views.png",
        "runs/one/decoded_images/a/1.bmp",
        "__MACOSX/a/1.png",
    ):
        write(f"{tmp_path}/{name}", png(1))
    write(f"{tmp_path}/runs/one/data_report.json", b"{}")
    for place in (str(tmp_path), f"{tmp_path}/*", f"{tmp_path}/**/*.*", f"{tmp_path}/[ab]/*.png,{tmp_path}/runs/*"):
        assert set(listing.list_images(place).keys) == {"a/1.png", "b/1.png"}
    assert sources.from_folder(tmp_path).class_names == ("a", "b")
    # Images may lie in the folder of a run.
    write(f"{tmp_path}/data_report.json", b"{}")
    assert len(listing.list_images(f"{tmp_path}/a").keys) == 1


def test_a_pattern_does_not_read_what_lies_beside_the_images_as_a_list(tmp_path):
    write(f"{tmp_path}/1.png", png(1))
    write(f"{tmp_path}/README.txt", b"Photographs of my garden")
    assert listing.list_images(f"{tmp_path}/*").keys == ["1.png"]


def test_a_list_takes_little_memory(tree):
    tracemalloc.start()
    keys = listing.list_images(str(tree)).keys
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(keys) == 10_000 and held < 40 * 10_000 and peak < 400 * 10_000  # bytes


@pytest.mark.slow
def test_other_file_systems_are_read(photos):
    root = "ram://images"
    for i in range(6):
        for place in (f"{root}/train/{'ab'[i % 2]}/{i}.png", f"{root}/test/b/{i}.png"):
            tf.io.gfile.makedirs(os.path.dirname(place))
            with tf.io.gfile.GFile(place, "wb") as file:
                file.write(png(i, 9 + i))
    with tf.io.gfile.GFile(f"{root}/list.csv", "w") as file:
        file.write(f"train/a/0.png,x\ntrain/b/1.png,y\n{root}/train/a/2.png,x\n")
    tf.io.gfile.makedirs("ram://elsewhere/records")
    with tf.io.TFRecordWriter("ram://elsewhere/records/photos-00000-of-00001") as writer:
        for i in range(4):
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[png(i)]))
            writer.write(tf.train.Example(features=tf.train.Features(feature={"image": image})).SerializeToString())
    np.savez(arrays := io.BytesIO(), images=photos)
    with tf.io.gfile.GFile(f"{root}/set.npz", "wb") as file:
        file.write(arrays.getvalue())
    broken = BrokenFiles("ram://run/data_report.json")
    opened = [sources.open_train_and_eval(root, broken=broken)[0]]
    for place in (f"{root}/train/*/*.png", f"{root}/list.csv", "ram://elsewhere/records", f"{root}/set.npz"):
        opened.append(sources.open_images(place, broken=broken))
    assert [source.num_examples for source in opened] == [6, 6, 3, 4, 16]
    assert [source.num_classes for source in opened] == [2, 2, 2, None, None]
    assert all(len(train(source)) == 2 for source in opened if source.num_examples > 3)
    broken.write()
    assert tf.io.gfile.exists("ram://run/data_report.json")


def test_a_link_that_cannot_be_followed_hides_nothing_else(tmp_path):
    for i in range(4):
        write(f"{tmp_path}/a/{i}.png", png(i, 9 + i))
    (tmp_path / "a" / "round.jpg").symlink_to("round.jpg")
    (tmp_path / "a" / "round").symlink_to("round")
    broken = BrokenFiles()
    assert sources.from_folder(tmp_path, broken=broken).names == ["a/0.png", "a/1.png", "a/2.png", "a/3.png"]
    assert {os.path.basename(path): broken.reason(path) for path in broken.paths()} == {
        "round.jpg": "the link cannot be followed: Too many levels of symbolic links",
        "round": "the folder cannot be listed: Too many levels of symbolic links",
    }


def test_a_kept_list_that_is_damaged_is_made_again(tree, tmp_path):
    expected = listing.list_images(str(tree), tmp_path / "lists")
    (kept,) = (tmp_path / "lists").iterdir()
    for content in (b"", kept.read_bytes()[:1000]):
        kept.write_bytes(content)
        assert list_cache.load(str(tree), tmp_path / "lists") is None
        assert listing.list_images(str(tree), tmp_path / "lists").keys == expected.keys

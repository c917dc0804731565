"""Folders of images, laid out in every way, with good and broken files."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.data import sources
from tf_simclr.data.files.broken import BrokenFiles
from tf_simclr.data.sources import folders

pytestmark = pytest.mark.usefixtures("quick_decoder")


def write(folder: pathlib.Path, name: str, value: int = 0, size: tuple[int, int] = (8, 8)) -> None:
    """Writes a lossless image of one grey value."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    encode = tf.io.encode_png if path.suffix.lower() == ".png" else tf.io.encode_jpeg
    path.write_bytes(encode(np.full([*size, 3], value, np.uint8)).numpy())


def test_class_subfolders_give_labels_in_sorted_order(tmp_path):
    for value, name in enumerate(["b/1.png", "a/deep/er/2.PNG", "a/1.jpg", "c/x.jpeg"]):
        write(tmp_path, name, value)
    (tmp_path / "README.md").write_text("no image")
    write(tmp_path, ".hidden/1.png")
    write(tmp_path, "b/._1.png")
    source = sources.from_folder(tmp_path)
    assert isinstance(source, sources.ArraySource)
    assert source.names == ("a/1.jpg", "a/deep/er/2.PNG", "b/1.png", "c/x.jpeg")
    assert source.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(source.labels, [0, 0, 1, 2])
    np.testing.assert_array_equal(source.images[:, 0, 0, 0], [2, 1, 0, 3])
    assert sources.from_folder(f"{tmp_path}/").names == source.names


@pytest.mark.parametrize("names", [["1.png", "2.png"], ["only/1.png", "only/2.png"], ["only/1.png", "2.png"]])
def test_without_two_classes_there_are_no_labels(tmp_path, names):
    for name in names:
        write(tmp_path, name)
    source = sources.from_folder(tmp_path)
    assert source.num_examples == len(names)
    assert source.labels is None and source.class_names is None


@pytest.mark.parametrize("max_cached_bytes", [1 << 30, 0])
def test_images_beside_the_class_folders_have_no_label_and_take_none_away(tmp_path, max_cached_bytes):
    for value, name in enumerate(["a/1.png", "b/1.png", "cover.png", "Unlabelled/1.png"]):
        write(tmp_path, name, value)
    source = sources.from_folder(tmp_path, max_cached_bytes=max_cached_bytes)
    assert list(source.keys) == ["Unlabelled/1.png", "a/1.png", "b/1.png", "cover.png"]
    assert (source.class_names, source.num_classes) == (("a", "b"), 2)
    np.testing.assert_array_equal(source.labels, [-1, 0, 1, -1])
    assert [int(label) for *_, label in source.eval_examples()] == [-1, 0, 1, -1]
    assert source.subset(np.array([0, 3])).num_classes is None
    # What has no label is not held out, because nothing can be tested on it.
    rest, held_out = sources.holdout(source, 0.5)
    assert rest.num_examples == 3 and held_out.labels.min() >= 0


def test_images_that_differ_in_size_or_do_not_fit_stay_files(tmp_path):
    write(tmp_path, "a/1.png", 1)
    write(tmp_path, "b/1.png", 2)
    same_size = sources.from_folder(tmp_path, max_cached_bytes=2 * 8 * 8 * 3 - 1)
    write(tmp_path, "c/1.png", 3, (8, 9))
    varying = sources.from_folder(tmp_path)
    for source, labels in ((same_size, [0, 1]), (varying, [0, 1, 2])):
        assert isinstance(source, sources.FileSource)
        assert [os.path.relpath(path, tmp_path) for path in source.paths] == list(source.names)
        np.testing.assert_array_equal(source.labels, labels)


@pytest.mark.parametrize("varying", [False, True])
def test_broken_files_are_skipped_counted_and_named(tmp_path, caplog, varying):
    for i in range(4):
        write(tmp_path, f"{'ab'[i % 2]}/{i}.png", i, (8, 8 + i * varying))
    whole = (tmp_path / "a/0.png").read_bytes()
    (tmp_path / "a/1_cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b/1_empty.jpg").write_bytes(b"")
    (tmp_path / "b/9_text.jpg").write_text("hello")
    with caplog.at_level("WARNING"):
        source = sources.from_folder(tmp_path)
    assert isinstance(source, sources.FileSource if varying else sources.ArraySource)
    assert source.names == ("a/0.png", "a/2.png", "b/1.png", "b/3.png")
    np.testing.assert_array_equal(source.labels, [0, 0, 1, 1])
    if not varying:
        np.testing.assert_array_equal(source.images[:, 0, 0, 0], [0, 2, 1, 3])
    assert [os.path.basename(path) for path, _ in source.skipped] == [
        "1_cut.png",
        "1_empty.jpg",
        "9_text.jpg",
    ]
    assert all(reason and "{{" not in reason and "[Op" not in reason for _, reason in source.skipped)
    assert "3 broken image files (3 of 7 so far)" in caplog.text and "9_text.jpg" in caplog.text


def test_large_sets_are_not_read_when_they_are_opened(tmp_path, monkeypatch):
    write(tmp_path, "1.png")
    write(tmp_path, "2.png", size=(9, 9))
    (tmp_path / "3.png").write_bytes(b"broken")
    monkeypatch.setattr(folders, "_CHECKED_BYTES", 10)
    source = sources.from_folder(tmp_path)
    assert source.names == ("1.png", "2.png", "3.png") and source.skipped == ()


def test_what_is_no_folder_of_images_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        sources.from_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"\.jpg.*at any depth"):
        sources.from_folder(tmp_path)
    (tmp_path / "a.jpg").write_text("hello")
    with pytest.raises(ValueError, match="None of the 1 image files.*a.jpg"):
        sources.from_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="a.jpg"):
        sources.from_folder(tmp_path / "a.jpg")


def test_train_and_test_folders_share_class_ids(tmp_path):
    for name in ("train/cat/1.png", "train/dog/1.png", "test/dog/1.png", "val/dog/1.png"):
        write(tmp_path, name)
    train, evaluation = sources.open_train_and_eval(tmp_path)
    assert train.class_names == evaluation.class_names == ("cat", "dog")
    assert evaluation.num_examples == 1
    np.testing.assert_array_equal(evaluation.labels, [1])
    write(tmp_path, "test/cow/1.png")
    with pytest.raises(ValueError, match="cow"):
        sources.open_train_and_eval(tmp_path)


def test_train_among_other_classes_is_a_class(tmp_path):
    for name in ("train/1.png", "bus/1.png"):
        write(tmp_path, name)
    assert sources.split_folders(tmp_path) == (str(tmp_path), (), ())
    assert sources.from_folder(tmp_path).class_names == ("bus", "train")


def test_without_a_test_folder_a_fixed_part_is_held_out(tmp_path):
    for i in range(20):
        write(tmp_path, f"{'ab'[i % 2]}/{i:02}.png", i)
    train, evaluation = sources.open_train_and_eval(tmp_path, held_out_fraction=0.25)
    assert train.num_examples + evaluation.num_examples == 20 and 1 <= evaluation.num_examples <= 10
    assert sorted(train.names + evaluation.names) == sorted(sources.from_folder(tmp_path).names)
    as_files = sources.open_train_and_eval(tmp_path, held_out_fraction=0.25, max_cached_bytes=0)
    assert [source.names for source in as_files] == [train.names, evaluation.names]
    for source in (train, evaluation):
        assert all("ab"[label] == name[0] for label, name in zip(source.labels, source.names, strict=True))
        assert all(int(name[2:4]) == value for name, value in zip(source.names, source.images[:, 0, 0, 0], strict=True))


def names_of(source) -> list[str]:
    return [os.path.basename(name) for name in source.keys]


def test_several_folders_patterns_and_lists_are_one_set(tmp_path):
    for name in ("a/cat/1.png", "a/dog/deep/2.png", "b/cat/3.png", "c/4.png", "c/5.jpg", "c/6.png"):
        write(tmp_path, name, size=(8, 8 + int(name[-5])))
    both = sources.from_folder(f"{tmp_path}/a, {tmp_path}/b,{tmp_path}/a/cat")
    assert names_of(both) == ["1.png", "3.png", "2.png"] and both.class_names == ("cat", "dog")
    assert [os.path.relpath(path, tmp_path) for path in both.paths] == [
        "a/cat/1.png",
        "b/cat/3.png",
        "a/dog/deep/2.png",
    ]
    assert both.keys == ("cat/1.png", "cat/3.png", "dog/deep/2.png")
    assert names_of(sources.from_folder(f"{tmp_path}/c/*.png")) == ["4.png", "6.png"]
    of_folders = sources.from_folder(f"{tmp_path}/?/dog,{tmp_path}/[b]/*")
    assert names_of(of_folders) == ["2.png", "3.png"]
    with pytest.raises(FileNotFoundError, match=r"no file matches.*\*\.tif"):
        sources.from_folder(f"{tmp_path}/*.tif")
    write(tmp_path, "x, y/1.png")
    write(tmp_path, "x, y/2.png")
    assert sources.from_folder(f"{tmp_path}/x, y").num_examples == 2  # A path that exists is not cut at its comma.


@pytest.mark.parametrize(
    ("name", "text", "classes"),
    [
        ("list.txt", "sub/1.png\n\nsub/2.png\n3.png\n", None),
        ("list.csv", "3.png,cat\nsub/1.png,dog\nsub/2.png,cat\n", ["cat", "dog", "cat"]),
        ("list.csv", "label,path\ncat,3.png\n10,sub/1.png\n10,sub/2.png\n", ["cat", "10", "10"]),
        ("list.csv", "path\n3.png\nsub/1.png\nsub/2.png\n", None),
    ],
)
def test_lists_of_paths_are_relative_to_themselves(tmp_path, name, text, classes):
    for path in ("sub/1.png", "sub/2.png", "3.png", "unlisted.png"):
        write(tmp_path, path)
    (tmp_path / name).write_text(text)
    source = sources.from_folder(tmp_path / name)
    assert names_of(source) == ["3.png", "1.png", "2.png"]
    found = None if source.labels is None else [source.class_names[label] for label in source.labels]
    assert found == classes


def test_a_listed_file_that_is_not_there_is_a_broken_one(tmp_path):
    write(tmp_path, "1.png")
    (tmp_path / "list.txt").write_text("1.png\nlost.png\n")
    source = sources.from_folder(tmp_path / "list.txt")
    assert names_of(source) == ["1.png"]
    assert [os.path.basename(path) for path, _ in source.skipped] == ["lost.png"]


def test_a_listed_file_that_is_not_there_is_left_out_of_a_resumed_run_as_well(tmp_path):
    for width in (8, 9, 10):  # Images of several sizes are not kept, but checked once.
        write(tmp_path, f"{width}.png", size=(8, width))
    (tmp_path / "list.txt").write_text("8.png\nlost.png\n9.png\n10.png\n")
    found = []
    for _ in range(3):
        broken = BrokenFiles(tmp_path / "data_report.json")
        found.append(sources.from_folder(tmp_path / "list.txt", broken=broken).identity())
        broken.write()
    assert found[0]["images"] == 3 and found[0] == found[1] == found[2]


def test_links_and_loops_do_no_harm(tmp_path):
    write(tmp_path, "a/1.png")
    write(tmp_path, "b/2.png")
    write(tmp_path.parent, f"{tmp_path.name}_elsewhere/3.png")
    (tmp_path / "0_again").symlink_to(tmp_path / "b")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to(tmp_path.parent / f"{tmp_path.name}_elsewhere")
    source = sources.from_folder(tmp_path)
    assert source.names == ("a/1.png", "b/2.png", "c/3.png")
    assert source.class_names == ("a", "b", "c")


def test_an_old_example_never_changes_sides(tmp_path):
    for i in range(40):
        write(tmp_path, f"{i:02}.png")
    _, before = sources.holdout(sources.from_folder(tmp_path), 0.3)
    for i in range(40):
        write(tmp_path, f"new/{i:02}.png")
    train, after = sources.holdout(sources.from_folder(tmp_path), 0.3)
    assert {name for name in after.names if "new" not in name} == set(before.names)
    assert any("new" in name for name in after.names)
    as_list = tmp_path / "list.txt"
    as_list.write_text("\n".join([*train.names, *after.names]))
    assert sorted(sources.holdout(sources.from_folder(as_list), 0.3)[1].names) == sorted(after.names)

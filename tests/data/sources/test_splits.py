"""The parts of a data set, told by the names of folders: as public data sets and people's own have them."""

import os

import pytest
from layouts import lay_out

from tf_simclr.data import sources
from tf_simclr.data.files import listing

pytestmark = pytest.mark.usefixtures("quick_decoder")

# Folders, and what they are: to train on, to test on (the best first), without labels.
LAYOUTS = {
    "imagenet": (["train/n1/a.jpg", "train/n2/a.jpg", "val/n1/a.jpg"], "train", ["val"], []),
    "in upper case": (["TRAIN/a/1.jpg", "TRAIN/b/1.jpg", "Test/a/1.jpg"], "TRAIN", ["Test"], []),
    "test before val": (["train/a/1.jpg", "train/b/1.jpg", "valid/a/1.jpg", "test/a/1.jpg"], "train",
                        ["test", "valid"], []),
    "other words": (["Training/a/1.jpg", "Training/b/1.jpg", "validation/a/1.jpg", "dev.txt"], "Training",
                    ["validation"], []),
    "sets": (["trainset/a/1.jpg", "trainset/b/1.jpg", "test_set/a/1.jpg"], "trainset", ["test_set"], []),
    "years": (["train2017/1.jpg", "val2017/a/1.jpg", "val2017/b/1.jpg", "annotations/x.json"], "train2017",
              ["val2017"], []),
    "nested in itself": (["training_set/training_set/a/1.jpg", "test_set/test_set/a/1.jpg",
                          "test_set/test_set/b/1.jpg"],
                         "training_set/training_set", ["test_set/test_set"], []),
    "intel scenes": (["seg_train/seg_train/a/1.jpg", "seg_train/seg_train/b/1.jpg",
                      "seg_test/seg_test/a/1.jpg", "seg_pred/seg_pred/1.jpg"],
                     "seg_train/seg_train", ["seg_test/seg_test"], ["seg_pred/seg_pred"]),
    "chest radiographs": (["chest_xray/train/a/1.jpg", "chest_xray/train/b/1.jpg", "chest_xray/val/a/1.jpg",
                           "chest_xray/test/a/1.jpg", "__MACOSX/chest_xray/1.jpg"],
                          "chest_xray/train", ["chest_xray/test", "chest_xray/val"], []),
    "hugging face": (["data/train/a/1.jpg", "data/train/b/1.jpg", "data/eval/a/1.jpg", "README.md"], "data/train",
                     ["data/eval"], []),
    "stl": (["train/a/1.png", "train/b/1.png", "test/a/1.png", "unlabeled/1.png"], "train", ["test"], ["unlabeled"]),
    "tiny imagenet": (["train/n1/images/1.jpg", "train/n2/images/1.jpg", "val/images/1.jpg", "test/images/1.jpg"],
                      "train", [], ["test", "val"]),
    "a test part without labels": (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "test/1.jpg"], "train",
                                   ["val"], ["test"]),
    "a test part of one unknown class": (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "test/unknown/1.jpg"],
                                         "train", ["val"], ["test"]),
    "labels only to test on": (["train/1.jpg", "test/a/1.jpg", "test/b/1.jpg"], "train", ["test"], []),
    "folders of the system": (["train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "$RECYCLE.BIN/1.jpg",
                               "@eaDir/1.jpg", "lost+found/1.jpg", "System Volume Information/1.jpg",
                               ".ipynb_checkpoints/1.jpg"],
                              "train", ["test"], []),
    "an empty part": (["train/a/1.jpg", "test/readme.txt"], "train", [], []),
    "only train": (["train/a/1.jpg"], "train", [], []),
    "a class of this name": (["train/1.jpg", "plane/1.jpg", "car/1.jpg"], ".", [], []),
    "classes of like names": (["train_station/1.jpg", "art_gallery/1.jpg", "a/1.jpg", "b/1.jpg", "c/1.jpg"], ".", [],
                              []),
    "yolo": (["train/images/1.jpg", "train/labels/1.txt", "valid/images/1.jpg", "test/images/1.jpg"], "train", [],
             ["test", "valid"]),
    "to train on two parts": (["trainval/a/1.jpg", "trainval/b/1.jpg", "test/a/1.jpg"], "trainval", ["test"], []),
    "in two words": (["train_val/a/1.jpg", "train_val/b/1.jpg", "test/a/1.jpg"], "train_val", ["test"], []),
    "decathlon": (["imagesTr/1.jpg", "imagesTs/1.jpg"], "imagesTr", [], ["imagesTs"]),
    "two letters": (["tr/a/1.jpg", "tr/b/1.jpg", "ts/a/1.jpg"], "tr", ["ts"], []),
    "retrieval": (["train/a/1.jpg", "train/b/1.jpg", "query/a/1.jpg", "gallery/a/1.jpg"], "train",
                  ["query", "gallery"], []),
    "learn": (["learn/a/1.jpg", "learn/b/1.jpg", "test/a/1.jpg"], "learn", ["test"], []),
    "an empty part beside classes": (["train/1.jpg", "plane/1.jpg", "test/x.txt"], ".", [], []),
    "domains": (["photo/cat/1.jpg", "sketch/cat/1.jpg"], ".", [], []),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_parts_are_found(tmp_path, name):
    places, *expected = LAYOUTS[name]
    found = sources.split_folders(lay_out(tmp_path, *places))
    train, evaluation, unlabelled = found
    assert [
        os.path.relpath(train, tmp_path),
        [os.path.relpath(part, tmp_path) for part in evaluation],
        [os.path.relpath(part, tmp_path) for part in unlabelled],
    ] == expected


@pytest.mark.parametrize(
    ("places", "named"),
    [
        (["train/a/1.jpg", "test/a/1.jpg", "extra/a/1.jpg"], "extra, test, train"),
        (["train/1.jpg", "Training/1.jpg", "test/1.jpg"], "Training, test, train"),
        (["trainA/1.jpg", "trainB/1.jpg", "testA/1.jpg", "testB/1.jpg"], "testA, testB, trainA, trainB"),
        (["test/a/1.jpg", "val/a/1.jpg"], "test, val"),
        (["train_cleaned/1.jpg", "test_raw/1.jpg"], "test_raw, train_cleaned"),
        (["train_cleaned/1.jpg", "test/1.jpg", "a/1.jpg", "b/1.jpg", "c/1.jpg"], "a, b, c, test, train_cleaned"),
        (["my_train/a/1.jpg", "test/a/1.jpg"], "my_train, test"),
        (["train/a/1.jpg", "test_raw/a/1.jpg"], "test_raw, train"),
        (["x/train/1.jpg", "x/val/1.jpg", "x/more/1.jpg"], "more, train, val"),
    ],
)
def test_what_is_almost_a_split_is_refused_with_its_folders(tmp_path, places, named):
    lay_out(tmp_path, *places)
    with pytest.raises(ValueError, match=rf"--data_dir=.* --eval_data_dir=.*\*'\. Received: {named} in '{tmp_path}"):
        sources.open_train_and_eval(tmp_path)
    assert len(listing.list_images(f"{tmp_path}/*").keys) == len(places)  # the way out


def test_images_without_labels_are_trained_on_and_val_serves(tmp_path):
    lay_out(tmp_path, "train/a/.png*2", "train/b/.png*2", "test/.png*3", "val/a/.png*1", "val/b/.png*1")
    train, test = sources.open_train_and_eval(tmp_path)
    assert train.class_names == test.class_names == ("a", "b")
    assert train.labels.tolist() == [0, 0, 1, 1, -1, -1, -1] and train.names[-1] == "test/2.png"
    assert test.labels.tolist() == [0, 1]


def test_without_labels_nothing_is_held_out(tmp_path):
    lay_out(tmp_path, ".png*9")
    train, test = sources.open_train_and_eval(tmp_path)
    assert train is test and train.num_examples == 9

"""Parquet files as a source: columns, labels, broken rows, order, a held-out part."""

import os

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow as tf

from tf_simclr.augment import Augmentation
from tf_simclr.data import sources
from tf_simclr.data.batches import train_dataset
from tf_simclr.data.files.broken import BrokenFiles

COUNT = 18


def encoded(i):
    pixels = np.full([10 + i, 12, 3], i, np.uint8)
    return (tf.io.encode_png if i % 2 else tf.io.encode_jpeg)(pixels).numpy()


def write(folder, *, label="label", image="image", as_struct=False, spoiled=None):
    """Two files of COUNT / 2 rows, in row groups of four."""
    images = [(spoiled or {}).get(i, encoded(i)) for i in range(COUNT)]
    if as_struct:
        images = [{"bytes": content, "path": None} for content in images]
    for part in range(2):
        rows = slice(part * COUNT // 2, (part + 1) * COUNT // 2)
        columns = {image: images[rows], "id": list(range(COUNT))[rows]}
        if label is not None:
            columns[label] = [i + 100 for i in range(COUNT)][rows]
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"train-{part}.parquet", row_group_size=4)
    return f"{folder}/train-*.parquet"


def labels_of(source, start, total=8):
    options = {"global_batch_size": 4, "seed": 0, "augmentation": Augmentation(8)}
    found = []
    for batch, labels in train_dataset(source, start_step=start, total_steps=total, **options).as_numpy_iterator():
        assert np.abs(batch["images"].astype(int) - labels[:, None, None, None, None]).max() <= 1
        found.append(labels.tolist())
    return found


@pytest.mark.usefixtures("quick_decoder")
@pytest.mark.parametrize("as_struct", [pytest.param(False, marks=pytest.mark.slow), True])
def test_all_rows_are_read_once_an_epoch_and_a_run_resumes(tmp_path, as_struct):
    source = sources.open_images(write(tmp_path, as_struct=as_struct))
    assert source.num_examples == COUNT and source.class_names == tuple(str(i + 100) for i in range(COUNT))
    whole = labels_of(source, 0)
    epochs = np.reshape(whole, [2, 16])
    assert all(len(set(epoch)) == 16 for epoch in epochs) and list(epochs[0]) != list(epochs[1])
    assert labels_of(source, 3) == whole[3:]
    numbers = [int(label) for *_, label in source.eval_examples().as_numpy_iterator()]
    assert numbers == list(range(COUNT))


@pytest.mark.usefixtures("quick_decoder")
def test_columns_are_found_or_named(tmp_path):
    assert sources.open_images(write(tmp_path, image="jpeg", label=None)).labels is None
    place = write(tmp_path, image="photo", label="kind")
    with pytest.raises(ValueError, match=r"data.image_feature=NAME, one of photo, id, kind\. Received: None"):
        sources.open_images(place)
    named = sources.open_images(place, image_feature="photo", label_feature="kind")
    np.testing.assert_array_equal(named.labels, np.arange(COUNT))


@pytest.mark.usefixtures("quick_decoder")
@pytest.mark.parametrize("unknown", [None, float("nan"), "", "<NA>"])
def test_rows_without_a_label_take_none_from_the_others(tmp_path, unknown):
    known = [3, 20, 20] if not isinstance(unknown, str) else ["3", "20", "20"]
    columns = {"image": [encoded(i) for i in range(4)], "label": [known[0], unknown, *known[1:]]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "some.parquet")
    source = sources.open_images(tmp_path / "some.parquet")
    assert source.class_names == ("3", "20") and source.labels.tolist() == [0, -1, 1, 1]


def test_broken_rows_are_skipped_named_and_move_no_other(tmp_path):
    place = write(tmp_path, spoiled={3: b"not an image", 11: None})
    broken = BrokenFiles()
    source = sources.open_images(place, broken=broken)
    assert [source.class_names[label] for label in source.labels] == [
        str(i + 100) for i in range(COUNT) if i not in (3, 11)
    ]
    assert broken.reason(f"{tmp_path}/train-0.parquet#record=3").startswith("not a JPEG")
    assert broken.reason(f"{tmp_path}/train-1.parquet#record=2") == "no bytes in the column image"
    train, held_out = sources.holdout(source, 0.3)
    assert set(train.keys) | set(held_out.keys) == set(source.keys) and held_out.num_examples > 0


def test_what_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"no Parquet file")
    with pytest.raises(ValueError, match="The Parquet file cannot be read .*broken.parquet"):
        sources.open_images(tmp_path / "broken.parquet")
    with pytest.raises(FileNotFoundError, match="missing"):
        sources.open_images(tmp_path / "missing.parquet")
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="cannot be mixed"):
        sources.open_images(f"{write(tmp_path)},{tmp_path}/images")
    with pytest.raises(ValueError, match="leave data.service out"):
        sources.open_images(write(tmp_path)).train_examples(None, reports=False)


@pytest.mark.usefixtures("quick_decoder")
def test_files_with_and_without_labels_and_names_of_any_bytes(tmp_path):
    names = [os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9-%d.parquet" % i) for i in range(2)]
    for order in ((0, 1), (1, 0)):
        for place, is_labelled in zip(names, order, strict=True):
            columns = {"image": [encoded(i) for i in range(3)]} | ({"label": [7, 8, 9]} if is_labelled else {})
            with open(os.fsencode(place), "wb") as file:
                pyarrow.parquet.write_table(pyarrow.table(columns), file)
        source = sources.open_images(",".join(names))
        assert source.labels.tolist() == sum(([0, 1, 2] if is_labelled else [-1] * 3 for is_labelled in order), [])
        assert len(list(source.eval_examples())) == 6
    pyarrow.parquet.write_table(pyarrow.table({"label": [1]}), tmp_path / "none.parquet")
    with pytest.raises(ValueError, match=r"must have the column image of images\. Received: .*none\.parquet"):
        sources.open_images(f"{names[0]},{tmp_path}/none.parquet")

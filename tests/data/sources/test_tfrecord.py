"""TFRecord files as a source: names of features, broken records, order, a held-out part."""

import os

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.augment import Augmentation
from tf_simclr.data import sources
from tf_simclr.data.batches import train_dataset
from tf_simclr.data.files.broken import BrokenFiles

COUNT = 18


def example(i: int, names: tuple[str, str | None]) -> bytes:
    pixels = np.full([10 + i, 12, 3], i, np.uint8)
    encoded = (tf.io.encode_png if i % 2 else tf.io.encode_jpeg)(pixels).numpy()
    features = {names[0]: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))}
    if names[1] is not None:
        features[names[1]] = tf.train.Feature(int64_list=tf.train.Int64List(value=[i + 100]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write(folder, names=("image/encoded", "image/class/label"), broken=()):
    """Two files of COUNT / 2 records."""
    for part in range(2):
        with tf.io.TFRecordWriter(str(folder / f"train-{part:05}-of-00002")) as writer:
            for i in range(part * COUNT // 2, (part + 1) * COUNT // 2):
                record = example(i, names)
                writer.write(record.replace(b"PNG", b"PNQ") if i in broken else record)
    return f"{folder}/train-*-of-00002"


@pytest.mark.usefixtures("quick_decoder")
def test_all_records_are_read_once_an_epoch_and_a_run_resumes(tmp_path):
    source = sources.open_images(write(tmp_path))
    assert isinstance(source, sources.TfrecordSource) and source.num_examples == COUNT
    assert source.class_names == tuple(str(i + 100) for i in range(COUNT))

    def run(start: int) -> list:
        options = {"global_batch_size": 4, "seed": 0, "augmentation": Augmentation(8)}
        return list(train_dataset(source, start_step=start, total_steps=8, **options).as_numpy_iterator())

    whole = run(0)
    for batch, labels in whole:
        assert np.abs(batch["images"].astype(int) - labels[:, None, None, None, None]).max() <= 1
    epochs = np.array([labels for _, labels in whole]).reshape(2, 16)
    assert all(len(set(epoch)) == 16 for epoch in epochs) and list(epochs[0]) != list(epochs[1])
    for (_, labels), (_, expected) in zip(run(3), whole[3:], strict=True):
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.usefixtures("quick_decoder")
def test_common_names_are_found_and_others_are_named(tmp_path):
    for names in (("image", "label"), ("jpeg", None)):
        source = sources.open_images(write(tmp_path, names))
        assert (source.labels is None) == (names[1] is None)
    write(tmp_path, ("photo", "kind"))
    with pytest.raises(ValueError, match=r"data.image_feature=NAME, one of kind, photo\. Received: None"):
        sources.open_images(f"{tmp_path}/train-*")
    named = sources.open_images(f"{tmp_path}/train-*", image_feature="photo", label_feature="kind")
    np.testing.assert_array_equal(named.labels, np.arange(COUNT))


@pytest.mark.usefixtures("quick_decoder")
def test_records_without_a_label_take_none_from_the_others(tmp_path):
    """Without the feature, and with the label -1, which marks a part without labels."""
    with tf.io.TFRecordWriter(str(tmp_path / "some.tfrecord")) as writer:
        for i in range(5):
            record = tf.train.Example.FromString(example(i, ("image", "label")))
            if i == 1:
                del record.features.feature["label"]
            elif i == 3:
                record.features.feature["label"].int64_list.value[0] = -1
            writer.write(record.SerializeToString())
    source = sources.open_images(tmp_path / "some.tfrecord")
    assert source.class_names == ("100", "102", "104") and source.labels.tolist() == [0, -1, 1, -1, 2]
    assert [int(label) for *_, label in source.records()] == [0, -1, 1, -1, 2]
    assert source.in_memory().labels.tolist() == source.labels.tolist()


def test_broken_records_and_a_cut_file_are_skipped_and_counted(tmp_path):
    place = write(tmp_path, broken=(3, 11))
    second = tmp_path / "train-00001-of-00002"
    second.write_bytes(second.read_bytes()[:-20])
    broken = BrokenFiles()
    source = sources.open_images(place, broken=broken)
    kept = [i for i in range(COUNT - 1) if i not in (3, 11)]
    assert [source.class_names[label] for label in source.labels] == [str(i + 100) for i in kept]
    assert (len(broken), broken.num_files) == (3, COUNT - 1)
    assert broken.reason(f"{tmp_path}/train-00000-of-00002#record=3").startswith("not a JPEG")
    assert "truncated" in broken.reason(str(second))
    numbers, names, _, labels = zip(*source.records().as_numpy_iterator(), strict=True)
    assert list(numbers) == kept and tuple(name.decode() for name in names) == source.names
    np.testing.assert_array_equal(labels, source.labels)


@pytest.mark.usefixtures("quick_decoder")
def test_a_part_of_the_records_is_held_out_and_mixing_is_an_error(tmp_path):
    place = write(tmp_path)
    train, held_out = sources.holdout(sources.open_images(place), 0.3)
    labels = [[int(label) for _, _, _, label in source.records()] for source in (train, held_out)]
    assert sorted(labels[0] + labels[1]) == list(range(COUNT)) and labels[1]
    in_folder = sources.open_images(f"{place},{tmp_path}")
    assert in_folder.keys == sources.open_images(place).keys
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="cannot be mixed"):
        sources.open_images(f"{place},{tmp_path}/images")


@pytest.mark.usefixtures("quick_decoder")
def test_a_first_record_without_label_or_image_says_nothing_of_the_others(tmp_path):
    for missing, expected in (("label", [-1, 0, 1, 2]), ("image", [0, 1, 2])):
        with tf.io.TFRecordWriter(str(tmp_path / "some.tfrecord")) as writer:
            for i in range(4):
                record = tf.train.Example.FromString(example(i, ("image", "label")))
                if i == 0:
                    del record.features.feature[missing]
                writer.write(record.SerializeToString())
        source = sources.open_images(tmp_path / "some.tfrecord")
        assert source.labels.tolist() == expected
        assert [len(record) for record in source.unlabelled().records()] == [3] * len(expected)


def test_what_are_no_records_of_examples_is_refused_in_a_sentence(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord.gz"), "GZIP") as writer:
        writer.write(example(1, ("image", "label")))
    with pytest.raises(ValueError, match=r"have no records \(.*is it compressed\?\)\. Received: .*a\.tfrecord\.gz"):
        sources.open_images(tmp_path / "a.tfrecord.gz")
    with tf.io.TFRecordWriter(str(tmp_path / "b.tfrecord")) as writer:
        writer.write(b"\xff\xd8\xff no example")
    with pytest.raises(ValueError, match=r"must be of tf\.train\.Example\. Received: .*b\.tfrecord"):
        sources.open_images(tmp_path / "b.tfrecord")


@pytest.mark.usefixtures("quick_decoder")
def test_names_of_any_bytes_and_folders_with_the_name_of_a_file(tmp_path):
    write(tmp_path)
    place = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tfrecord")
    os.rename(tmp_path / "train-00000-of-00002", place)
    assert len(list(sources.open_images(place).eval_examples())) == COUNT // 2
    folder = tmp_path / "flowers-00001-of-00004"
    (folder / "rose").mkdir(parents=True)
    (folder / "rose" / "1.png").write_bytes(tf.io.encode_png(np.zeros([9, 9, 3], np.uint8)).numpy())
    assert sources.open_images(folder).names == ("rose/1.png",)


@pytest.mark.usefixtures("quick_decoder")
def test_records_in_memory_count_as_broken_as_those_in_files(tmp_path):
    place, broken = write(tmp_path), BrokenFiles()
    source = sources.open_images(place, broken=broken)
    second = tmp_path / "train-00001-of-00002"
    second.write_bytes(second.read_bytes()[:-20])
    kept = source.in_memory()
    assert kept.broken is broken and kept.num_examples == COUNT - 1
    assert broken.paths() == (f"{second}#record=8",)


@pytest.mark.usefixtures("quick_decoder")
def test_records_come_from_memory_in_the_same_order_with_the_same_views(tmp_path):
    source = sources.open_images(write(tmp_path))
    options = {"global_batch_size": 4, "seed": 0, "augmentation": Augmentation(8), "total_steps": 7}
    for one in (source, source.subset(np.array([1, 2, 3, 9, 10, 16]))):
        runs = [list(train_dataset(each, **options).as_numpy_iterator()) for each in (one, one.in_memory())]
        for (batch, labels), (expected, expected_labels) in zip(*runs, strict=True):
            for name, column in batch.items():
                np.testing.assert_array_equal(column, expected[name], err_msg=name)
            np.testing.assert_array_equal(labels, expected_labels)
    assert source.in_memory().sample_encoded(3) == source.sample_encoded(3)

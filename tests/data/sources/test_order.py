"""What epochs, lanes and splits are made of, whatever the source."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.data import sources
from tf_simclr.data.sources.order import Steps

COUNT = 11
BATCH = 3
EPOCHS = 8


def encoded(i: int) -> bytes:
    return tf.io.encode_png(np.full([2, 2, 3], i, np.uint8)).numpy()


def open_source(kind: str, folder) -> sources.Source:
    if kind == "array":
        return sources.ArraySource(np.zeros([COUNT, 2, 2, 3], np.uint8), np.arange(COUNT))
    contents = [encoded(i) for i in range(COUNT)]
    if kind == "files":
        names = tuple(map(str, range(COUNT)))
        return sources.FileSource("", names, np.arange(COUNT), contents=np.array(contents, object))
    for part in range(3):
        with tf.io.TFRecordWriter(f"{folder}/{part}.tfrecord") as writer:
            for i in range(part, COUNT, 3):
                image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[contents[i]]))
                label = tf.train.Feature(int64_list=tf.train.Int64List(value=[i]))
                features = tf.train.Features(feature={"image": image, "label": label})
                writer.write(tf.train.Example(features=features).SerializeToString())
    return sources.open_images(folder)


def read(source: sources.Source, lane: tuple[int, int]) -> np.ndarray:
    """The labels of the batches of a lane, [n, BATCH]."""
    per_epoch = COUNT // BATCH
    steps = Steps(5, BATCH, per_epoch, 0, EPOCHS * per_epoch, lane)
    examples = list(source.train_examples(steps).as_numpy_iterator())
    if source.has_one_size:
        return np.array([labels for _, _, labels in examples])
    for i, ((epoch, _), image, label) in enumerate(examples):
        assert (image == label).all()
        step = lane[0] + i // BATCH * lane[1]
        assert epoch == step // per_epoch
    return np.array([label for _, _, label in examples]).reshape(-1, BATCH)


@pytest.mark.parametrize(
    "kind", ["array", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("files", "records"))]
)
def test_every_example_comes_once_an_epoch_and_the_tail_in_others(tmp_path, kind):
    source = open_source(kind, tmp_path)
    labels = read(source, (0, 1))
    epochs = labels.reshape(EPOCHS, -1)
    assert all(len(set(epoch)) == COUNT // BATCH * BATCH for epoch in epochs)
    tails = [set(range(COUNT)) - set(epoch) for epoch in epochs]
    assert len(set(map(frozenset, tails))) > EPOCHS / 2
    assert not set.intersection(*tails)
    for count in (2, 3) if kind != "array" else ():
        for index in range(count):
            np.testing.assert_array_equal(read(source, (index, count)), labels[index::count])


def test_files_that_are_added_move_no_old_one_between_the_splits():
    rng = np.random.default_rng(0)
    names = [f"{rng.integers(10)}/{i}.png" for i in rng.permutation(3000)]
    before = sources.FileSource("", tuple(names[:1000]))
    _, held_out = sources.holdout(before, 0.2)
    assert 120 < held_out.num_examples < 280
    for count in (1500, 3000):
        after = dataclasses.replace(before, names=tuple(sorted(names[:count])), keys=())
        assert set(sources.holdout(after, 0.2)[1].names) & set(names[:1000]) == set(held_out.names)

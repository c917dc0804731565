"""Image files: which of them an evaluation leaves out, and when it stops."""

import dataclasses
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.data import sources
from tf_simclr.data.sources import lost_files


def make_source(folder, count, broken):
    """Files of which some are no images."""
    image = tf.io.encode_png(np.zeros([2, 2, 3], np.uint8)).numpy()
    for index in range(count):
        (folder / f"{index}.png").write_bytes(b"no image" if index in broken else image)
    return sources.FileSource(str(folder), tuple(f"{i}.png" for i in range(count)), np.arange(count) % 2)


def test_broken_files_are_left_out_and_named_wherever_they_are(tmp_path):
    broken = {0, 1, 4, 8}
    source = make_source(tmp_path, 9, broken)
    for _ in range(2):  # Known or not.
        found = [(int(position), int(label)) for position, _, _, label in source.eval_examples()]
        assert found == [(i, i % 2) for i in range(9) if i not in broken]
        assert {path.rpartition("/")[2] for path in source.broken.paths()} == {f"{i}.png" for i in broken}
    assert "not a JPEG" in source.broken.reason(str(tmp_path / "8.png"))
    again = make_source(tmp_path, 9, broken)
    assert [int(position) for position, *_ in again.eval_examples(5)] == [5, 6, 7]
    assert again.broken.paths() == (str(tmp_path / "8.png"),)


def test_a_lost_disk_stops_an_evaluation(tmp_path, monkeypatch):
    monkeypatch.setattr(lost_files, "MAX_IN_A_ROW", 4)
    assert len(list(make_source(tmp_path, 9, {1, 2, 3, 5}).eval_examples())) == 5
    with pytest.raises(
        tf.errors.OpError, match=r"Fewer than 4 files in a row .* Received: 4, the first of them .*2.png"
    ):
        list(make_source(tmp_path, 6, {2, 3, 4, 5}).eval_examples())
    source = make_source(tmp_path, 6, {2, 3, 4, 5})
    for _ in range(2):  # They are not remembered as broken: the disk may come back.
        with pytest.raises(tf.errors.OpError, match="Fewer than 4 files"):
            list(source.eval_examples())


def test_many_files_are_read_at_once_if_they_are_small_and_cores_few(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert make_source(tmp_path, 40, set()).calls_at_once == tf.data.AUTOTUNE
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert make_source(tmp_path, 40, set()).in_memory().calls_at_once == tf.data.AUTOTUNE
    assert make_source(tmp_path, 40, set()).calls_at_once == 16
    large = make_source(tmp_path, 40, set())
    (tmp_path / "36.png").write_bytes(bytes(1 << 17))
    assert large.calls_at_once == tf.data.AUTOTUNE


def test_another_content_has_another_fingerprint_and_a_copy_has_the_same(tmp_path):
    source = make_source(tmp_path, 3, set())
    before = source.fingerprint()
    assert before.keys() > source.identity().keys()
    shutil.copytree(tmp_path, tmp_path / "moved", copy_function=shutil.copy2)
    assert dataclasses.replace(source, folder=str(tmp_path / "moved")).fingerprint() == before
    os.utime(tmp_path / "1.png", (1, 1))  # Another picture of the same size.
    assert source.fingerprint() != before and source.identity().items() <= before.items()
    assert dataclasses.replace(source, max_pixels=9).fingerprint() != source.fingerprint()
    (tmp_path / "2.png").unlink()
    assert source.fingerprint()["images"] == 3


def test_another_content_of_a_record_file_has_another_fingerprint(tmp_path):
    path = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        image = tf.io.encode_png(np.zeros([2, 2, 3], np.uint8)).numpy()
        feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
        writer.write(tf.train.Example(features=tf.train.Features(feature={"image": feature})).SerializeToString())
    source = sources.open_images(path)
    before = source.fingerprint()
    os.utime(path, (1, 1))
    assert source.fingerprint() != before

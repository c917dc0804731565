"""What the writers of metrics leave in a run's folder."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr import files
from tf_simclr.runs.writers import MetricsWriter, cut_after, write_result


def test_a_line_and_scalars_for_every_step(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "epoch": 0.5, "loss": 3.0}\n')  # of the run so far
    writer = MetricsWriter(tmp_path, "train")
    writer.write("metrics.jsonl", 2, 1.0, {"loss": 0.1, "accuracy": 1.0})
    writer.write("speed.jsonl", 3, 1.5, {"images_per_second": float("inf")})
    writer.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == (
        b'{"step": 1, "epoch": 0.5, "loss": 3.0}\n{"step": 2, "epoch": 1.0, "loss": 0.1, "accuracy": 1.0}\n'
    )
    assert (tmp_path / "speed.jsonl").read_bytes() == b'{"step": 3, "epoch": 1.5, "images_per_second": Infinity}\n'
    (events,) = tmp_path.glob("events.*")
    records = map(tf.compat.v1.Event.FromString, tf.data.TFRecordDataset(str(events)).as_numpy_iterator())
    scalars = {(value.tag, event.step): float(tf.make_ndarray(value.tensor)) for event in records
               for value in event.summary.value}  # fmt: skip
    expected = {("train/loss", 2): 0.1, ("train/accuracy", 2): 1.0, ("train/images_per_second", 3): float("inf")}
    assert {key: round(value, 6) for key, value in scalars.items()} == expected


def test_a_metrics_file_is_cut_where_the_checkpoint_was_taken(tmp_path):
    path = tmp_path / "metrics.jsonl"
    cut_after(path, 6)
    assert not path.exists()
    lines = [json.dumps({"step": step}) for step in (3, 6, 9)]
    broken = b'\n\xff\0\n{"step": 5\n{"step": 12, "lo'  # after a kill, or a full disk
    path.write_bytes("\n".join(lines).encode() + broken)
    cut_after(path, 6)
    assert path.read_text() == '{"step": 3}\n{"step": 6}\n'


def test_lists_stay_in_the_file_and_distributions_become_histograms(tmp_path):
    writer = MetricsWriter(tmp_path, "health")
    writer.write("health.jsonl", 4, 0.5, {"counts": [1, 2], "similarity": 3.0})
    writer.write_histogram("similarity", 4, np.array([-0.5, 0.5, 0.5]))
    writer.close()
    with (tmp_path / "health.jsonl").open("a") as file:
        file.write('{"step": 5, "ran')  # as a kill leaves it
    assert files.read_metrics(tmp_path / "health.jsonl") == [
        {"step": 4, "epoch": 0.5, "counts": [1, 2], "similarity": 3.0}
    ]
    assert files.read_metrics(tmp_path / "metrics.jsonl") == []
    (events,) = tmp_path.glob("events.*")
    records = map(tf.compat.v1.Event.FromString, tf.data.TFRecordDataset(str(events)).as_numpy_iterator())
    written = [value for event in records for value in event.summary.value]
    # TensorBoard shows a tag as one thing only.
    plugins = {value.tag: value.metadata.plugin_data.plugin_name for value in written}
    assert plugins == {"health/similarity": "scalars", "health/similarity_histogram": "histograms"}
    assert len(written) == 2
    buckets = tf.make_ndarray(written[1].tensor)
    assert buckets[0, 0] == -0.5 and buckets[-1, 1] == 0.5 and buckets[:, 2].sum() == 3


def test_a_full_disk_is_not_taken_for_too_little_memory(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    writer = MetricsWriter(tmp_path, "train")
    monkeypatch.setattr(tf.summary, "scalar", fail)
    monkeypatch.setattr(tf.summary, "histogram", fail)
    with pytest.raises(OSError, match="events of TensorBoard: No space left"):
        writer.write("metrics.jsonl", 1, 0.0, {"loss": 1.0})
    with pytest.raises(OSError, match="events of TensorBoard: No space left"):
        writer.write_histogram("loss", 1, np.ones([2]))

    def lose_a_worker(*_, **__):
        raise tf.errors.UnavailableError(None, None, "gone")

    monkeypatch.setattr(tf.summary, "scalar", lose_a_worker)
    with pytest.raises(tf.errors.UnavailableError, match="gone"):
        writer.write("metrics.jsonl", 1, 0.0, {"loss": 1.0})
    writer.close()


def test_a_result_replaces_that_of_the_same_step_in_a_folder_that_tensorflow_misreads(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    for step, accuracy in ((5, 0.25), (6, 0.5), (5, 0.75)):
        write_result(folder, step, {"eval/knn_top_1_accuracy": accuracy})
    events = sorted(folder.glob("events.*.result_*"), key=lambda path: path.name.rpartition("_")[2])
    assert [path.name.rpartition("_")[2] for path in events] == ["5", "6"]
    parse = tf.compat.v1.Event.FromString
    content = [parse(record) for record in tf.compat.v1.io.tf_record_iterator(os.fsencode(events[0]))]
    assert [float(tf.make_ndarray(value.tensor)) for event in content for value in event.summary.value] == [0.75]

"""Image files: which of them an evaluation leaves out, and when it stops."""

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.data import sources
from tf_simclr.data.sources import files


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
    monkeypatch.setattr(files, "_MAX_BROKEN_IN_A_ROW", 4)
    assert len(list(make_source(tmp_path, 9, {1, 2, 3, 5}).eval_examples())) == 5
    with pytest.raises(
        tf.errors.OpError, match=r"Fewer than 4 files in a row .* Received: 4, the first of them .*2.png"
    ):
        list(make_source(tmp_path, 6, {2, 3, 4, 5}).eval_examples())

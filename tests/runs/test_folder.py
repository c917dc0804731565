"""The folder of a run: which places are refused."""

import pytest

from tf_simclr.runs.folder import make_folder
from tf_simclr.settings import RunConfig, override


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_dir": "s3://b/run"}, "model_dir must be a folder on this machine: .* Received: s3://b/run"),
        ({"model_dir": "gs://b/run"}, "model_dir must be a folder on this machine"),
        (
            {"data.data_dir": "d, s3://b/x"},
            "data.data_dir must be on this machine.*tensorflow-io.* Received: s3://b/x$",
        ),
        ({"data.eval_data_dir": "hdfs://n/x"}, "data.eval_data_dir must be .*hdfs:// takes the package tensorflow-io"),
        ({"checkpoint": "http://a/b"}, "checkpoint must be .*http:// takes"),
        ({"model_dir": "/".join(["a" * 200] * 20)}, r"model_dir must be a writable folder \(File name too long\)"),
    ],
)
def test_places_that_cannot_be_used_are_refused_in_a_sentence(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        make_folder(override(RunConfig(), changes))
    assert not list(tmp_path.iterdir())

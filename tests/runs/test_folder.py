"""The folder of a run: which places are refused."""

import pytest
from layouts import lay_out

from tf_simclr.runs.folder import make_folder, open_run
from tf_simclr.runs.saved_settings import settings_of_run
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_dir": "F"}, "must be another folder than --data_dir.* 'F' and 'F'"),
        ({"model_dir": "F/../F/", "mode": "check"}, "must be another folder than --data_dir"),
        ({"data.data_dir": "G,F", "model_dir": "F"}, "must be another folder than --data_dir.* 'F' and 'F'"),
        ({"data.data_dir": "F/*", "model_dir": "F"}, r"must be another folder than --data_dir.* 'F/\*' and 'F'"),
        ({"data.data_dir": "G", "data.eval_data_dir": "F", "model_dir": "F"}, "than --eval_data_dir.* 'F' and 'F'"),
        ({"model_dir": "F/a"}, "without images of yours.* 'F/a', which holds '.*1.png'"),
        ({"data.data_dir": "F/*", "model_dir": "F/b", "mode": "check"}, "without images of yours.* 'F/b'"),
        ({"data.data_dir": "G", "model_dir": "F/a"}, "without images of yours"),  # Later runs on F would miss them.
    ],
)
def test_folders_of_images_are_refused_and_stay_as_they_are(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(lay_out(tmp_path, "F/a/1.png", "F/b/c/1.png", "G/1.png"))
    before = sorted(tmp_path.rglob("*"))
    config = override(RunConfig(), {"mode": "train", "data.dataset": "folder", "data.data_dir": "F"} | changes)
    with pytest.raises(ValueError, match=message):
        make_folder(config)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("data_dir", "model_dir"),
    [("F", "F/runs"), ("F/a,G", "F"), ("F/a/*", "F"), ("F", "F/runs/old"), ("F", "F/runs/trained"), ("F", "new")],
)
def test_a_run_may_lie_among_images_and_above_them(tmp_path, monkeypatch, data_dir, model_dir):
    monkeypatch.chdir(lay_out(tmp_path, "F/a/1.png", "G/1.png", "F/runs/old/check_views.png"))
    lay_out(tmp_path / "F/runs/trained", "plot.png", "checkpoints/ckpt-1.index")  # The user's picture of a run.
    for run in ("old", "trained"):
        (tmp_path / "F/runs" / run / "data_report.json").write_text("{}")
    changes = {"mode": "train", "data.dataset": "folder", "data.data_dir": data_dir, "model_dir": model_dir}
    assert make_folder(override(RunConfig(), changes)).is_dir()


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(tmp_path):
    """It has drawn its views; where the images were open already, no list of broken files marks the folder."""
    folder = lay_out(tmp_path, "run/views.png") / "run"
    with open_run(RunConfig(mode="train", model_dir=str(folder))) as opened:
        assert opened == folder


def test_an_evaluation_leaves_the_settings_of_a_run_alone_that_trains_and_has_saved_nothing(tmp_path):
    training = RunConfig(mode="train", model_dir=str(tmp_path / "run"), seed=3)
    other = RunConfig(mode="eval", model_dir=str(tmp_path / "run"))
    with open_run(training) as folder:
        with pytest.raises(ValueError, match="is in use by process"), open_run(other):
            pass
        assert settings_of_run(folder) == training
    with open_run(other):
        assert settings_of_run(folder) == other  # Nobody trains there.

"""What is read of a run's folder, whole or not."""

import json

import pytest
import run_folders
from run_folders import Folder

from tf_simclr.report.folder import read_run
from tf_simclr.settings import RunConfig


def test_a_whole_folder_is_read_without_trouble(tmp_path):
    run = read_run(run_folders.make(tmp_path / "run"))
    assert not run.troubles
    assert run.settings.train.epochs == 20
    assert run.num_train_images == 5000
    assert run.class_names == [f"class {number}" for number in range(6)]
    assert [line["step"] for line in run.metrics] == list(range(10, 401, 10))
    assert run.confusions["linear"].sum() == run.result["eval/num_test_images"] == len(run.images)


def test_a_killed_run_keeps_its_whole_lines(tmp_path):
    run = read_run(run_folders.make(tmp_path / "run", Folder(killed=True, evaluated=False)))
    assert [line["step"] for line in run.metrics] == list(range(10, 191, 10))
    assert not run.has_accuracies and run.images is None and not run.troubles


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b'{"version": 2, "train": {"epochs"'),
        ("result.json", b"[]"),
        ("check.json", b"\xff"),
        ("images.json", b"{}"),
        ("features/confusion.npz", b"PK\x03\x04 no archive"),
        ("features/map.parquet", b"PAR1 no table PAR1"),
    ],
)
def test_a_broken_file_costs_no_other(tmp_path, name, content):
    folder = run_folders.make(tmp_path / "run")
    (folder / name).write_bytes(content)
    run = read_run(folder)
    assert [trouble.partition(" ")[0] for trouble in run.troubles] == [name]
    assert run.metrics and run.health


def test_settings_of_other_versions_are_said_and_kept_as_they_are(tmp_path):
    folder = run_folders.make(tmp_path / "run", Folder(older=True))
    run = read_run(folder)
    assert run.settings is None and run.config == {"model": {"resnet_depth": 18}}
    assert "another version of tf_simclr (1, not 2)" in run.troubles[0]
    (folder / "config.json").write_text(json.dumps({"version": 2, "train": {"no_such_setting": 1}}))
    run = read_run(folder)
    assert run.settings is None and "no_such_setting" in run.troubles[0]


def test_a_folder_of_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder of a run.*Received"):
        read_run(tmp_path)


def test_the_fixture_is_of_this_version(tmp_path):
    config = json.loads((run_folders.make(tmp_path / "run") / "config.json").read_text())
    assert set(RunConfig.__dataclass_fields__) | {"version"} == set(config)

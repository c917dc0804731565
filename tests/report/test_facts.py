"""What a report says of settings, progress and commands."""

import dataclasses
import json
import os
import shlex

import pytest
import run_folders
from command import parse
from run_folders import Folder

from tf_simclr.report import facts
from tf_simclr.report.folder import read_run
from tf_simclr.settings import RunConfig, override, to_dict


def run_with(folder, **changes):
    """A run's folder whose settings are the defaults but for these."""
    place = run_folders.make(folder)
    config = override(RunConfig(), {name.replace("__", "."): value for name, value in changes.items()})
    (place / "config.json").write_text(json.dumps(to_dict(config)))
    return read_run(place)


@pytest.mark.parametrize(
    "changes",
    [
        {"data__dataset": "folder", "data__data_dir": "/my photos,/it's more", "name": "two words"},
        {"data__dataset": "shapes", "train__steps": 7, "export__keep": None, "eval__protocols": ("knn", "finetune")},
        {
            "data__dataset": "cifar10",
            "model__sk_ratio": 0.0625,
            "model__hidden_norm": False,
            "export__formats": ("onnx",),
        },
        {
            "augmentation__view_size": 28,
            "optimizer__weight_decay": 1e-5,
            "mode": "train_then_eval",
            "model_dir": "runs/x",
        },
    ],
)
def test_the_command_gives_the_settings_of_the_run(tmp_path, changes):
    run = run_with(tmp_path / "run", **changes)
    command = next(one.text for one in facts.commands(run) if one.title.startswith("The same run again"))
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:2] == ["python", "run.py"]
    found = parse(*words[2:])
    assert found.model_dir == "NEW_FOLDER"
    assert dataclasses.replace(found, model_dir=run.settings.model_dir, mode=run.settings.mode) == run.settings


def test_changed_settings_are_those_that_are_not_at_their_defaults(tmp_path):
    run = run_with(tmp_path / "run", train__epochs=3, eval__compare_encoders=("a", "b"), data__max_pixels=100_000_000)
    found = {one.name: (one.value, one.default) for one in facts.changed_settings(run.settings)}
    assert found == {"train.epochs": ("3", "100"), "eval.compare_encoders": ("a,b", "empty")}


def test_progress_counts_against_the_steps_of_the_whole_run(tmp_path):
    trains = facts.progress(read_run(run_folders.make(tmp_path / "run", Folder(evaluated=False))))
    assert (trains.step, trains.steps) == (200, 5000 * 20 // 512 + 1)
    assert trains.written.endswith("UTC")
    evaluated = facts.progress(read_run(run_folders.make(tmp_path / "done")))
    assert evaluated.step == 400 and evaluated.is_finished
    again = facts.progress(run_with(tmp_path / "again", mode="eval", train__epochs=100))
    assert (again.step, again.is_finished) == (400, False)  # evaluated before its end
    older = facts.progress(read_run(run_folders.make(tmp_path / "older", Folder(older=True))))
    assert older.steps is None and older.is_finished


def test_the_subtitle_names_the_encoder_and_the_images(tmp_path):
    run = run_with(
        tmp_path / "a", data__dataset="folder", data__data_dir="/x/photos/,/y/more", model__width_multiplier=2
    )
    assert facts.subtitle(run) == "ResNet-50 (2×), pretrained without labels on 5,000 images of photos, more"
    run = run_with(tmp_path / "b", model__encoder="convnext_tiny", train_mode="supervised", data__dataset="cifar10")
    assert facts.subtitle(run) == "convnext_tiny, trained on labels on 5,000 images of cifar10"


def test_the_newest_export_is_loaded_and_served(tmp_path):
    folder = run_folders.make(tmp_path / "run")
    assert not any("Serve" in one.title for one in facts.commands(read_run(folder)))
    for step in ("9", "10", "notes"):
        os.makedirs(folder / "saved_model" / step)
    texts = {one.title.split()[0]: one.text for one in facts.commands(read_run(folder))}
    assert f"tf.saved_model.load('{folder}/saved_model/10')" in texts["Load"]
    compile(texts["Load"], "snippet", "exec")
    assert f"-v {folder}/saved_model:/models/encoder " in texts["Serve"]

"""Configs of several stages: where they lie, what flags change, how they go on after a kill, what the table says."""

import json
import pathlib
import shutil
import textwrap

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from command import parse_stages
from paths import ROOT
from processes import variables
from test_run import SETTINGS, exports_that_are_not_verified, write_images  # noqa: F401

import run
from tf_simclr import builders, files, stages
from tf_simclr.data import batches
from tf_simclr.runs import models, predictions
from tf_simclr.runs.checkpoint_list import list_checkpoints
from tf_simclr.runs.folder import open_run
from tf_simclr.settings import RunConfig, override
from tf_simclr.settings.stages import place
from tf_simclr.training import train as program

SMALL = f"--config={ROOT}/configs/simclr_v2_semi_supervised.py"
TINY = SETTINGS | {
    "mode": "train", "train.steps": 2, "train.checkpoint_steps": 2, "optimizer.warmup_epochs": 0,
    "data.label_percent": 50, "eval.protocols": ("knn",), "eval.knn_k": 3, "eval.map_images": None,
    "model.num_proj_layers": 2,
}  # fmt: skip


def test_the_stages_of_a_config_lie_below_its_folder_and_start_from_one_another(tmp_path):
    planned = parse_stages(SMALL, f"--model_dir={tmp_path}", "--train_steps=5", "--set=distill_1.train.epochs=3")
    assert list(planned) == [
        "pretrain", "supervised_1", "finetune_1", "distill_1", "supervised_10", "finetune_10", "distill_10"
    ]  # fmt: skip
    assert {name: one.folder for name, one in planned.items()} == {name: f"{tmp_path}/{name}" for name in planned}
    distilled = planned["distill_1"]
    assert distilled.checkpoint == planned["finetune_1"].checkpoint == f"{tmp_path}/pretrain"
    assert distilled.distill.teacher == f"{tmp_path}/finetune_1" and distilled.data.label_percent == 1
    assert planned["supervised_1"].checkpoint is None and not planned["pretrain"].model.online_classifier
    assert all(one.train.steps == 5 for one in planned.values())
    assert (distilled.train.epochs, planned["distill_10"].train.epochs) != (3, 3)
    assert distilled.train.epochs == 3 and distilled.name == "distill_1"
    moved = parse_stages(SMALL, "--data_dir=/images")
    assert {one.data.dataset for one in moved.values()} == {"folder"}
    assert moved["pretrain"].folder == "runs/simclr_v2_semi_supervised/pretrain"
    assert parse_stages(f"--config={ROOT}/configs/shapes.py") is None and parse_stages() is None


def test_the_papers_stages_are_stages():
    planned = parse_stages(f"--config={ROOT}/configs/simclr_v2_imagenet.py")
    tuned = planned["finetune_1"]
    assert (
        tuned.optimizer.base_learning_rate == 0.005 and tuned.train.epochs == 60 and tuned.model.classifier_layer == 1
    )
    assert planned["finetune_10"].train.epochs == 30 and planned["distill_1"].distill.temperature == 0.1


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (
            "--train_mode=pretrain",
            "--train_mode: train_mode differs from stage to stage: .*--set=pretrain.train_mode=V",
        ),
        ("--teacher=runs/a", "--teacher: distill.teacher differs from stage to stage.* Received: runs/a"),
        ("--label_percent=5", "--label_percent: data.label_percent differs from stage to stage"),
        ("--mode=check", "takes --mode=train, train_then_eval, eval, export: .* Received: check"),
        ("--strategy=multi_worker", "run in one process.*: use another --strategy. Received: multi_worker"),
        ("--set=finetune_2.seed=1", "There is no config field finetune_2.seed"),
        ("--set=pretrain.train.epoch=1", "There is no config field train.epoch. Did you mean train.epochs"),
    ],
)
def test_what_does_not_go_for_all_stages_is_refused(flag, message):
    with pytest.raises(ValueError, match=message):
        parse_stages(SMALL, flag)


def test_stages_of_wrong_names_or_order_are_refused():
    with pytest.raises(ValueError, match="must have a name of its own, such as finetune_1. Received: 'train'"):
        place({"train": RunConfig()}, "runs/a")
    later = override(RunConfig(), {"train_mode": "finetune", "checkpoint": "pretrain"})
    with pytest.raises(ValueError, match="move pretrain before finetune_1. Received: checkpoint=pretrain"):
        place({"finetune_1": later, "pretrain": RunConfig()}, "runs/a")


def finished(folder: pathlib.Path, predicted: list[int], labels: list[int], step: int = 3) -> None:
    """What an evaluation leaves."""
    accuracy = float(np.mean(np.equal(predicted, labels)))
    result = {
        f"eval/label_top_1_accuracy{end}": accuracy + off for end, off in (("", 0), ("_low", -0.1), ("_high", 0.1))
    }
    files.write_json(folder / "result.json", {"global_step": step, **result})
    path = predictions.predictions_path(folder)
    path.parent.mkdir()
    rows = {"protocol": ["eval/label"] * 8, "example": list("abcdefgh"), "label": labels, "predicted": predicted}
    pq.write_table(pa.table(rows | {"score": np.ones(8, np.float32)}), path)


def test_the_table_has_every_stage_beside_training_from_scratch_on_the_same_labels(tmp_path):
    labels = [0, 1] * 4
    few = {"data.label_percent": 1}
    planned = {
        "pretrain": RunConfig(),
        "supervised_1": override(RunConfig(), {"train_mode": "supervised", **few}),
        "finetune_1": override(RunConfig(), {"train_mode": "finetune", "checkpoint": "pretrain", **few}),
        "distill_1": override(RunConfig(), {"train_mode": "distill", "distill.teacher": "finetune_1", **few}),
    }
    planned = place(planned, str(tmp_path))
    answers = {"supervised_1": [0] * 8, "finetune_1": labels[:6] + [1, 0], "distill_1": labels}

    ran = []

    def pretend(config):
        folder = pathlib.Path(config.folder)
        if config.name in answers:
            finished(folder, answers[config.name], labels)
        ran.append(config.name)
        return ""

    text = stages.run_all(planned, pretend)
    rows = {row["stage"]: row for row in json.loads((tmp_path / "stages.json").read_text())}
    assert list(rows) == ["supervised_1", "finetune_1", "distill_1"] and ran == list(planned)
    assert "top_1_difference" not in rows["supervised_1"]
    assert rows["finetune_1"]["top_1_difference"] == 0.25 and rows["distill_1"]["top_1_difference"] == 0.5
    assert rows["distill_1"]["top_1_difference_low"] < 0.5 <= rows["distill_1"]["top_1_difference_high"]
    lines = [line.split() for line in text.splitlines()]
    assert lines[3][:6] == ["distill_1", "1", "%", "its", "classifier", "100.0"] and lines[3][8] == "+50.0"
    assert stages.run_all(planned, pretend) == text and ran == list(planned)  # Nothing runs again,
    changed = dict(planned, distill_1=override(planned["distill_1"], {"eval.knn_k": 3}))
    with pytest.raises(FileExistsError):  # unless it has other settings: it would write its answers again.
        stages.run_all(changed, pretend)


def test_stages_are_refused_once_the_weights_that_they_started_from_are_gone_or_others(tmp_path):
    few = {"data.label_percent": 1}
    planned = place(
        {
            "pretrain": RunConfig(),
            "supervised_1": override(RunConfig(), {"train_mode": "supervised", **few}),
            "finetune_1": override(RunConfig(), {"train_mode": "finetune", "checkpoint": "pretrain", **few}),
            "distill_1": override(RunConfig(), {"train_mode": "distill", "distill.teacher": "finetune_1", **few}),
        },
        str(tmp_path / "all"),
    )
    ran = []

    def write(folder, value, of_classifier=0.0):
        of_parts = {"encoder": tf.Variable([value], name="dense/kernel")}
        of_parts["classifier"] = tf.Variable([of_classifier], name="linear_classifier/kernel")
        parts = {name: tf.train.Checkpoint(kernel=variable) for name, variable in of_parts.items()}
        tf.train.Checkpoint(**parts).write(str(folder / "checkpoints" / "ckpt-1"))
        (folder / "checkpoints" / "checkpoint").write_text('model_checkpoint_path: "ckpt-1"')

    def pretend(config):
        write(pathlib.Path(config.folder), 1.0)
        ran.append(config.name)
        return ""

    stages.run_all(planned, pretend)
    done = tmp_path / "all" / "pretrain" / "stage.json"
    content = json.loads(done.read_text())
    del content["settings"]["data"]["use_labels"]  # As if there had been no such setting.
    done.write_text(json.dumps(content))
    stages.run_all(planned, pretend)
    assert ran == list(planned)
    first = tmp_path / "all" / "pretrain"
    both = f"remove the folders of these stages.* Received: {tmp_path}/all/finetune_1, {tmp_path}/all/distill_1$"
    write(first, 2.0)
    with pytest.raises(ValueError, match=both):
        stages.run_all(planned, pretend)
    write(first, 1.0)
    stages.run_all(planned, pretend)  # They are the same again.
    shutil.rmtree(first)
    with pytest.raises(ValueError, match=both):
        stages.run_all(planned, pretend)
    (tmp_path / "all" / "finetune_1" / "stage.json").unlink()  # as if it had been killed before its end
    with pytest.raises(ValueError, match=both):
        stages.run_all(planned, pretend)
    assert ran == list(planned)  # Nothing was trained.
    for name in ("finetune_1", "distill_1"):
        shutil.rmtree(tmp_path / "all" / name)
    stages.run_all(planned, pretend)
    assert ran[4:] == ["pretrain", "finetune_1", "distill_1"]

    write(tmp_path / "all" / "finetune_1", 1.0, of_classifier=1.0)  # The teacher is another one.
    with pytest.raises(ValueError, match=f"Received: {tmp_path}/all/distill_1$"):
        stages.run_all(planned, pretend)

    def stopped(config):
        pretend(config)
        raise KeyboardInterrupt

    shutil.rmtree(tmp_path / "all" / "distill_1")
    with pytest.raises(KeyboardInterrupt):
        stages.run_all(planned, stopped)
    write(tmp_path / "all" / "finetune_1", 1.0)  # Another teacher again, of a student that has a checkpoint.
    with pytest.raises(ValueError, match=f"Received: {tmp_path}/all/distill_1$"):
        stages.run_all(planned, pretend)


CONFIG = """
    import dataclasses
    from tf_simclr.settings import DistillConfig, RunConfig, override

    def get_stages():
        pretrain = override(RunConfig(), {settings!r})
        def stage(**changes):
            return override(pretrain, {{name.replace("__", "."): value for name, value in changes.items()}})
        few = {{"mode": "train_then_eval", "model__classifier_layer": 1}}
        return {{
            "pretrain": pretrain,
            "scratch": stage(train_mode="supervised", **few),
            "tuned": stage(train_mode="finetune", checkpoint="pretrain", model__classifier_layer=1),
            "student": stage(
                train_mode="distill", checkpoint="pretrain", distill__teacher="tuned", train__steps=6, **few
            ),
        }}
"""


@pytest.mark.slow
def test_a_pipeline_goes_on_after_kills_and_in_another_folder_and_trains_nothing_again(photos, tmp_path, monkeypatch):
    images = np.concatenate([photos, 255 - photos])[:30, :16, :16]
    write_images(tmp_path / "images", images, [f"{'train' if i < 20 else 'test'}/{'ab'[i % 2]}" for i in range(30)])
    config = tmp_path / "tiny.py"
    config.write_text(textwrap.dedent(CONFIG.format(settings=TINY)))

    def plan(root):
        return parse_stages(f"--config={config}", f"--model_dir={tmp_path / root}", f"--data_dir={tmp_path}/images")

    class Killed(Exception):
        pass

    def killed_before(name):
        def runs(settings):
            if settings.name == name:
                raise Killed
            return run.run(settings)

        return runs

    with pytest.raises(Killed):  # between two stages
        stages.run_all(plan("first"), killed_before("tuned"))
    make_dataset = batches.train_dataset

    def run_or_die(settings):
        if settings.name != "student":
            return run.run(settings)
        with open_run(settings) as folder:  # to the checkpoint of step 4
            program.train(settings, builders.build_sources(settings, folder), folder)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(
            batches, "train_dataset",
            lambda *args, **settings: make_dataset(*args, **settings).take(5 if settings["total_steps"] == 6 else 2),
        )  # fmt: skip
        stages.run_all(plan("first"), run_or_die)
    assert list(list_checkpoints(tmp_path / "first" / "student")) == [2, 4]
    (tmp_path / "first").rename(tmp_path / "moved")
    text = stages.run_all(plan("moved"), run.run)
    assert [line.split()[0] for line in text.splitlines()[:3]] == ["stage", "scratch", "student"]

    # The student is the one of an uninterrupted run,
    whole = override(plan("moved")["student"], {"model_dir": str(tmp_path / "whole"), "mode": "train"})
    run.run(whole)
    resumed, expected = (variables(list_checkpoints(tmp_path / one)[6]) for one in ("moved/student", "whole"))
    for name, value in expected.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)
    # and another start trains nothing, not even builds a model.
    monkeypatch.setattr(models, "initial_model", lambda *arguments: pytest.fail("a model was built"))
    assert stages.run_all(plan("moved"), run.run) == text

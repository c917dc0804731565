"""Whole runs on a folder of small images: what they write, how they resume, what they refuse."""

import contextlib
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from command import parse
from paths import ROOT
from processes import variables

import run
from tf_simclr import builders, evaluation
from tf_simclr.data import batches
from tf_simclr.evaluation.probe import LinearProbe
from tf_simclr.export import publish, verify
from tf_simclr.runs import checkpoints, predictions
from tf_simclr.runs.checkpoint_list import list_checkpoints
from tf_simclr.runs.folder import open_run
from tf_simclr.settings import RunConfig, command_line, document, from_dict, override
from tf_simclr.training import stopping
from tf_simclr.training import train as program

SETTINGS = {
    "mode": "train_then_eval",
    "data.dataset": "folder",
    "data.image_size": 16,
    "model.resnet_depth": 10,
    "model.width_multiplier": 0.1,
    "model.stem": "strided",
    "model.num_groups": 1,
    "optimizer.warmup_epochs": 0.5,
    "optimizer.weight_decay": 1e-4,
    "train.global_batch_size": 8,
    "train.steps": 12,
    "train.checkpoint_steps": 5,
    "train.log_every_seconds": 0,
    "train.log_every_steps": 1,
    "train.precision": "float32",
}


def write_images(folder, images, names):
    for index, (image, name) in enumerate(zip(images, names, strict=True)):
        path = folder / name / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(image).numpy())


@pytest.fixture(scope="module")
def image_folder(photos, tmp_path_factory):
    """Two classes, train and test: 20 + 10 images."""
    folder = tmp_path_factory.mktemp("images")
    images = np.concatenate([photos, 255 - photos])[:30, :16, :16]
    write_images(folder, images, [f"{'train' if i < 20 else 'test'}/{'odd' if i % 2 else 'even'}" for i in range(30)])
    return folder


@pytest.fixture(scope="module")
def image_array(photos, tmp_path_factory):
    """Twenty images without labels, in a file that takes no time to open."""
    path = tmp_path_factory.mktemp("array") / "images.npz"
    np.savez(path, images=np.concatenate([photos, 255 - photos])[:20, :16, :16])
    return path


@pytest.fixture(scope="module", autouse=True)
def exports_that_are_not_verified():
    """Verification takes a process each time; tests/test_export.py and whole runs elsewhere are about it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "verify", lambda *arguments, **settings: 0.0)
        yield


def make_config(model_dir, data_dir, **changes):
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    return override(RunConfig(), SETTINGS | {"model_dir": str(model_dir), "data.data_dir": str(data_dir)} | changes)


def train(settings):
    """Trains as run.py does; returns the weights by name and the steps in the metrics file."""
    with open_run(settings) as folder:
        model = program.train(settings, builders.build_sources(settings, folder), folder)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    weights = model.encoder.get_weights() + model.projection_head.get_weights() + model.optimizer.variables
    return [np.asarray(weight) for weight in weights], [json.loads(line)["step"] for line in lines]


@pytest.fixture(scope="module")
def finished_run(image_folder, tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("run") / "deep" / "er"
    settings = make_config(model_dir, image_folder, eval__baselines=True, train__log_every_steps=3)
    return settings, run.run(settings)


def copy_of(finished_run, folder, *left_out):
    """A copy of the run in another folder, without the files and folders of these names; its settings."""
    settings, _ = finished_run
    shutil.copytree(settings.model_dir, folder, ignore=shutil.ignore_patterns(*left_out))
    return override(settings, {"model_dir": str(folder)})


def test_a_run_leaves_everything_behind(finished_run):
    settings, report = finished_run
    folder = pathlib.Path(settings.model_dir)
    assert from_dict(json.loads((folder / "config.json").read_text())) == settings
    assert json.loads((folder / "run.json").read_text())["tensorflow"] == tf.__version__
    result = json.loads((folder / "result.json").read_text())
    assert result == json.loads((folder / "result_12.json").read_text())
    assert result["global_step"] == 12
    for name in ("knn_top_1", "linear_top_1", "label_top_1", "label_top_5"):
        assert 0 <= result[f"eval/{name}_accuracy"] <= 1
    assert "eval_untrained/linear_top_1_accuracy" in result
    assert "eval_raw_pixels/linear_top_1_accuracy" in result
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == [3, 6, 9, 12]
    # A warm-up of one step, which starts at 0, then half a cosine over the other eleven; lines have means of three.
    rates = [0, *(0.3 * 8 / 256 * (1 + math.cos(math.pi * step / 11)) / 2 for step in range(11))]
    expected = np.reshape(rates, [4, 3]).mean(axis=1)
    np.testing.assert_allclose([line["learning_rate"] for line in metrics], expected, rtol=1e-5)
    speed = [json.loads(line) for line in (folder / "speed.jsonl").read_text().splitlines()]
    assert all(0 <= line["data_wait_share"] <= 1 and line["images_per_second"] > 0 for line in speed)
    assert list(folder.glob("events.out.tfevents.*"))
    card = json.loads((folder / "saved_model" / "12" / "model_card.json").read_text())["classifier"]
    probe = LinearProbe.load(folder / "features" / "linear_12.npz")
    assert card == {
        "source": "linear evaluation",
        "top_1_accuracy": result["eval/linear_top_1_accuracy"],
        "mean_confidence": result["eval/linear_mean_confidence"],
        "test_images": 10,
        "digest": probe.digest,
    }
    assert {path.stem for path in (folder / "checkpoints").glob("*.index")} == {"ckpt-5", "ckpt-10", "ckpt-12"}
    assert f"{result['eval/linear_top_1_accuracy']:.1%}" in report
    assert str(folder / "saved_model" / "12") in report
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"{100 * result['eval/linear_top_1_accuracy']:.1f}\u00a0%</strong>" in page
    assert "could be read" not in page and f"report:       {folder / 'report.html'}" in report


def test_tensorboard_gets_scalars_a_sheet_of_views_hparams_and_the_projector(finished_run):
    tags = set()
    for path in pathlib.Path(finished_run[0].model_dir).glob("events.out.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags |= {value.tag for value in event.summary.value}
    assert {"views", "train/loss", "train/contrastive_top_1_accuracy", "train/images_per_second"} <= tags
    assert {"eval/linear_top_1_accuracy", "eval_untrained/knn_top_1_accuracy", "eval/label_top_1_accuracy"} <= tags
    assert "_hparams_/session_start_info" in tags
    assert (pathlib.Path(finished_run[0].model_dir) / "projector_config.pbtxt").is_file()
    sheet = tf.io.decode_png((pathlib.Path(finished_run[0].model_dir) / "views.png").read_bytes())
    assert sheet.shape == (2 * 16, min(16, finished_run[0].train.global_batch_size) * 16, 3)


def test_the_export_classifies_as_was_evaluated(finished_run, image_folder):
    folder = pathlib.Path(finished_run[0].model_dir)
    classify = tf.saved_model.load(str(folder / "saved_model" / "12")).signatures["classify"]
    paths = sorted((image_folder / "test").glob("*/*.png"))
    answer = classify(image_bytes=tf.constant([path.read_bytes() for path in paths]))
    named = answer["classes"].numpy()[0, np.argmax(answer["scores"], axis=1)]
    result = json.loads((folder / "result.json").read_text())
    is_right = [name.decode() == path.parent.name for name, path in zip(named, paths, strict=True)]
    assert np.mean(is_right) == pytest.approx(result["eval/linear_top_1_accuracy"])
    assert np.max(answer["scores"], axis=1).mean() == pytest.approx(result["eval/linear_mean_confidence"], abs=1e-3)
    found = predictions.read(predictions.predictions_path(folder))["eval/linear"]  # Image by image.
    assert [pathlib.Path(name).name for name in found.examples] == [path.name for path in paths]
    np.testing.assert_array_equal(found.predicted, np.argmax(answer["scores"], axis=1))
    np.testing.assert_allclose(found.scores, np.max(answer["scores"], axis=1), atol=1e-3)


def test_a_run_that_was_not_evaluated_exports_no_classifier_and_says_how_to_add_it(finished_run, tmp_path):
    settings = copy_of(finished_run, tmp_path / "run", "saved_model", "features", "result*.json")
    settings = override(settings, {"mode": "export"})
    report = run.run(settings)
    assert "without `classify`, since no classifier was evaluated: run --mode=eval, move this export away" in report
    target = tmp_path / "run" / "saved_model" / "12"
    assert "classify" not in tf.saved_model.load(str(target)).signatures
    assert json.loads((target / "model_card.json").read_text())["classifier"] is None
    copy_of(finished_run, tmp_path / "evaluated")  # with what --mode=eval would write
    for name in ("features", "result.json", "result_12.json"):
        (tmp_path / "evaluated" / name).rename(tmp_path / "run" / name)
    report = run.run(settings)  # A server may hold the export, so it stays.
    assert "`classify` is not the classifier of the last evaluation: move this export away" in report
    target.rename(tmp_path / "away")
    assert "`classify`" not in run.run(settings)
    assert "classify" in tf.saved_model.load(str(target)).signatures


@pytest.mark.usefixtures("quick_decoder")
def test_a_finished_run_is_not_trained_again(finished_run):
    settings, report = finished_run
    written = (pathlib.Path(settings.model_dir) / "metrics.jsonl").stat().st_mtime_ns
    assert run.run(settings) == report
    assert (pathlib.Path(settings.model_dir) / "metrics.jsonl").stat().st_mtime_ns == written


def test_a_wrong_encoder_to_compare_with_does_not_stay_in_the_settings(finished_run):
    settings, _ = finished_run
    before = (pathlib.Path(settings.model_dir) / "config.json").read_bytes()
    with pytest.raises(FileNotFoundError, match="--compare_encoder.*Received: /nowhere"):
        run.run(override(settings, {"mode": "eval", "eval.compare_encoders": ("/nowhere",)}))
    assert (pathlib.Path(settings.model_dir) / "config.json").read_bytes() == before


@pytest.mark.usefixtures("quick_decoder")
def test_a_killed_run_resumes_as_if_nothing_had_happened(finished_run, tmp_path):
    """From what a kill in the midst of a line leaves: the checkpoint of step 5, and metrics up to step 8."""
    finished = pathlib.Path(finished_run[0].model_dir)
    killed = copy_of(finished_run, tmp_path / "run", "ckpt-1?.*", "saved_model", "features", "result*.json")
    lines = (finished / "metrics.jsonl").read_text().splitlines(True)
    (tmp_path / "run" / "metrics.jsonl").write_text("".join([*lines[:2], '{"step": 9, "lo']))
    assert list(list_checkpoints(tmp_path / "run")) == [5]
    train(killed)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == "".join(lines)
    resumed, uninterrupted = (variables(list_checkpoints(folder)[12]) for folder in (tmp_path / "run", finished))
    assert resumed.keys() == uninterrupted.keys() and len(resumed) > 30
    for name, value in uninterrupted.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, {"train__precision": "mixed_bfloat16"}, {"model__memory_size": 20}, {"model__loss": "supcon"}]
)
def test_an_interrupted_run_resumes_as_if_nothing_had_happened(image_folder, tmp_path, monkeypatch, changes):
    changes = changes | {"train__log_every_steps": 3}  # 8 and 5, below, are in the midst of a line
    uninterrupted, steps = train(make_config(tmp_path / "a", image_folder, **changes))

    with monkeypatch.context() as patch:
        make_dataset = batches.train_dataset
        patch.setattr(
            batches, "train_dataset",
            lambda *args, **kwargs: make_dataset(*args, **kwargs).take(8),
        )  # fmt: skip
        train(make_config(tmp_path / "b", image_folder, **changes))
    assert not (tmp_path / "b" / "checkpoints" / "ckpt-12.index").exists()
    with (tmp_path / "b" / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 9, "lo')  # as a kill leaves it
    resumed, _ = train(make_config(tmp_path / "b", image_folder, **changes))
    assert steps == [3, 6, 9, 12]
    assert (tmp_path / "a" / "metrics.jsonl").read_text() == (tmp_path / "b" / "metrics.jsonl").read_text()
    for weight, expected in zip(resumed, uninterrupted, strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"train__microbatch_size": 3, "model__classifier_layer": 1}])
def test_steps_that_share_a_call_are_the_same_steps(image_folder, tmp_path, monkeypatch, more):
    changes = {"train__steps": 10, "train__checkpoint_steps": 4, "train__log_every_steps": 4, **more}
    one_by_one, steps = train(make_config(tmp_path / "a", image_folder, **changes))
    settings = make_config(tmp_path / "b", image_folder, train__steps_per_execution=4, **changes)
    make_dataset = batches.train_dataset
    with monkeypatch.context() as patch:  # Interrupted after a first call.
        patch.setattr(batches, "train_dataset", lambda *args, **kwargs: make_dataset(*args, **kwargs).take(4))
        train(settings)
    by_four, _ = train(settings)
    assert steps == [4, 8, 10]
    assert (tmp_path / "a" / "metrics.jsonl").read_text() == (tmp_path / "b" / "metrics.jsonl").read_text()
    assert list(list_checkpoints(tmp_path / "b")) == [4, 8, 10]
    for weight, expected in zip(by_four, one_by_one, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_what_several_machines_have_trained_is_finished_by_the_first_alone(finished_run, tmp_path, monkeypatch):
    settings, report = finished_run
    again = override(copy_of(finished_run, tmp_path / "run"), {"strategy": "multi_worker"})
    cluster = {"worker": ["localhost:1", "localhost:2"]}  # The second one has ended and does not come back.

    def finish(index, config):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}))
        return run.run(config)

    (tmp_path / "run" / "trained.json").write_text('{"step": 12}')
    assert finish(1, again) == "The chief continues alone; this worker is done"
    expected = report.replace(settings.model_dir, again.model_dir)
    with monkeypatch.context() as patch:
        names, make_strategy = [], run.distribute.make_strategy
        patch.setattr(
            run.distribute, "make_strategy", lambda name, **to: names.append(name) or make_strategy(name, **to)
        )
        assert finish(0, again) == expected
    assert names == ["default"]  # On one device, as if the first machine had not been lost after the training.
    (tmp_path / "run" / "trained.json").unlink()
    for index, said in ((0, "verified"), (1, "this worker is done")):
        assert said in finish(index, override(again, {"mode": "export"}))
    archive = override(again, {"mode": "embed", "embed.output_dir": str(tmp_path / "embeddings")})
    assert run.embed_all(archive) == ("The chief continues alone; this worker is done", 0)
    assert not (tmp_path / "embeddings").exists()
    embedded = []
    monkeypatch.setattr(run.embed, "embed", lambda config, strategy: embedded.append(config.embed.part) or "embedded")
    assert run.embed_all(override(archive, {"embed.shard": "1/2"})) == ("embedded", 0) and embedded == [(1, 2)]


def test_the_end_of_a_training_by_several_machines_is_noted_whatever_stops_the_first_one_then(
    finished_run, tmp_path, monkeypatch
):
    again = copy_of(finished_run, tmp_path / "run")
    request, met = stopping.StopRequest(), []
    request.signal_number = 15
    monkeypatch.setattr(stopping, "catch_signals", lambda: contextlib.nullcontext(request))
    monkeypatch.setattr(program.distribute, "has_workers", lambda strategy: True)
    marker = tmp_path / "run" / "trained.json"
    monkeypatch.setattr(program.distribute, "largest_of_workers", lambda step: met.append(marker.is_file()) or step)
    with pytest.raises(stopping.Stopped):
        run.run(again)
    assert json.loads(marker.read_text()) == {"step": 12} and met[-1]  # It is there when the others leave.


def test_a_resumed_run_may_not_change_what_is_learnt(finished_run):
    settings, _ = finished_run
    changed = override(settings, {"model.temperature": 0.5, "eval.batch_size": 7})
    with pytest.raises(ValueError, match=r"other settings: model.temperature was 0.1, is 0.5\. Choose"):
        run.run(changed)


@pytest.mark.slow
def test_unlabelled_nested_images_are_enough(photos, tmp_path):
    write_images(tmp_path / "photos", photos[:, :16, :16], [f"a/b{i % 3}" if i else "." for i in range(16)])
    settings = make_config(tmp_path / "run", tmp_path / "photos", train__steps=2)
    report = run.run(settings)
    assert "the images have no labels" in report
    assert (tmp_path / "run" / "saved_model" / "2" / "saved_model.pb").is_file()


@pytest.mark.slow
def test_images_of_several_sizes_with_small_views_in_micro_batches(photos, tmp_path, monkeypatch):
    names = [f"{'train' if i < 12 else 'test'}/{'ab'[i % 2]}" for i in range(16)]
    write_images(tmp_path / "photos", [photo[: 16 + i] for i, photo in enumerate(photos)], names)
    changes = {"augmentation__view_size": 12, "train__microbatch_size": 3}
    settings = make_config(tmp_path / "run", tmp_path / "photos", train__steps=2, **changes)
    specs = []
    make_dataset = batches.train_dataset
    with monkeypatch.context() as patch:

        def watched(*args, **kwargs):
            dataset = make_dataset(*args, **kwargs)
            specs.append(dataset.element_spec[0]["images"].shape)
            return dataset

        patch.setattr(batches, "train_dataset", watched)
        run.run(settings)
    assert specs == [[8, 2, 12, 12, 3]]
    assert "eval/knn_top_1_accuracy" in json.loads((tmp_path / "run" / "result.json").read_text())
    encode = tf.saved_model.load(tmp_path / "run" / "saved_model" / "2").signatures["encode"]
    assert [spec.shape for spec in encode.structured_input_signature[1].values()] == [[None, 16, 16, 3]]


def test_determinism_is_switched_on_where_a_program_starts(monkeypatch):
    switched_on = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: switched_on.append(True))
    for asks in (False, True):
        run._start(override(RunConfig(), {"train.deterministic": asks}))
        assert switched_on == [True] * asks


def test_divergence_stops_the_run_and_spares_the_checkpoints(image_array, tmp_path):
    diverging = {"optimizer__name": "momentum", "optimizer__base_learning_rate": 1e30, "train__checkpoint_steps": 1}
    message = r"Training diverged at step \d+: .* learning rate is .*; the last good checkpoint is .*/ckpt-\d\. Usual"
    with pytest.raises(FloatingPointError, match=message):
        run.run(make_config(tmp_path, image_array, **diverging))
    newest = tf.train.latest_checkpoint(tmp_path / "checkpoints")
    weights = [name for name, _ in tf.train.list_variables(newest) if name.startswith("model/") and "VALUE" in name]
    assert len(weights) > 10
    assert all(np.isfinite(tf.train.load_variable(newest, name)).all() for name in weights)


def test_settings_that_were_refused_do_not_lock_the_folder(image_array, tmp_path):
    with pytest.raises(ValueError, match="warm-up"):
        run.run(make_config(tmp_path, image_array, optimizer__warmup_epochs=100))
    with open_run(
        make_config(tmp_path, image_array, mode="train", train__steps=2, optimizer__warmup_epochs=0)
    ) as folder:
        assert (folder / "config.json").is_file()


@pytest.mark.usefixtures("quick_decoder")
@pytest.mark.parametrize(("mode", "place"), [("export", "no/longer/there"), ("eval", "{0}/../{0.name}/")])
def test_a_finished_run_can_be_exported_without_its_images_and_evaluated_where_they_are(finished_run, mode, place):
    settings, report = finished_run
    place = place.format(pathlib.Path(settings.data.data_dir))
    again = run.run(override(settings, {"mode": mode, "data.data_dir": place}))
    assert set(again.splitlines()) <= set(report.splitlines())
    assert ("saved_model" in again) == (mode == "export")


@pytest.mark.slow
def test_names_that_tensorflow_misreads_stop_neither_training_nor_export(photos, tmp_path, monkeypatch):
    """Non-UTF-8 classes and folders, "[" in model_dir; the export is verified in a process of its own."""
    monkeypatch.setattr(publish, "verify", verify)
    place = os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9")
    names = [os.fsdecode(b"th\xe9" if i % 2 else b"caf\xe9") for i in range(16)]
    write_images(pathlib.Path(place), photos[:, :16, :16], names)
    settings = make_config(f"{tmp_path}/run [1]", place, train__steps=2, train__checkpoint_steps=1)
    assert "verified" in run.run(settings)
    copy = shutil.copytree(pathlib.Path(settings.model_dir) / "saved_model" / "2", tmp_path / "2")
    classify = tf.saved_model.load(str(copy)).signatures["classify"]
    answer = classify(image_bytes=tf.io.encode_png(photos[0])[None])
    assert answer["classes"].numpy().tolist() == [[b"caf\\udce9", b"th\\udce9"]]
    assert list(list_checkpoints(pathlib.Path(settings.model_dir))) == [1, 2]
    shutil.rmtree(place)
    shutil.rmtree(pathlib.Path(settings.model_dir) / "saved_model")
    assert "verified" in run.run(override(settings, {"mode": "export"}))


@pytest.mark.parametrize(
    ("error", "says", "has_traceback"),
    [
        (ValueError("No."), "run.py: No. The training is done", False),
        (OSError(28, "No space left on device"), "No space left on device. The training", False),
        (tf.errors.ResourceExhaustedError(None, None, "full\nof it"), "run.py: full. The training", False),
        (KeyError("x"), "run.py: KeyError: 'x'. The training", True),
    ],
)
def test_an_error_after_the_training_names_the_weights_and_the_command(
    tmp_path, monkeypatch, capsys, error, says, has_traceback
):
    folder = tmp_path / "a run"
    (folder / "checkpoints").mkdir(parents=True)
    for step in (5, 12):
        (folder / "checkpoints" / f"ckpt-{step}.index").touch()

    def fail(config):
        with run._naming_the_weights(config, folder):
            raise error

    config = override(RunConfig(), {"mode": "train_then_eval"})
    with pytest.raises(type(error)):  # Without a training, the error is all.
        fail(override(config, {"mode": "export"}))
    monkeypatch.setattr(run, "run", fail)
    monkeypatch.setattr(run, "_settings", lambda: config)
    with pytest.raises(SystemExit) as stop:
        run.main([])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and says in said and ("Traceback" in said) == has_traceback
    assert f"saved as {folder}/checkpoints/ckpt-12; once the cause is gone, this makes the export" in said
    assert said.endswith(f"python run.py --mode=export --model_dir='{folder}'\n")


def test_a_signal_during_an_evaluation_that_trains_stops_it_as_it_stops_a_training(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "ckpt-12.index").touch()
    config = override(RunConfig(), {"mode": "train_then_eval"})
    with pytest.raises(stopping.Stopped, match="after step 3"), run._naming_the_weights(config, tmp_path):
        raise stopping.Stopped(15, 3)


def test_a_report_that_nobody_reads_is_no_error(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        run._show("report")
    monkeypatch.setattr(sys, "stdout", None)  # closed by the shell
    run._show("report")


def test_a_working_directory_that_is_gone_is_said(monkeypatch):
    def find():
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", find)
    with pytest.raises(ValueError, match="The working directory must exist"):
        run._check_working_directory()


def test_a_disk_that_is_too_small_is_found_before_the_training(monkeypatch, tmp_path):
    monkeypatch.setattr(program.checkpoints, "space", lambda *arguments: checkpoints.Space(10**6, 6 * 10**6, 5 * 10**6))
    with pytest.raises(ValueError, match="must fit on the disk.*Received: 5.0 MB free, of up to 6.0 MB needed"):
        program._check_space(RunConfig(), None, tmp_path)


@pytest.mark.slow
def test_fine_tuning_a_run_and_evaluating_its_classifier(finished_run, image_folder, tmp_path):
    pretrained, _ = finished_run
    checkpoint = tmp_path / "pretrained"
    checkpoint.symlink_to(pretrained.model_dir)
    settings = make_config(
        tmp_path / "tuned", image_folder, train_mode="finetune", checkpoint=checkpoint, train__steps=3
    )
    report = run.run(settings)
    result = json.loads((tmp_path / "tuned" / "result.json").read_text())
    assert f"{result['eval/label_top_1_accuracy']:.1%}" in report
    assert {"global_step", "eval/num_test_images", "eval/label_top_5_accuracy", "eval/regularization_loss"} < {*result}
    assert "eval_start/linear_top_1_accuracy" not in result  # It is about pretraining.
    metrics = [json.loads(line) for line in (tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 3 and 0 <= metrics[-1]["top_1_accuracy"] <= 1
    assert run.run(settings) == report

    checkpoint.unlink()  # The run has weights of its own by now.
    with pytest.raises(ValueError, match="not replaced.*export.pca_dim was none, is 3.*saved_model/3"):
        run.run(override(settings, {"mode": "export", "export.pca_dim": 3}))
    (tmp_path / "tuned" / "saved_model" / "3").rename(tmp_path / "3")
    changes = {
        "embedding": "normalized",
        "pca_dim": 3,
        "project": True,
        "precision": "mixed_bfloat16",
        "license": "MIT",
    }
    run.run(override(settings, {"mode": "export"} | {f"export.{name}": value for name, value in changes.items()}))
    exported = tmp_path / "tuned" / "saved_model" / "3"
    card = json.loads((exported / "model_card.json").read_text())
    assert (
        card["accuracy"] == {name: value for name, value in result.items() if name != "encoders"}
        and card["license"] == "MIT"
    )
    accuracy = result["eval/label_top_1_accuracy"]
    assert card["classifier"] == {"source": "training", "top_1_accuracy": accuracy, "test_images": 10}
    assert card["data"] == {"dataset": "folder", "training_images": 20, "classes": 2}
    assert card["training"]["checkpoint"] == "pretrained" and "model_dir" not in card["training"]
    signatures = tf.saved_model.load(str(exported)).signatures
    images = tf.zeros([2, 20, 30, 3], tf.uint8)
    np.testing.assert_allclose(tf.norm(signatures["pixels"](images=images)["embedding"], axis=1), [1, 1], rtol=1e-5)
    answer = signatures["classify"](image_bytes=tf.io.encode_png(images[0])[None])
    assert answer["classes"].numpy().tolist() == [[b"even", b"odd"]]
    with pytest.raises(
        ValueError, match="of training images: use --export_pca_dim=.* Received: 30 of .* features of 20 images"
    ):
        (exported).rename(tmp_path / "again")
        run.run(override(settings, {"mode": "export", "export.pca_dim": 30}))


def test_a_checkpoint_can_be_exported_without_its_data(finished_run, tmp_path):
    pretrained, _ = finished_run
    checkpoint = pathlib.Path(pretrained.model_dir) / "checkpoints" / "ckpt-12"
    settings = parse("--mode=export", f"--checkpoint={checkpoint}", f"--model_dir={tmp_path}", "--precision=float32")
    assert (settings.model, settings.data.dataset) == (pretrained.model, "shapes")
    assert "verified" in run.run(settings)
    model = tf.saved_model.load(str(tmp_path / "saved_model" / "12"))
    original = tf.saved_model.load(str(pathlib.Path(pretrained.model_dir) / "saved_model" / "12"))
    images = tf.random.stateless_uniform([2, 16, 16, 3], [1, 2])
    expected = original(images)
    for name, value in model(images).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"checkpoint": "missing/run"}, FileNotFoundError, "missing/run"),
        ({"data_dir": "missing/photos"}, FileNotFoundError, "missing/photos"),
        ({"data_dir": "none"}, ValueError, "--dataset=folder needs --data_dir"),
        ({"data__cache": "memory", "data__service": "a:1"}, ValueError, "choose one.*cache=memory, service=a:1"),
        (
            {"train__global_batch_size": 64},
            ValueError,
            "fewer images than one batch.* use --train_batch_size=20. Received: 20 images and.*64",
        ),
        (
            {"optimizer__warmup_epochs": 100},
            ValueError,
            "warm-up must end before the run does: use --warmup_epochs=0, or --train_steps=2500",
        ),
        ({"export__pca_dim": 21}, ValueError, "pca_dim must be at most .*use --export_pca_dim="),
        (
            {"model__stem": "imagenet", "model__num_groups": 2, "data__image_size": 4},
            ValueError,
            "shrinks images by a factor of 8: use --image_size=8. Received: image_size 4",
        ),
        ({"mode": "eval"}, FileNotFoundError, "holds no checkpoint"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(image_array, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        run.run(make_config(tmp_path, **{"data_dir": image_array, **changes}))


def test_a_batch_that_is_not_set_fits_itself_to_few_images(image_array, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO", logger="absl")
    monkeypatch.setattr(program, "_fit", lambda *arguments: None)
    monkeypatch.setattr(program.callbacks, "write_view_sheet", lambda *arguments: None)
    changes = {"train__global_batch_size": None, "train__steps": 1, "optimizer__warmup_epochs": 0}
    settings = make_config(tmp_path, image_array, **changes)
    with open_run(settings) as folder:
        program.train(settings, builders.build_sources(settings, folder), folder)
    assert "A step takes 16 images, since there are fewer than 512; --train_batch_size changes that" in caplog.text
    assert "Training on 20 images: steps 0 to 1 of 16 images each" in caplog.text
    with open_run(settings):  # the same settings, so the run resumes
        pass


def test_too_little_memory_is_a_sentence():
    message = "{{node}} OOM when allocating tensor with shape[8,30000,10000] and type float\n\nCall stack:\n  a.py"
    said = run._too_little_memory(message)
    assert "a tensor of shape[8,30000,10000]: lower --train_batch_size or --image_size" in said and "\n" not in said


def test_a_model_dir_that_cannot_be_written_is_refused(image_array, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="model_dir must be a writable folder"):
        run.run(make_config(tmp_path / "file" / "run", image_array))


def test_the_command_line_says_what_is_wrong_without_a_traceback(tmp_path):
    process = subprocess.run(
        [sys.executable, ROOT / "run.py", "--data_dir=missing", f"--model_dir={tmp_path}"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.returncode == 2
    assert "run.py: The image folder does not exist" in process.stderr
    assert "TensorFlow finds" in process.stderr
    assert not {word for word in ("absl::", "oneDNN", "cuda", "cuInit", "factory") if word in process.stderr}
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    ("argument", "message"),
    [("--train_epoch=3", "Unknown command line flag 'train_epoch'"), ("epochs=3", "A flag is written --name=value")],
)
def test_unknown_arguments_exit_with_status_2(argument, message, capsys):
    before = set(run.flags.FLAGS)
    command_line.define(run.flags.FLAGS)
    try:
        with pytest.raises(SystemExit) as stop:
            run.parse(["run.py", argument])
    finally:
        for name in set(run.flags.FLAGS) - before:
            delattr(run.flags.FLAGS, name)
    assert stop.value.code == 2
    assert f"run.py: {message}" in capsys.readouterr().err


def test_help_is_printed_and_ends_well(capsys):
    with pytest.raises(SystemExit) as stop:
        run.parse(["run.py", "--train_epoch=3", "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == document.help_text(builders.NAMES | evaluation.NAMES) + "\n"

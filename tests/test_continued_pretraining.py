"""Pretraining that continues from a checkpoint: what is loaded, what the evaluation says, and how it resumes."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from test_run import make_config, train, write_images

import run
from tf_simclr import builders, files
from tf_simclr.evaluation.encoders import start_encoder
from tf_simclr.runs import checkpoints, models
from tf_simclr.settings import to_dict

TINY = {"eval__protocols": ("knn",), "eval__knn_k": 3, "model__num_groups": 1}


@pytest.fixture(scope="module")
def images(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    made = np.concatenate([photos, 255 - photos])[:30, :16, :16]
    write_images(folder, made, [f"{'train' if i < 20 else 'test'}/{'odd' if i % 2 else 'even'}" for i in range(30)])
    return folder


@pytest.fixture(scope="module")
def start(images, tmp_path_factory):
    """A run whose weights are of another seed than those that follow."""
    folder = tmp_path_factory.mktemp("start")
    settings = make_config(folder, images, train__steps=2, seed=5, **TINY)
    model, _ = load(settings)
    files.write_json(folder / "config.json", to_dict(settings))
    manager = checkpoints.make_manager(checkpoints.make_checkpoint(model), folder, keep=1)
    manager.save(checkpoint_number=2)
    return settings


def load(settings):
    """The model of a run and its step."""
    folder = pathlib.Path(settings.model_dir)
    folder.mkdir(exist_ok=True)
    sources = builders.build_sources(settings, folder)
    model, _, step = models.load_model(settings, sources.train)
    return model, step


def values(*layers):
    return [weight for layer in layers for weight in layer.get_weights()]


def evaluate(settings):
    run.run(make_config(settings.model_dir, settings.data.data_dir, **_changes(settings), mode="eval"))
    return json.loads((pathlib.Path(settings.model_dir) / "result.json").read_text())


def _changes(settings):
    kept = {"train__steps": settings.train.steps, "checkpoint": settings.checkpoint, "seed": settings.seed}
    return TINY | kept


def test_a_continued_run_starts_from_the_weights_is_compared_with_them_and_resumes(start, images, tmp_path):
    shutil.copytree(start.model_dir, tmp_path / "start")
    settings = make_config(tmp_path / "run", images, train__steps=2, checkpoint=tmp_path / "start", **TINY)
    first, _ = load(start)
    loaded, step = load(settings)
    assert step == int(loaded.optimizer.iterations) == 0
    parts = ("encoder", "projection_head", "online_classifier")
    expected = values(*(getattr(first, part) for part in parts))
    for found, weight in zip(values(*(getattr(loaded, part) for part in parts)), expected, strict=True):
        np.testing.assert_array_equal(found, weight)

    whole, steps = train(settings)
    assert steps == [1, 2]
    assert any(np.any(before != after) for before, after in zip(values(first.encoder), whole, strict=False))
    own, judged = evaluate(start), evaluate(settings)
    assert judged["global_step"] == 2 and "eval_start" not in own["encoders"]
    assert judged["encoders"]["eval_start"]["path"] == str(tmp_path / "start")
    for name, value in own.items():
        if name.startswith("eval/knn"):
            assert judged[name.replace("eval/", "eval_start/")] == value, name
    assert judged["eval_start/knn_top_1_difference"] == pytest.approx(
        judged["eval/knn_top_1_accuracy"] - own["eval/knn_top_1_accuracy"]
    )

    # The run goes on from its own checkpoint, also where the start is gone; the evaluation then leaves the start out.
    shutil.rmtree(tmp_path / "start")
    again, step = load(settings)
    assert step == 2
    for found, weight in zip(values(again.encoder, again.projection_head), whole, strict=False):
        np.testing.assert_array_equal(found, weight)
    assert start_encoder(settings, again, 20) is None


def test_a_checkpoint_without_a_head_gets_a_new_one_and_another_head_is_refused(start, images, tmp_path):
    first, _ = load(start)
    tf.train.Checkpoint(encoder=first.encoder).write(str(tmp_path / "encoder"))
    settings = make_config(tmp_path / "run", images, checkpoint=tmp_path / "encoder", train__steps=2, seed=3, **TINY)
    loaded, _ = load(settings)
    for found, weight in zip(values(loaded.encoder), values(first.encoder), strict=True):
        np.testing.assert_array_equal(found, weight)
    fresh = models.initial_model(make_config(tmp_path, images, train__steps=2, seed=3, **TINY), 20, 2)
    for found, weight in zip(values(loaded.projection_head), values(fresh.projection_head), strict=True):
        np.testing.assert_array_equal(found, weight)
    with pytest.raises(ValueError, match="does not fit the model: .*projection_head"):
        load(make_config(tmp_path / "other", images, checkpoint=start.model_dir, model__num_proj_layers=2, **TINY))

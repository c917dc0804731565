"""Protocols that train: what they train on, what they choose by, and what they do not do twice."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from test_evaluate import TINY, make_source

from tf_simclr.augment import RandomCrop, RandomFlip
from tf_simclr.data import sources
from tf_simclr.evaluation import cache, encoders, evaluate, table
from tf_simclr.evaluation.tuned import TUNED, few_labels, finetune, training
from tf_simclr.runs import models, predictions
from tf_simclr.settings import RunConfig, override
from tf_simclr.training import callbacks
from tf_simclr.training import train as training_program

CONFIG = override(
    RunConfig(),
    TINY
    | {"eval.baselines": False, "eval.protocols": "finetune,semi_supervised_1,supervised_1", "eval.finetune_steps": 4,
       "eval.finetune_batch_size": 16},
)  # fmt: skip
TRAIN, TEST = make_source(90, seed=1), make_source(40, seed=2)
RATES = (1e-3, 1e-2)


@pytest.fixture(scope="module", autouse=True)
def two_rates():
    """A grid of two cells, which is enough to choose."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(finetune._GRIDS, ("small", True), (RATES, (0.0,)))
        yield


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A run's folder after an evaluation by three protocols that train, its model and the result."""
    folder = tmp_path_factory.mktemp("run")
    model = models.initial_model(CONFIG, 90, 6)
    return folder, model, evaluate.evaluate(CONFIG, model, TRAIN, TEST, folder)


def child_settings(folder, pattern):
    (path,) = (folder / "features").glob(f"{pattern}/config.json")
    return json.loads(path.read_text())


def test_every_protocol_trains_on_its_labels_and_stands_in_a_row_of_its_own(evaluated):
    folder, _, result = evaluated
    assert [result[f"eval/{name}_labels"] for name in CONFIG.eval.protocols] == [90, 6, 6]
    for name in ("semi_supervised_1", "supervised_1"):
        # Appendix B.5: 60 epochs of 6 images in batches of 4, at 0.05 * B / 256.
        found = {
            key: result[f"eval/{name}_{key}"] for key in ("learning_rate", "learning_rate_scaling", "weight_decay")
        }
        assert found == {"learning_rate": 0.05, "learning_rate_scaling": "linear", "weight_decay": 0.0}
        assert result[f"eval/{name}_batch_size"] == 4 and result[f"eval/{name}_steps"] == 6 * 60 // 4 + 1
    assert (result["eval/finetune_steps"], result["eval/finetune_batch_size"]) == (4, 16)
    assert (result["eval/finetune_grid"], result["eval/finetune_grid_cells"]) == ("small", 2)
    assert result["eval/finetune_held_out_images"] == np.ceil(np.bincount(TRAIN.labels) / 10).sum()
    assert result["eval/finetune_learning_rate"] in RATES

    started = child_settings(folder, "eval_semi_supervised_1_runs_*/chosen")
    assert started["train_mode"] == "finetune" and "start_" in started["checkpoint"]
    assert started["finetune"]["zero_init"]  # The classifier of the pretraining has seen all labels.
    assert started["optimizer"]["name"] == "momentum" and started["optimizer"]["warmup_epochs"] == 0
    scratch = child_settings(folder, "eval_supervised_1_runs_*/chosen")
    assert (scratch["train_mode"], scratch["checkpoint"]) == ("supervised", None)
    for section in ("optimizer", "train", "model", "augmentation"):
        assert scratch[section] == started[section]  # The same budget.

    lines = table.describe(result).splitlines()
    accuracy = f"{100 * result['eval/finetune_top_1_accuracy']:.1f}%"
    assert any(line.startswith("  fine-tuned on 90 labels") and accuracy in line for line in lines)
    assert any(line.startswith("  from scratch on 6 labels") for line in lines)
    kept = predictions.read(predictions.predictions_path(folder))
    assert kept.keys() == {"eval/label", *(f"eval/{name}" for name in CONFIG.eval.protocols)}


def test_what_is_trained_is_not_trained_again(evaluated, tmp_path, monkeypatch):
    folder, model, result = evaluated
    folder = shutil.copytree(folder, tmp_path / "moved")
    calls, steps = [], []
    fit = training.fit
    monkeypatch.setattr(training, "fit", lambda *arguments: calls.append(arguments) or fit(*arguments))
    monkeypatch.setattr(training_program, "_continue", lambda *arguments: steps.append(arguments))
    assert evaluate.evaluate(CONFIG, model, TRAIN, TEST, folder) == result and not calls
    # The same classifiers predict other test images.
    config = override(CONFIG, {"eval.protocols": "finetune"})
    other = evaluate.evaluate(config, model, TRAIN, make_source(30, seed=3), folder)
    assert len(calls) == 1 and not steps
    assert other["eval/finetune_learning_rate"] == result["eval/finetune_learning_rate"]
    assert not list((folder / "features").glob("eval_finetune_runs_*/learning_rate*/checkpoints"))


def test_a_killed_training_continues_and_labels_of_test_images_choose_nothing(evaluated, tmp_path, monkeypatch):
    whole, model, result = evaluated
    poisoned = sources.ArraySource(TEST.images, np.roll(TEST.labels, 7), TEST.class_names)
    config = override(CONFIG, {"eval.protocols": "finetune"})
    fit, save = training_program._fit, callbacks.SaveCheckpoint.on_step_end
    started = []

    def watch(child, model, *arguments):
        started.append((child.optimizer.base_learning_rate, int(model.optimizer.iterations.numpy())))
        return fit(child, model, *arguments)

    def kill(self, step, logs):
        save(self, step, logs)
        if len(started) == 2 and step == 3:
            raise InterruptedError("killed")

    monkeypatch.setattr(training_program, "_fit", watch)
    monkeypatch.setattr(callbacks.SaveCheckpoint, "on_step_end", kill)
    with pytest.raises(OSError, match="run the same command again"):
        evaluate.evaluate(config, model, TRAIN, poisoned, tmp_path)
    found = evaluate.evaluate(config, model, TRAIN, poisoned, tmp_path)
    chosen = result["eval/finetune_learning_rate"]
    assert started == [(RATES[0], 0), (RATES[1], 0), (RATES[1], 3), (chosen, 0)]
    assert found["protocols"]["finetune"] == result["protocols"]["finetune"]
    before, after = (
        predictions.read(predictions.predictions_path(folder))["eval/finetune"] for folder in (whole, tmp_path)
    )
    np.testing.assert_array_equal(before.predicted, after.predicted)
    np.testing.assert_allclose(before.scores, after.scores, rtol=1e-5)
    assert (before.labels != after.labels).any()


def test_a_training_from_scratch_is_another_one_once_the_code_of_the_encoder_has_changed(
    evaluated, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "encoder_of_test_tuned.py"
    code.write_text("def build(image_size): ...")
    config = override(CONFIG, {"model.encoder": "encoder_of_test_tuned:build"})
    images = (cache.Images(part, source, 6) for part, source in (("train", TRAIN), ("test", TEST)))
    material = training.Material(config, evaluated[1], encoders.raw_pixels(config), *images, tmp_path)
    protocol = TUNED["supervised"](config)
    before = protocol.key(material)
    assert protocol.key(material) == before
    code.write_text("def build(image_size): ...  # changed")
    assert protocol.key(material) != before


def test_the_papers_grids():
    config = override(RunConfig(), {"eval.finetune_grid": "paper"})
    tuned, scratch = TUNED["finetune"](config).recipes, TUNED["supervised"](config).recipes
    assert len(tuned) == len(scratch) == 56  # The same budget.
    rates = sorted({recipe.learning_rate for recipe in tuned})
    np.testing.assert_allclose(rates, [1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2, 10**-1.5, 1e-1])
    decays = sorted(recipe.weight_decay * recipe.learning_rate for recipe in tuned if recipe.learning_rate == rates[3])
    np.testing.assert_allclose(decays, [0, 1e-6, 10**-5.5, 1e-5, 10**-4.5, 1e-4, 10**-3.5, 1e-3])
    rates = sorted({recipe.learning_rate for recipe in scratch})
    np.testing.assert_allclose([rates[0], rates[-1], len(rates)], [1e-3, 1, 7])
    decays = sorted(
        recipe.weight_decay * recipe.learning_rate for recipe in scratch if recipe.learning_rate == rates[3]
    )
    np.testing.assert_allclose([decays[0], decays[-1], len(decays)], [1e-5, 10**-1.5, 8])


def test_views_are_cropped_and_flipped_whatever_the_pretraining_made_of_them(tmp_path):
    changes = {
        "augmentation.operators": ("rotation", "sobel"),
        "augmentation.more_operators": ("cutout",),
        "augmentation.shared_crop": True,
    }
    config = override(CONFIG, changes)
    model = models.initial_model(config, 90, 6)
    images = (cache.Images(part, source, 6) for part, source in (("train", TRAIN), ("test", TEST)))
    material = training.Material(config, model, encoders.this_encoder(config, model), *images, tmp_path)
    (recipe,) = few_labels(config, 10, is_pretrained=True).recipes
    tuned = models.initial_model(training.child(material, recipe, TRAIN, tmp_path, start=None), 90, 6)
    (chain,) = tuned.augmentation.branches
    assert [type(operator) for operator in chain] == [RandomCrop, RandomFlip]
    assert chain[0].area == (CONFIG.augmentation.crop_min_area, 1.0)
    assert tuned.augmentation.shared_crop is None


def test_batch_norm_forgets_within_ten_steps_or_an_epoch():
    (recipe,) = few_labels(RunConfig(), 10, is_pretrained=True).recipes
    assert recipe.settings(256 * 1000, 1)["model.batch_norm_momentum"] == pytest.approx(1 - 10 / 1000)
    assert recipe.settings(256 * 20, 1)["model.batch_norm_momentum"] == 0.9
    assert recipe.settings(100, 1)["train.global_batch_size"] == 64
    assert recipe.settings(100, 3)["train.global_batch_size"] == 63


def test_the_most_accurate_on_held_out_images_wins_and_what_diverges_loses(tmp_path, monkeypatch):
    config = override(CONFIG, {"eval.finetune_grid": "paper"})
    model = models.initial_model(config, 90, 6)
    images = (cache.Images(part, source, 6) for part, source in (("train", TRAIN), ("test", TEST)))
    material = training.Material(config, model, encoders.this_encoder(config, model), *images, tmp_path)
    protocol = dataclasses.replace(TUNED["finetune"](config), recipes=TUNED["finetune"](config).recipes[:4])
    learnt, measured = [], iter([(0.5, 1.2), (0.5, 1.1), (0.4, 0.9)])

    def fit(child, source, strategy):
        if len(learnt) == 1:
            learnt.append(None)
            raise FloatingPointError("the loss is not finite")
        learnt.append(source)

    def measure(model, held_out, batch_size):
        rest, others = ({image.tobytes() for image in source.images} for source in (learnt[-1], held_out.source))
        assert not rest & others and len(rest | others) == 90 > len(rest) > 70
        return dict(zip(("top_1_accuracy", "log_loss"), next(measured), strict=True))

    monkeypatch.setattr(training, "fit", fit)
    monkeypatch.setattr(finetune, "_measure", measure)
    for recipe in protocol.recipes:
        (tmp_path / finetune.folder_of(recipe)).mkdir()
    assert protocol._choose(material, TRAIN, tmp_path)[0] == protocol.recipes[2]  # Of two equal ones, the surer.


def test_what_a_training_follows_from_is_in_its_key(evaluated, monkeypatch):
    folder, model, _ = evaluated
    encoder, images = encoders.this_encoder(CONFIG, model), cache.Images("train", TRAIN, 6)

    def key(changes, percent=1, is_pretrained=True):
        config = override(CONFIG, changes)
        material = training.Material(config, model, encoder, images, images, folder)
        return few_labels(config, percent, is_pretrained=is_pretrained).key(material)

    assert key({}) == key({"eval.batch_size": 7, "model_dir": "elsewhere"})
    changed = [
        {"data.image_size": 24},
        {"augmentation.crop_min_area": 0.5},
        {"seed": 1},
        {"eval.finetune_batch_size": 8},
    ]
    keys = [key({}), *map(key, changed), key({}, percent=10), key({}, is_pretrained=False)]
    assert len(set(keys)) == len(keys) == 7
    # What the trainings do not take from the run changes nothing; what they all do instead is in the key.
    assert key({}) == key({"augmentation.view_size": 12, "augmentation.operators": ("crop", "rotation")})
    monkeypatch.setitem(training._ALWAYS, "augmentation.operators", ("crop",))
    assert key({}) != keys[0]


def test_fewer_labels_than_devices_are_refused_before_anything_is_trained():
    protocol = TUNED["semi_supervised_1"](CONFIG)
    few = protocol.labelled(TRAIN).num_examples
    protocol.check(TRAIN, few)
    with pytest.raises(ValueError, match=rf"semi_supervised_1 needs as many .*Received: {few} and {few + 1}$"):
        protocol.check(TRAIN, few + 1)

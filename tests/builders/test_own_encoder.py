"""Encoders of the user's own, by --encoder=MODULE:FUNCTION: what is said about mistakes, and a run with one."""

import json
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from command import parse
from paths import ROOT

from tf_simclr import builders
from tf_simclr.evaluation.encoders import architecture
from tf_simclr.runs import checkpoints, models, weights
from tf_simclr.settings import RunConfig, override, rules

MODULE = '''
import functools
import tensorflow as tf
from tf_simclr.keras import keras

def build(image_size):
    """Layers of other kinds than a ResNet's, with names that Keras numbers."""
    return keras.Sequential([
        keras.Input([image_size, image_size, 3]),
        keras.layers.SeparableConv2D(6, 5, strides=4),
        keras.layers.GroupNormalization(2),
        keras.layers.ReLU(),
        keras.layers.SeparableConv2D(5, 3),
        keras.layers.GlobalAveragePooling2D(),
    ])

partial = functools.partial(build)

class Builder:
    def __call__(self, image_size):
        return build(image_size)

an_object = Builder()

class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.convolution = keras.layers.Conv2D(4, 5, strides=4)
        self.scale = self.add_weight("scale", [4], initializer="ones")

    def call(self, images, training=None):
        return tf.reduce_mean(self.convolution(images), axis=[1, 2]) * tf.cast(self.scale, self.compute_dtype)

class Block(keras.layers.Layer):
    """Keras numbers what is made in here anew in every block."""

    def build(self, shape):
        self.first, self.second = keras.layers.Dense(4), keras.layers.Dense(4)

    def call(self, features):
        return self.second(self.first(features))

def blocks(image_size):
    features = keras.layers.GlobalAveragePooling2D()(inputs := keras.Input([image_size, image_size, 3]))
    return keras.Model(inputs, keras.layers.Dense(4)(Block()(Block()(keras.layers.Dense(4)(features)))))

subclassed = lambda image_size: Subclassed()
nothing = lambda image_size: None
def two(image_size, width): ...
maps = lambda image_size: keras.Sequential([keras.Input([image_size, image_size, 3]), keras.layers.ReLU()])
grey = lambda image_size: keras.Sequential([keras.Input([image_size, image_size, 1]), keras.layers.Conv2D(2, 3)])
number = 7
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with modules of the user's; what is imported from there is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("def build(:")
    (tmp_path / "needs.py").write_text("import a_package_that_is_missing")
    yield tmp_path
    for name in ("mine", "broken", "needs"):
        sys.modules.pop(name, None)


def make_config(name, **changes):
    settings = {"model.encoder": name, "data.image_size": 16, "train.precision": "float32", "train.steps": 2,
                "optimizer.warmup_epochs": 0, "train.global_batch_size": 8}  # fmt: skip
    return override(RunConfig(), settings | {name.replace("__", "."): value for name, value in changes.items()})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "absent:build",
            r"there is no module absent: put it into .*, where the run starts, or install it. Received: ab",
        ),
        ("mine.inner:build", "there is no module mine.inner: put it into .* Received: mine.inner:build"),
        ("broken:build", r"the module cannot be imported \(SyntaxError: .*\). Received: broken:build"),
        (
            "needs:build",
            r"the module cannot be imported \(ModuleNotFoundError: .*a_package_that_is_missing.*\). Received: needs:b",
        ),
        ("mine:bild", "the module mine has no bild. Did you mean build. Received: mine:bild"),
        ("mine:number", r"must name a function of the image size alone, `def number\(image_size\)`. Received: mine:nu"),
        ("mine:two", r"must name a function of the image size alone, `def two\(image_size\)`. Received: mine:two"),
        (
            "mine:nothing",
            "must name a function that returns a Keras model. Received: mine:nothing, .* returns NoneType",
        ),
        (
            "mine:maps",
            r"the encoder must return representations \[B, F\], .* Received: mine:maps, which returns \[None, 16,",
        ),
        ("mine:grey", r"the encoder must take images \[B, 16, 16, 3\] \(.*\). Received: mine:grey"),
        ("mine:build:now", "must be one of resnet, .*MODULE:FUNCTION.* Received: mine:build:now"),
    ],
)
def test_a_mistake_is_one_sentence(here, name, message):
    with pytest.raises(ValueError, match=f"^--encoder: model.encoder:? ?{message}") as error:
        builders.build_encoder(make_config(name))
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not tf.__version__.startswith("2.2"), reason="Keras 3 is not installed beside TensorFlow 2.15")
def test_a_model_of_another_keras_is_refused(here):
    (here / "mine.py").write_text("import keras\nbuild = lambda size: keras.Sequential([keras.layers.Flatten()])")
    with pytest.raises(
        ValueError, match="The encoder of --encoder=mine:build must be of the Keras 2 .* Received: keras"
    ):
        builders.build_encoder(make_config("mine:build"))


def test_the_command_line_takes_both_forms_and_suggests_the_nearest_name():
    for name in ("keras:MobileNetV2", "package.module:build"):
        assert parse("--dataset=x", f"--encoder={name}").model.encoder == name
    with pytest.raises(ValueError, match=r"must be one of resnet, .* Did you mean vit_tiny\? Received: vit_tini"):
        parse("--dataset=x", "--encoder=vit_tini")
    assert rules.nearest("keras:VGG", builders.NAMES["model.encoder"]) == " Did you mean keras:NAME?"


@pytest.mark.parametrize("name", ["mine:build", "mine:subclassed"])
def test_it_has_the_runs_precision_and_penalties_and_the_size_if_there_is_one(here, name):
    encoder = builders.build_encoder(make_config(name, train__precision="mixed_bfloat16"), l2=0.5)
    assert encoder.compute_dtype == "bfloat16" and all(weight.dtype == tf.float32 for weight in encoder.weights)
    penalised = [weight for weight in encoder.weights if weight.shape.rank > 1 or "bias" in weight.name]
    for weight in encoder.weights:
        weight.assign_add(tf.ones_like(weight))  # so that no bias is zero
    expected = sum(0.25 * np.sum(weight.numpy() ** 2) for weight in penalised)
    assert len(penalised) < len(encoder.weights)
    np.testing.assert_allclose(sum(encoder.losses), expected, rtol=1e-5)
    several = builders.build_encoder(make_config(name, augmentation__view_size=20))
    assert several(np.zeros([1, 20, 20, 3])).shape == several(np.zeros([1, 16, 16, 3])).shape


@pytest.mark.parametrize("name", ["mine:build", "mine:blocks", "mine:subclassed"])
def test_weights_are_found_in_a_second_model_of_the_process(name, here):
    config = make_config(name)
    saved = builders.build_model(config, 160, None)
    prefix = checkpoints.make_checkpoint(saved).write(str(here / "ckpt-1"))
    again = builders.build_model(config, 160, None)
    assert [one.name for one in again.encoder.weights] != [one.name for one in saved.encoder.weights]
    models.start_from(prefix, again)
    for mine, theirs in zip(again.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert weights.digest(prefix) == weights.digest(checkpoints.make_checkpoint(again).write(str(here / "ckpt-2")))


@pytest.mark.parametrize("name", ["mine:build", "mine:partial", "mine:an_object"])
def test_what_is_kept_of_its_representations_follows_from_its_code(name, here):
    before = architecture(make_config(name))
    assert before == architecture(make_config(name)) and "code" not in architecture(make_config("resnet"))
    (here / "mine.py").write_text(f"{MODULE}\n# changed")
    assert architecture(make_config(name)) != before


@pytest.mark.slow
def test_a_run_from_the_command_line_checks_trains_resumes_evaluates_exports_and_embeds(here, photos):
    np.savez(here / "images.npz", images=np.concatenate([photos] * 2)[:, :16, :16], labels=np.arange(32) % 2)

    def call(*arguments):
        command = [sys.executable, str(ROOT / "run.py"), *arguments]
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr[-3000:]}"
        return done.stdout

    shared = [
        "--data_dir=images.npz",
        "--encoder=mine:build",
        "--image_size=16",
        "--model_dir=run",
        "--warmup_epochs=0",
    ]
    shared += [
        "--train_batch_size=8",
        "--optimizer=adam",
        "--checkpoint_steps=1",
        "--microbatch_size=3",
        "--train_steps=3",
    ]
    call("--mode=check", *shared)
    findings = {one["topic"]: one for one in json.loads((here / "run" / "check.json").read_text())["findings"]}
    assert "for the activations of 3 images" in findings["memory"]["found"]
    report = call("--mode=train_then_eval", "--eval_head_layers", *shared)
    assert "the projections" in report and "verified in a process without tf_simclr" in report
    result = json.loads((here / "run" / "result.json").read_text())
    assert result["global_step"] == 3 and {"eval/knn_top_1_accuracy", "eval_head_3/knn_top_1_accuracy"} <= set(result)
    for path in (here / "run" / "checkpoints").glob("ckpt-3.*"):
        path.unlink()
    shutil.rmtree(here / "run" / "saved_model")
    before = (here / "run" / "metrics.jsonl").read_text()
    call("--mode=train", "--model_dir=run")  # From step 2.
    assert (here / "run" / "metrics.jsonl").read_text() == before
    call("--mode=embed", "--model_dir=run", "--data_dir=images.npz", "--output_dir=embeddings")
    tuned = ["--data_dir=images.npz", "--train_mode=finetune", "--checkpoint=run", "--model_dir=tuned"]
    report = call("--mode=train_then_eval", "--train_steps=1", "--warmup_epochs=0", "--ft_proj_selector=1", *tuned)
    assert "the classifier" in report

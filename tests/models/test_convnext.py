"""ConvNeXt-Tiny: its size, that it leaves images as they are, penalties, and a run with it."""

import json

import numpy as np
import pytest
import tensorflow as tf

import run
from tf_simclr import builders
from tf_simclr.keras import keras
from tf_simclr.models.convnext import convnext_tiny
from tf_simclr.settings import RunConfig, override


@pytest.fixture(scope="module")
def encoder():
    settings = {"model.encoder": "convnext_tiny", "data.image_size": 32, "train.precision": "mixed_bfloat16"}
    return builders.build_encoder(override(RunConfig(), settings), l2=0.5)


def test_it_has_the_parameters_of_the_paper_and_no_preprocessing(encoder):
    assert encoder.output_shape == (None, 768) and encoder.output.dtype == tf.float32
    assert encoder.count_params() == 27_820_128  # 28.6 million with a classifier of 1,000 classes
    layers = [encoder, *encoder.submodules]
    assert not [layer for layer in layers if isinstance(layer, keras.layers.Normalization | keras.layers.Rescaling)]
    assert {layer.compute_dtype for layer in encoder.layers[1:-1]} == {"bfloat16"}
    # No operation that TensorFlow Serving would have to compile by XLA.
    graph = tf.function(encoder).get_concrete_function(tf.TensorSpec([2, 32, 32, 3])).graph
    functions = graph.as_graph_def().library.function
    assert not any("_XlaMustCompile" in function.attr for function in functions)


def test_kernels_and_biases_are_penalised_but_not_normalization(encoder):
    norms = [layer for layer in encoder.submodules if "norm" in type(layer).__name__.lower()]
    scales = [layer for layer in encoder.submodules if type(layer).__name__ == "LayerScale"]
    spared = {id(variable) for layer in (*norms, *scales) for variable in layer.trainable_variables}
    penalised = [variable for variable in encoder.trainable_variables if id(variable) not in spared]
    expected = sum(0.25 * np.sum(variable.numpy() ** 2) for variable in penalised)
    np.testing.assert_allclose(sum(encoder.losses), expected, rtol=1e-4)


def test_images_must_be_large_enough():
    with pytest.raises(ValueError, match="shrinks images by a factor of 32: use larger ones. Received: image_size 31"):
        convnext_tiny(31)


@pytest.mark.slow
def test_a_run_trains_resumes_is_fine_tuned_evaluated_and_exported(tmp_path, photos):
    np.savez(tmp_path / "images.npz", images=np.concatenate([photos] * 2), labels=np.arange(32) % 2)
    settings = {
        "mode": "train_then_eval", "data.dataset": "folder", "data.data_dir": str(tmp_path / "images.npz"),
        "data.image_size": 32, "model.encoder": "convnext_tiny", "train.global_batch_size": 4, "train.steps": 1,
        "optimizer.warmup_epochs": 0, "model_dir": str(tmp_path / "run"),
    }  # fmt: skip
    run.run(override(RunConfig(), settings))
    assert json.loads((tmp_path / "run/result.json").read_text())["global_step"] == 1
    run.run(override(RunConfig(), settings | {"mode": "export", "export.keep": None}))
    tuning = {"train_mode": "finetune", "checkpoint": str(tmp_path / "run"), "model_dir": str(tmp_path / "tuned")}
    report = run.run(override(RunConfig(), settings | tuning | {"finetune.after_block": 4}))
    assert "the classifier" in report and "verified in a process without tf_simclr" in report

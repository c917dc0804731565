"""Encoders of Keras applications: they leave images as they are, repeat their steps, and take the run's settings."""

import json

import numpy as np
import pytest
import tensorflow as tf

import run
from tf_simclr import builders, gradient_cache
from tf_simclr.keras import keras
from tf_simclr.models import applications
from tf_simclr.models.applications import application
from tf_simclr.models.layers import BatchNormalization
from tf_simclr.settings import RunConfig, override

# One of every kind, with the number of its parameters without a classifier.
KINDS = {
    "ConvNeXtTiny": 27_820_128,
    "DenseNet121": 7_037_504,
    "EfficientNetB0": 4_049_564,  # Keras counts 7 statistics of its preprocessing, too.
    "EfficientNetV2B0": 5_919_312,
    "InceptionResNetV2": 54_336_736,
    "InceptionV3": 21_802_784,
    "MobileNet": 3_228_864,
    "MobileNetV2": 2_257_984,
    "MobileNetV3Small": 939_120,
    "ResNet50": 23_587_712,
    "ResNet50V2": 23_564_800,
    "ResNetRS50": 33_696_288,
    "VGG16": 14_714_688,
    "Xception": 20_861_480,
}
QUICK = ("ConvNeXtTiny", "MobileNetV3Small")
NORMALIZING = keras.layers.Normalization | keras.layers.Rescaling


def make(name, image_size=32, **settings):
    config = {"model.encoder": name, "data.image_size": image_size, "train.precision": "mixed_bfloat16"}
    return builders.build_encoder(override(RunConfig(), config), **settings)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in KINDS]
)
def test_every_kind_takes_images_as_they_are_and_the_settings_of_the_run(name):
    size = applications.smallest_size(name)
    encoder = make(f"keras:{name}", size, batch_norm_momentum=0.7, synchronized=True, l2=0.5)
    assert encoder.count_params() == KINDS[name]
    assert encoder.output_shape[1] >= 368 and encoder.output.dtype == tf.float32
    layers = [layer for layer in encoder.submodules if isinstance(layer, keras.layers.Layer)]
    assert not [layer for layer in layers if isinstance(layer, NORMALIZING)]
    gradient_cache.check_layers([encoder], num_replicas=1)  # Nothing draws random numbers.
    assert {layer.compute_dtype for layer in encoder.layers[1:-1]} == {"bfloat16"}
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert all(type(norm) is BatchNormalization and norm.momentum == 0.7 and norm.synchronized for norm in norms)
    assert bool(norms) == (name not in ("ConvNeXtTiny", "VGG16"))

    images = np.random.default_rng(0).uniform(size=[2, size, size, 3]).astype(np.float32)
    for norm in norms:
        norm.synchronized = False
    first = encoder(images, training=True)
    np.testing.assert_array_equal(first, encoder(images, training=True))
    assert np.any(first[0] != first[1])
    # No operation that TensorFlow Serving would have to compile by XLA.
    graph = tf.function(encoder).get_concrete_function(tf.TensorSpec([2, size, size, 3])).graph
    assert not any("_XlaMustCompile" in function.attr for function in graph.as_graph_def().library.function)


def test_the_first_layer_sees_the_pixels():
    """A scale or a mean that is hidden in front of the network would show in the response to constant images."""
    images = keras.Input([32, 32, 3])
    network = application("MobileNetV3Small", 32)
    first = next(layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))
    inner = keras.Model(network.input, first.output)(images)
    found = keras.Model(images, inner)(np.full([1, 32, 32, 3], 0.25, np.float32))
    np.testing.assert_allclose(found[0, 5, 5], 0.25 * np.sum(first.kernel, axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)


def test_kernels_and_biases_are_penalised_but_not_normalization():
    encoder = make("convnext_tiny", l2=0.5)
    norms = [layer for layer in encoder.submodules if "norm" in type(layer).__name__.lower()]
    scales = [layer for layer in encoder.submodules if type(layer).__name__ == "LayerScale"]
    spared = {id(variable) for layer in (*norms, *scales) for variable in layer.trainable_variables}
    penalised = [variable for variable in encoder.trainable_variables if id(variable) not in spared]
    expected = sum(0.25 * np.sum(variable.numpy() ** 2) for variable in penalised)
    np.testing.assert_allclose(sum(encoder.losses), expected, rtol=1e-4)
    assert not make("convnext_tiny").losses


def test_views_may_have_another_size():
    settings = {"model.encoder": "keras:MobileNetV3Small", "data.image_size": 64, "augmentation.view_size": 48}
    encoder = builders.build_encoder(override(RunConfig(), settings))
    assert encoder(np.zeros([1, 48, 48, 3])).shape == encoder(np.zeros([1, 64, 64, 3])).shape == [1, 576]


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("convnext_tiny", 31, "ConvNeXtTiny takes images of at least 32 px: use --image_size=32. Received: image_size"),
        ("keras:Xception", 32, "Xception takes images of at least 71 px: use --image_size=71. Received: image_size 32"),
        ("keras:MobilNetV2", 32, "must be one of keras:.* Did you mean keras:MobileNetV2. Received: keras:MobilNetV2"),
        ("keras:RegNetX002", 32, "must be one of keras:.* Received: keras:RegNetX002"),  # XLA alone computes it.
        ("keras:", 32, "must be one of resnet, .*, keras:NAME, MODULE:FUNCTION.* Received: keras:$"),
    ],
)
def test_what_cannot_be_built_is_refused(name, size, message):
    with pytest.raises(ValueError, match=message):
        make(name, size)
    with pytest.raises(ValueError, match="at least 32 px. Received: image_size 8"):
        application("VGG16", 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["keras:MobileNetV3Small", "convnext_tiny", "vit_tiny"])
def test_a_run_trains_resumes_is_fine_tuned_evaluated_and_exported(name, tmp_path, photos):
    np.savez(tmp_path / "images.npz", images=np.concatenate([photos] * 2), labels=np.arange(32) % 2)
    settings = {
        "mode": "train_then_eval", "data.dataset": "folder", "data.data_dir": str(tmp_path / "images.npz"),
        "data.image_size": 32, "model.encoder": name, "train.global_batch_size": 4, "train.steps": 1,
        "optimizer.warmup_epochs": 0, "model_dir": str(tmp_path / "run"),
    }  # fmt: skip
    run.run(override(RunConfig(), settings))
    assert json.loads((tmp_path / "run/result.json").read_text())["global_step"] == 1
    run.run(override(RunConfig(), settings | {"mode": "export", "export.keep": None}))
    tuning = {"train_mode": "finetune", "checkpoint": str(tmp_path / "run"), "model_dir": str(tmp_path / "tuned")}
    report = run.run(override(RunConfig(), settings | tuning | {"finetune.after_block": 4}))
    assert "the classifier" in report and "verified in a process without tf_simclr" in report

"""Encoders and heads: sizes, initial values and structure of the reference."""

import json

import numpy as np
import pytest
import tensorflow as tf
from paths import GOLDEN

from tf_simclr.keras import keras
from tf_simclr.models import resnet as resnet_module
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.layers import BatchNormalization, LayerFactory
from tf_simclr.models.resnet import resnet


def count(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


ROWS = json.loads((GOLDEN / "resnet_counts.json").read_text())


# Both kinds of blocks, both stems, another width and selective kernels; the others combine these.
FAST = [row for row in ROWS if row["depth"] == 18 or row["width"] == 2 or row["sk_ratio"] > 0]


@pytest.mark.parametrize("row", [pytest.param(row, marks=[pytest.mark.slow] * (row not in FAST)) for row in ROWS])
def test_encoders_have_the_sizes_of_the_reference(row, monkeypatch):
    # Random numbers take longer than all the rest.
    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", lambda self, shape, **_: tf.zeros(shape))
    stem = "cifar" if row["image_size"] <= 32 else "imagenet"
    encoder = resnet(row["depth"], row["width"], stem, sk_ratio=row["sk_ratio"])
    assert count(encoder.trainable_variables) == row["trainable"]
    assert count(encoder.non_trainable_variables) == row["non_trainable"]
    assert len(encoder.trainable_variables) == row["num_trainable_tensors"]
    assert encoder.output_shape[-1] == row["feature_dim"]


def test_the_reference_has_selective_kernels():
    assert any(row["sk_ratio"] > 0 for row in ROWS)


def test_residual_branches_start_as_zero():
    encoder = resnet(18, 0.25, "cifar")
    scales = [layer.gamma for group in encoder.layers[3:7] for layer in group.layers if hasattr(layer, "gamma")]
    zeros = sum(not np.any(scale) for scale in scales)
    assert zeros == 8  # the last batch norm of each of the 8 blocks
    assert len(scales) == 20  # two for each block, one for each of the 4 projection shortcuts


@pytest.mark.parametrize(("stem", "size", "smallest"), [("cifar", 8, 1), ("strided", 32, 2), ("imagenet", 64, 2)])
def test_stems_shrink_images_as_they_say(stem, size, smallest):
    encoder = resnet(10, 0.1, stem, image_size=size)
    assert encoder.layers[-2].output_shape[1:3] == (smallest, smallest)


def convolve(images, kernel, stride=1, padding=((0, 0), (0, 0))):
    """Slow 2-D convolution of [H, W, C] with [k, k, C, D], after padding with zeros."""
    images = np.pad(images, (*padding, (0, 0)))
    size = kernel.shape[0]
    height, width = ((length - size) // stride + 1 for length in images.shape[:2])
    return np.array(
        [
            [
                np.tensordot(images[stride * y : stride * y + size, stride * x : stride * x + size], kernel, 3)
                for x in range(width)
            ]
            for y in range(height)
        ]
    )


def test_selective_kernels_mix_two_convolutions_as_the_image_asks():
    build = LayerFactory(False, 0.9, 0.0, None, sk_ratio=0.0625, se_ratio=0.0)
    inputs = keras.Input([5, 5, 3])
    model = keras.Model(inputs, resnet_module._selective_kernel(build, inputs, filters=4, stride=2))
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, weight.shape) for weight in model.get_weights()])
    kernels = [layer.kernel.numpy() for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [kernel.shape for kernel in kernels] == [(3, 3, 3, 8), (1, 1, 4, 32), (1, 1, 32, 8)]
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]

    def normalize(values, layer):
        gamma, beta, mean, variance = layer.get_weights()
        return np.maximum(gamma * (values - mean) / np.sqrt(variance + 1e-5) + beta, 0)

    image = rng.normal(size=[5, 5, 3])
    streams = normalize(convolve(image, kernels[0], 2, ((1, 1), (1, 1))), norms[0])
    streams = np.stack([streams[..., :4], streams[..., 4:]])
    summary = normalize(streams.sum(0).mean((0, 1)) @ kernels[1][0, 0], norms[1])
    scores = np.exp((summary @ kernels[2][0, 0]).reshape(2, 4))
    expected = (streams * (scores / scores.sum(0))[:, None, None]).sum(0)
    np.testing.assert_allclose(model(image[None].astype(np.float32))[0], expected, rtol=1e-4)


def test_shortcuts_of_resnet_d_average_before_they_project():
    build = LayerFactory(False, 0.9, 0.0, None, sk_ratio=0.0625, se_ratio=0.0)
    inputs = keras.Input([5, 5, 3])
    model = keras.Model(inputs, resnet_module._shortcut(build, inputs, filters=2, stride=2))
    kernel = next(layer.kernel.numpy() for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    image = np.random.default_rng(0).normal(size=[5, 5, 3])
    padded = np.pad(image, ((0, 1), (0, 1), (0, 0)))  # the zeros count
    pooled = padded.reshape(3, 2, 3, 2, 3).mean((1, 3))
    expected = pooled @ kernel[0, 0] / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(model(image[None].astype(np.float32))[0], expected, rtol=1e-4, atol=1e-5)


def test_squeeze_and_excitation_scales_channels():
    build = LayerFactory(False, 0.9, 0.0, None, sk_ratio=0.0, se_ratio=0.5)
    inputs = keras.Input([2, 2, 4])
    model = keras.Model(inputs, resnet_module._squeeze_and_excite(build, inputs, filters=4))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    reduce, reduce_bias, expand, expand_bias = model.get_weights()
    assert reduce.shape == (1, 1, 4, 2) and expand.shape == (1, 1, 2, 4)
    image = rng.normal(size=[2, 2, 4])
    squeezed = np.maximum(image.mean((0, 1)) @ reduce[0, 0] + reduce_bias, 0)
    expected = image / (1 + np.exp(-squeezed @ expand[0, 0] - expand_bias))
    np.testing.assert_allclose(model(image[None].astype(np.float32))[0], expected, rtol=1e-4)


def test_a_final_convolution_widens_the_representation():
    encoder = resnet(10, 0.1, "strided", num_groups=2, final_width=7)
    rng = np.random.default_rng(0)
    encoder.set_weights([rng.uniform(0.1, 1, weight.shape) * rng.choice([-1, 1], weight.shape) ** (weight.ndim > 3)
                         for weight in encoder.get_weights()])  # fmt: skip
    images = rng.uniform(size=[3, 8, 6, 3]).astype(np.float32)
    outputs = {name: value.numpy() for name, value in encoder.endpoints(images).items()}
    assert list(outputs)[-3:] == ["block_group2", "final_conv", "final_avg_pool"]
    kernel, gamma, beta, mean, variance = encoder.get_layer("final_conv").get_weights()
    normalized = gamma * (outputs["block_group2"] @ kernel[0, 0] - mean) / np.sqrt(variance + 1e-5) + beta
    expected = np.maximum(normalized, 0)
    assert expected.shape == (3, 2, 2, 7) and 0.1 < np.mean(expected > 0) < 0.9
    np.testing.assert_allclose(outputs["final_conv"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(encoder(images), expected.mean((1, 2)), rtol=1e-4, atol=1e-5)
    encoder.freeze(2)
    assert count(encoder.trainable_variables) == count(encoder.get_layer("final_conv").trainable_variables)
    encoder.freeze(4)
    assert not encoder.trainable_variables


def test_moving_variance_is_that_of_the_batch():
    layer = BatchNormalization(momentum=0.0)
    images = np.random.default_rng(0).normal(size=[3, 1, 1, 2]).astype(np.float32)
    layer(images, training=True)
    np.testing.assert_allclose(layer.moving_variance, images.var((0, 1, 2)), rtol=1e-5)


def test_half_precision_encoders_return_float32():
    encoder = resnet(10, 0.1, "strided", dtype="mixed_bfloat16")
    assert encoder(tf.zeros([2, 32, 32, 3])).dtype == tf.float32
    assert {variable.dtype for variable in encoder.variables} == {tf.float32}
    assert any(layer.compute_dtype == "bfloat16" for layer in encoder.layers[2].layers)


def test_l2_penalty_is_half_the_sum_of_the_squared_kernels():
    encoder = resnet(10, 0.1, "cifar", l2=0.5)
    kernels = [variable for variable in encoder.trainable_variables if variable.shape.rank > 1]
    np.testing.assert_allclose(sum(encoder.losses), 0.5 * sum(tf.nn.l2_loss(kernel) for kernel in kernels), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 19}, "depth must be one of"),
        ({"stem": "cifar10"}, "stem must be one of"),
        ({"width_multiplier": 0}, "width_multiplier must be positive"),
        ({"stem": "imagenet", "image_size": 16}, "shrinks images by a factor of 32"),
        ({"num_groups": 5}, "num_groups must be from 1 to 4"),
        ({"final_width": 0}, "final_width must be at least 1"),
        ({"sk_ratio": -1}, "sk_ratio must be from 0 to 1"),
        ({"se_ratio": 1.5}, "se_ratio must be from 0 to 1"),
    ],
)
def test_resnet_rejects_what_it_cannot_build(arguments, message):
    with pytest.raises(ValueError, match=message):
        resnet(**{"depth": 10, **arguments})


def test_dense_initial_values():
    head = ProjectionHead(1, output_dim=256)
    head(tf.zeros([1, 512]))
    kernel = next(variable for variable in head.trainable_variables if variable.shape.rank == 2)
    np.testing.assert_allclose(np.std(kernel), 0.01, rtol=0.05)
    convolution = next(
        layer for layer in resnet(18, stem="cifar").layers[3].layers if isinstance(layer, keras.layers.Conv2D)
    )
    fan_in = np.prod(convolution.kernel.shape[:3])
    np.testing.assert_allclose(np.std(convolution.kernel), np.sqrt(1 / fan_in), rtol=0.1)

"""The convolution with its own gradient of the kernel: against TensorFlow's, and in the networks."""

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr import devices
from tf_simclr.keras import keras
from tf_simclr.models import convolution
from tf_simclr.models.resnet import resnet


def normal(*shape, seed, dtype="float64"):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "padding"),
    [((5, 7), 3, 1, "SAME"), ((3, 3), 3, 1, "SAME"), ((9, 8), 3, 2, "VALID"), ((8, 9), 3, 2, "VALID"),
     ((6, 5), 1, 1, "SAME"), ((6, 7), 1, 2, "VALID"), ((9, 9), 3, 3, "VALID"), ((1, 2), 3, 1, "SAME")],
)  # fmt: skip
def test_output_and_gradients_are_those_of_tensorflow(size, kernel_size, stride, padding):
    images, kernel = normal(4, *size, 6, seed=0), normal(kernel_size, kernel_size, 6, 5, seed=1)
    found = []
    for convolve in (convolution.convolve, tf.nn.conv2d):
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            outputs = convolve(images, kernel, stride, padding)
            loss = tf.reduce_sum(outputs * normal(*outputs.shape, seed=2))
        found.append((outputs, *tape.gradient(loss, [images, kernel])))
    for ours, theirs in zip(*found, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_in_bfloat16_the_gradient_is_as_precise_as_that_of_tensorflow():
    images, slopes = tf.nn.relu(normal(64, 8, 8, 64, seed=0)), 1e-4 * (normal(64, 8, 8, 64, seed=1) + 0.2)
    images, slopes = tf.cast(images, tf.bfloat16), tf.cast(slopes, tf.bfloat16)
    same = {"filter_sizes": [3, 3, 64, 64], "strides": [1, 1, 1, 1], "padding": "SAME"}

    def of_tensorflow(dtype):
        return tf.raw_ops.Conv2DBackpropFilter(
            input=tf.cast(images, dtype), out_backprop=tf.cast(slopes, dtype), **same
        )

    exact = of_tensorflow(tf.float32)
    ours, theirs = (
        np.linalg.norm(tf.cast(found, tf.float32) - exact)
        for found in (convolution.kernel_gradient(images, slopes, 3, 1, 1), of_tensorflow(tf.bfloat16))
    )
    assert 0 < ours <= 1.01 * theirs


def operations(layer, size=8, training=True):
    """The kinds of operations of a layer's forward and backward pass."""

    @tf.function
    def run(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(images, training=training))
        return tape.gradient(loss, layer.trainable_weights)

    graph = run.get_concrete_function(tf.TensorSpec([4, size, size, layer.channels])).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, True), ({"strides": 2}, True), ({"use_bias": True}, True), ({"size": 16}, False), ({"channels": 32}, False),
     ({"dtype": "float32"}, False), ({"training": False}, False), ({"on_accelerator": True}, False)],
)  # fmt: skip
def test_only_small_images_of_many_channels_in_bfloat16_on_a_cpu_take_products(changes, expected, monkeypatch):
    settings = {"strides": 1, "use_bias": False, "dtype": "mixed_bfloat16"} | changes
    run = {name: settings.pop(name) for name in ("size", "training") if name in settings}
    channels = settings.pop("channels", 64)
    is_accelerated = settings.pop("on_accelerator", False)
    monkeypatch.setattr(devices, "on_accelerator", lambda: is_accelerated)
    layer = convolution.Conv2D(8, 3, padding="valid" if settings["strides"] == 2 else "same", **settings)
    layer.channels = channels
    found = operations(layer, **run)
    assert ("MatMul" in found, "Conv2DBackpropFilter" in found) == (expected, not expected)


def test_a_network_learns_as_well_from_products(monkeypatch):
    """Its gradients in bfloat16 are as near to those of float32 as TensorFlow's."""
    images = normal(6, 16, 16, 3, seed=0, dtype="float32")
    gradients = []
    for pixels, dtype in ((0, "float32"), (0, "mixed_bfloat16"), (convolution.MAX_PIXELS, "mixed_bfloat16")):
        monkeypatch.setattr(convolution, "MAX_PIXELS", pixels)
        keras.utils.set_random_seed(1)
        network = resnet(18, stem="strided", num_groups=2, image_size=16, dtype=dtype)
        for gamma in [one for one in network.trainable_weights if not one.numpy().any() and "gamma" in one.name]:
            gamma.assign(tf.ones_like(gamma))  # So that the gradient of no kernel is zero.
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(network(images, training=True) ** 2)
        found = tape.gradient(loss, network.trainable_weights)
        gradients.append([gradient for gradient in found if gradient.shape.rank == 4])
    errors = [
        [float(tf.norm(one - exact) / tf.norm(exact)) for one, exact in zip(found, gradients[0], strict=True)]
        for found in gradients[1:]
    ]
    assert len(errors[0]) > 8 and min(errors[0]) > 0 and max(errors[0]) < 0.5
    assert errors[0] != errors[1]
    np.testing.assert_array_less(errors[1], 1.1 * np.array(errors[0]))


def test_half_precision_stays_half_between_the_groups():
    network = resnet(18, stem="strided", num_groups=2, image_size=16, dtype="mixed_bfloat16")
    run = tf.function(lambda images: network(images, training=True))
    graph = run.get_concrete_function(tf.TensorSpec([4, 16, 16, 3])).graph
    widened = [
        one.name for one in graph.get_operations()
        if one.type == "Cast" and one.inputs[0].dtype == tf.bfloat16 and one.inputs[0].shape.rank == 4
    ]  # fmt: skip
    assert len(widened) == 1 and "final_avg_pool" in widened[0]

"""The convolution by matrix products: against TensorFlow's, and in the networks."""

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr import devices
from tf_simclr.activation_memory import bytes_per_view
from tf_simclr.keras import keras
from tf_simclr.models import convolution
from tf_simclr.models.resnet import resnet


def normal(*shape, seed, dtype="float64"):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "padding"),
    [((5, 7), 3, 1, "SAME"), ((3, 3), 3, 1, "SAME"), ((9, 8), 3, 2, "VALID"), ((8, 9), 3, 2, "VALID"),
     ((4, 6), 3, 1, "VALID"), ((4, 3), 5, 1, "SAME"), ((1, 2), 5, 1, "SAME"), ((2, 2), 2, 2, "VALID"),
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


@pytest.mark.parametrize("size", [8, 3])
def test_in_bfloat16_products_are_as_precise_as_tensorflow(size):
    images, slopes = (normal(64, size, size, 64, seed=seed) for seed in (0, 1))
    values = (tf.nn.relu(images), 0.04 * normal(3, 3, 64, 64, seed=2), 1e-4 * (slopes + 0.2))
    halves = [tf.cast(value, tf.bfloat16) for value in values]

    def run(convolve, dtype):
        images, kernel, slopes = (tf.cast(value, dtype) for value in halves)
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            outputs = convolve(images, kernel, 1, "SAME")
        return outputs, *tape.gradient(outputs, [images, kernel], slopes)

    exact = run(tf.nn.conv2d, tf.float32)
    for ours, theirs, truth in zip(
        run(convolution.convolve, tf.bfloat16), run(tf.nn.conv2d, tf.bfloat16), exact, strict=True
    ):
        error, allowed = (np.linalg.norm(tf.cast(found, tf.float32) - truth) for found in (ours, theirs))
        assert 0 < error <= 1.01 * allowed


def by_tensorflow(layer, size=8, training=True):
    """What TensorFlow's convolution does in a layer's forward and backward pass, of the output and two gradients."""

    @tf.function
    def run(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(layer(images, training=training))
        return tape.gradient(loss, [images, layer.kernel])

    graph = run.get_concrete_function(tf.TensorSpec([4, size, size, layer.channels])).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert ("MatMul" in kinds) == ("Conv2DBackpropFilter" not in kinds)
    return [kind in kinds for kind in ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter")]


ALL, NOT_KERNEL, ONLY_IMAGES, NOTHING = [True, True, True], [True, True, False], [False, True, False], [False] * 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, NOT_KERNEL), ({"strides": 2, "size": 14}, NOT_KERNEL), ({"use_bias": True}, NOT_KERNEL), ({"size": 16}, ALL),
     ({"channels": 32}, ALL), ({"dtype": "float32"}, ALL), ({"training": False}, ALL), ({"on_accelerator": True}, ALL),
     ({"size": 4}, NOTHING), ({"size": 4, "dtype": "float32"}, NOTHING), ({"strides": 2}, ONLY_IMAGES),
     ({"size": 4, "kernel_size": 1}, NOT_KERNEL), ({"size": 4, "training": False}, ALL), ({"size": 5}, NOT_KERNEL)],
)  # fmt: skip
def test_only_small_images_of_many_channels_on_a_cpu_take_products(changes, expected, monkeypatch):
    settings = {"kernel_size": 3, "strides": 1, "use_bias": False, "dtype": "mixed_bfloat16"} | changes
    run = {name: settings.pop(name) for name in ("size", "training") if name in settings}
    channels = settings.pop("channels", 64)
    is_accelerated = settings.pop("on_accelerator", False)
    monkeypatch.setattr(devices, "on_accelerator", lambda: is_accelerated)
    layer = convolution.Conv2D(8, padding="valid" if settings["strides"] == 2 else "same", **settings)
    layer.channels = channels
    assert by_tensorflow(layer, **run) == expected


@pytest.mark.parametrize(
    "changes",
    [{"activation": "relu"}, {"dilation_rate": 2}, {"groups": 2}, {"strides": (1, 2)}, {"strides": 2},
     {"kernel_size": (3, 1)}, {"kernel_size": 2}, {"use_bias": True}],
)  # fmt: skip
def test_training_gives_the_output_of_evaluation_with_every_option_of_the_layer(changes):
    layer = convolution.Conv2D(**({"filters": 8, "kernel_size": 3, "padding": "same"} | changes))
    images = normal(2, 4, 4, 64, seed=0, dtype="float32")
    layer.build(images.shape)
    layer.set_weights([normal(*weight.shape, seed=1) for weight in layer.get_weights()])
    np.testing.assert_allclose(layer(images, training=True), layer(images, training=False), rtol=1e-4, atol=1e-4)


def test_products_are_not_taken_for_memory_that_a_view_needs(monkeypatch):
    network = resnet(10, stem="strided", num_groups=3, image_size=24)
    found = bytes_per_view(network, 24)
    monkeypatch.setattr(convolution.Conv2D, "_pays", lambda *_: False)
    assert found == bytes_per_view(network, 24)


def test_a_network_learns_as_well_from_products(monkeypatch):
    """Its gradients in bfloat16 are as near to those of float32 as TensorFlow's."""
    images = normal(6, 16, 16, 3, seed=0, dtype="float32")
    gradients, pays = [], convolution.Conv2D._pays
    for products, dtype in ((False, "float32"), (False, "mixed_bfloat16"), (True, "mixed_bfloat16")):
        monkeypatch.setattr(convolution.Conv2D, "_pays", pays if products else lambda *_: False)
        keras.utils.set_random_seed(1)
        network = resnet(18, stem="strided", num_groups=3, image_size=16, dtype=dtype)
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

"""The gradient of a large batch from micro-batches: every parameter, replicas, XLA, batch norm, precision."""

import contextlib
import types

import numpy as np
import pytest
import tensorflow as tf
from replicas import mirrored
from tiny import LABELS, microbatch_model

from tf_simclr.activation_memory import suggest_microbatch
from tf_simclr.keras import keras
from tf_simclr.losses import LOSSES
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.simclr import SimCLR


def train(model, images):
    """Metrics after a step on the whole batch, and what it changed every variable by."""
    before = [variable.numpy() for variable in model.trainable_variables]
    dataset = tf.data.Dataset.from_tensor_slices((images, LABELS[: len(images)])).batch(len(images))
    history = model.fit(dataset, verbose=0).history
    after = [variable.numpy() for variable in model.trainable_variables]
    return {name: values[-1] for name, values in history.items()}, [b - a for b, a in zip(before, after, strict=True)]


def check_equal(found, expected, tolerance):
    for name, value in expected[0].items():
        np.testing.assert_allclose(found[0][name], value, rtol=max(tolerance, 1e-5), err_msg=name)
    for gradient, other in zip(found[1], expected[1], strict=True):
        assert np.any(other)
        np.testing.assert_allclose(gradient, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.fixture(scope="module")
def whole_batch(photos):
    """A step without micro-batches."""
    return train(microbatch_model(0), photos)


@pytest.mark.parametrize(
    "microbatch_size", [pytest.param(1, marks=pytest.mark.slow), 7, pytest.param(20, marks=pytest.mark.slow)]
)
def test_gradient_is_that_of_the_whole_batch(microbatch_size, photos, whole_batch):
    check_equal(train(microbatch_model(microbatch_size), photos), whole_batch, 1e-10)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "nt_xent"])
def test_every_loss_compares_the_whole_batch(name, photos):
    found, expected = (train(microbatch_model(size, loss=LOSSES[name]()), photos) for size in (7, 0))
    check_equal(found, expected, 1e-10)


@pytest.mark.slow
def test_gradient_of_three_views(photos):
    found, expected = (train(microbatch_model(size, num_views=3), photos) for size in (7, 0))
    check_equal(found, expected, 1e-10)


@pytest.mark.slow
def test_gradient_is_the_same_with_xla(photos, whole_batch):
    # XLA rounds the pixels, which are float32, in its own way.
    check_equal(train(microbatch_model(7, jit_compile=True), photos), whole_batch, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_replicas", [2, 4])
def test_on_replicas(num_replicas, photos, whole_batch):
    with mirrored(num_replicas).scope():
        model = microbatch_model(3)
    check_equal(train(model, photos), whole_batch, 1e-10)


# For every micro-batch, replica after replica, its first image and the first that is new in it.
@pytest.mark.parametrize(
    ("microbatch_size", "num_replicas", "jit_compile", "parts"),
    [
        (4, 1, False, [(0, 0), (4, 4), (8, 8), (12, 12)]),
        pytest.param(7, 1, True, [(0, 0), (7, 7), (9, 14)], marks=pytest.mark.slow),
        pytest.param(3, 2, False, [(0, 0), (3, 3), (5, 6), (8, 8), (11, 11), (13, 14)], marks=pytest.mark.slow),
    ],
)
def test_batch_norm_has_the_statistics_of_micro_batches_and_moves_once(
    photos, microbatch_size, num_replicas, jit_compile, parts
):
    model = microbatch_model(0, batch_norm=True)
    norm = model.encoder.layers[1]
    moved = []
    with tf.GradientTape() as tape:
        views = []
        for first, first_new in parts:
            norm.moving_mean.assign(tf.zeros_like(norm.moving_mean))
            norm.moving_variance.assign(tf.ones_like(norm.moving_variance))
            keys = tf.constant([[0, index] for index in range(first, first + microbatch_size)], tf.int64)
            outputs = model.encode_views({"images": photos[first : first + microbatch_size], "keys": keys})
            views.append([[view[first_new - first :] for view in tf.split(output, 2)] for output in outputs])
            moved.append([norm.moving_mean.numpy(), norm.moving_variance.numpy()])
        outputs = [tf.concat([part[which][view] for view in range(2) for part in views], axis=0) for which in range(2)]
        objective, _ = model.compare_views(outputs, tf.constant(LABELS))
    expected = tape.gradient(objective, model.trainable_variables)
    with mirrored(num_replicas).scope() if num_replicas > 1 else contextlib.nullcontext():
        model = microbatch_model(microbatch_size, batch_norm=True, jit_compile=jit_compile)
    _, found = train(model, photos)
    tolerance = 1e-5 if jit_compile else 1e-10  # XLA rounds the pixels, which are float32, in its own way.
    # Behind batch norm, the gradient of the convolution's bias is zero: all are measured by the largest.
    scale = max(np.abs(gradient).max() for gradient in expected)
    for gradient, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=0, atol=tolerance * scale)
    norm = model.encoder.layers[1]
    np.testing.assert_allclose([norm.moving_mean, norm.moving_variance], np.mean(moved, axis=0), rtol=tolerance)


@pytest.mark.slow
def test_half_precision(photos):
    found, expected = (train(microbatch_model(size, dtype="mixed_bfloat16"), photos) for size in (3, 0))
    np.testing.assert_allclose(found[0]["loss"], expected[0]["loss"], rtol=1e-3)
    norm = tf.linalg.global_norm(expected[1])
    difference = [one - other for one, other in zip(found[1], expected[1], strict=True)]
    assert tf.linalg.global_norm(difference) < 0.02 * norm


def test_refuses_what_would_give_another_gradient():
    encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dropout(0.1)])
    with pytest.raises(ValueError, match="draws random numbers. Received: dropout"):
        SimCLR(encoder, image_size=16, microbatch_size=4)
    with mirrored(4).scope(), pytest.raises(ValueError, match="synchronized=False. Received: .* on 4 replicas"):
        SimCLR(
            keras.Sequential([keras.layers.Flatten()]),
            ProjectionHead(1, synchronized=True),
            image_size=16,
            microbatch_size=4,
        )
    with pytest.raises(ValueError, match="microbatch_size must be positive, or 0 for none. Received: -1"):
        microbatch_model(-1)


def test_refuses_the_accumulation_of_keras():
    optimizer = types.SimpleNamespace(gradient_accumulation_steps=4)  # as `keras.optimizers` of Keras 3 has it
    with pytest.raises(ValueError, match="use microbatch_size .* Received: gradient_accumulation_steps=4"):
        microbatch_model(0).compile(optimizer)


def test_suggests_what_fits():
    encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(8, use_bias=False)])
    encoder.build([None, 4, 4, 3])
    # A view: the image, its flat copy and its representation. The kernel: 48 x 8.
    per_image, kernel = 2 * 4 * (48 + 48 + 8), 4 * 48 * 8
    assert suggest_microbatch(encoder, 4, 4 * kernel + 8 * per_image) == 8
    assert suggest_microbatch(encoder, 4, 4 * kernel + 8 * per_image - 1) == 4
    assert suggest_microbatch(encoder, 4, 0) == 1
    mean = keras.Sequential([keras.Input([None, None, 3]), keras.layers.GlobalAveragePooling2D()])
    per_image = 2 * 4 * (48 + 3) + 3 * 4 * (12 + 3)  # two views of 4 px, and three small ones of half of that
    assert suggest_microbatch(mean, 4, 8 * per_image, num_small_views=3) == 8
    assert suggest_microbatch(mean, 4, 8 * per_image - 1, num_small_views=3, small_view_size=2) == 4

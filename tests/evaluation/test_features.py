"""Representations of a data set under a frozen encoder."""

import numpy as np
import pytest
import tensorflow as tf
from replicas import mirrored

from tf_simclr.evaluation import KNN, Features, Linear
from tf_simclr.evaluation.features import Encoded, extract
from tf_simclr.keras import keras


def make_encoder() -> keras.Model:
    """A small encoder whose batch norm statistics are not the initial ones."""
    images = keras.Input([8, 8, 3])
    hidden = keras.layers.Conv2D(6, 3)(images)
    hidden = keras.layers.BatchNormalization()(hidden)
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(hidden))
    encoder = keras.Model(images, outputs)
    encoder(tf.random.stateless_normal([32, 8, 8, 3], seed=[1, 2]), training=True)
    return encoder


def make_images(num_examples: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, num_examples)
    images = generator.uniform(size=[num_examples, 8, 8, 3]) * 0.5 + 0.25 * labels[:, None, None, None]
    return images.astype(np.float32), labels


def encode(encoder, images: np.ndarray, labels: np.ndarray) -> Encoded:
    """What `extract` finds, in batches of 32."""
    positions = np.arange(len(images))
    columns = positions, list(map(str, positions)), images, labels
    batches = extract(encoder, tf.data.Dataset.from_tensor_slices(columns).batch(32))
    return Encoded(*map(np.concatenate, zip(*batches, strict=True)))


def test_evaluation_leaves_the_encoder_byte_identical():
    encoder = make_encoder()
    before = [variable.numpy().tobytes() for variable in encoder.variables]
    assert len(encoder.non_trainable_variables) == 2  # The moving statistics are among them.
    images, labels = make_images(100)
    encoded = encode(encoder, images, labels)
    train, test = (Features(encoded.representations[part], labels[part], 3) for part in (slice(60), slice(60, None)))
    knn, linear = (protocol(train, test.representations) for protocol in (KNN(), Linear()))
    assert [variable.numpy().tobytes() for variable in encoder.variables] == before
    np.testing.assert_array_equal(encoded.positions, np.arange(100))
    np.testing.assert_array_equal(encoded.labels, labels)
    assert encoded.keys[7] == b"7" and encoded.labels.dtype == np.int64
    assert encoded.representations.dtype == np.float32
    np.testing.assert_allclose(encoded.representations, encoder(images, training=False), rtol=1e-5, atol=1e-6)
    assert knn.shape == linear.shape == (40, 3) and knn.settings["k"] == 60


def test_extract_in_half_precision():
    images, labels = make_images(10)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        encoder = make_encoder()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    features = encode(encoder, images, labels).representations
    assert features.shape == (10, 6) and features.dtype == np.float32
    assert np.abs(features).max() > 0


def test_extract_refuses_what_cannot_be_judged():
    broken = make_encoder()
    broken.layers[1].bias.assign(tf.fill([6], np.nan))
    with pytest.raises(ValueError, match="finite"):
        encode(broken, *make_images(4))


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_out_of_range_are_refused(label):
    with pytest.raises(ValueError, match=rf"\[0, 2\).*Received: {min(label, 0)} to {max(label, 1)}"):
        Features(np.zeros([3, 4], np.float32), np.array([0, label, 1]), 2)


@pytest.mark.parametrize("num_replicas", [2, 4])
def test_replicas_share_the_work_and_find_the_same(num_replicas):
    images, labels = make_images(45)  # 13 in the last batch: no multiple of 2 or 4.
    alone = make_encoder()
    whole = encode(alone, images, labels)
    with mirrored(num_replicas).scope():
        encoder = make_encoder()
        encoder.set_weights(alone.get_weights())
    again = encode(encoder, images, labels)
    for name in ("positions", "keys", "labels", "digests"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    np.testing.assert_allclose(again.representations, whole.representations, rtol=1e-5, atol=1e-6)


def test_test_images_that_are_training_images_are_counted():
    images, labels = make_images(12)
    images[7], images[9] = images[2], images[2] + 1 / 255
    encoded = encode(make_encoder(), images, labels)
    train, test = (
        Features(encoded.representations[part], labels[part], 3, digests=encoded.digests[part])
        for part in (slice(6), slice(6, 12))
    )
    assert test.count_in(train) == 1 and train.count_in(train.take(np.array([0, 3]))) == 2

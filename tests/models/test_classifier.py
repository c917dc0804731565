"""Training on labels: what is frozen stays, what the classifier reads learns, replicas agree."""

import math

import numpy as np
import pytest
import tensorflow as tf
from replicas import mirrored

from tf_simclr import builders
from tf_simclr.augment import Augmentation, crop_and_flip, example_keys
from tf_simclr.keras import keras
from tf_simclr.models.classifier import Classifier
from tf_simclr.models.heads import ProjectionHead, linear_classifier
from tf_simclr.settings import RunConfig, override

LABELS = np.arange(16) % 3


def build(**changes):
    settings = {
        "train_mode": "finetune",
        "checkpoint": "unread",
        "data.image_size": 16,
        "model.resnet_depth": 10,
        "model.width_multiplier": 0.05,
        "model.stem": "cifar",
        "model.num_proj_layers": 2,
        "model.proj_out_dim": 4,
        "optimizer.name": "momentum",
        "optimizer.warmup_epochs": 0,
        "optimizer.weight_decay": 0.1,
        "train.global_batch_size": 16,
        "train.precision": "float32",
    }
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    return builders.build_model(override(RunConfig(), settings | changes), num_examples=160, num_classes=3)


def snapshot(layer):
    return [variable.numpy() for variable in layer.variables]


def is_unchanged(before, layer):
    return all(np.array_equal(old, new.numpy()) for old, new in zip(before, layer.variables, strict=True))


@pytest.mark.parametrize(
    ("after_block", "optimizer"),
    [
        (None, "momentum"),
        (0, "adamw"),
        (2, "lars"),
        (4, "momentum"),
        *(pytest.param(block, "momentum", marks=pytest.mark.slow) for block in (0, 1, 2, 3)),
        pytest.param(2, "adamw", marks=pytest.mark.slow),
    ],
)
def test_what_is_frozen_is_frozen_and_the_rest_learns(photos, after_block, optimizer):
    model = build(finetune__after_block=after_block, optimizer__name=optimizer)
    parts = [part for part in model.encoder.layers if part.variables]
    before = [snapshot(part) for part in parts]
    model.fit(photos[:, :16, :16], LABELS, batch_size=16, epochs=2, verbose=0)
    # The stem is two parts: the convolution and its batch norm.
    num_frozen = 0 if after_block is None else 2 + after_block
    assert [is_unchanged(*pair) for pair in zip(before, parts, strict=True)] == [
        index < num_frozen for index in range(len(parts))
    ]


def test_batch_norm_of_a_frozen_encoder_does_not_see_the_batch(photos):
    model = build(finetune__after_block=4)
    images = tf.image.convert_image_dtype(photos[:, :16, :16], tf.float32)
    np.testing.assert_array_equal(model(images, training=True), model(images, training=False))


@pytest.mark.parametrize(("layer", "learning"), [pytest.param(0, [], marks=pytest.mark.slow), (1, [0]), (-1, [0, 1])])
def test_the_layers_of_the_head_up_to_the_classifier_learn(photos, layer, learning):
    model = build(model__classifier_layer=layer)
    pairs = model.projection_head._layers_in_order
    before = [[snapshot(part) for part in pair] for pair in pairs]
    model.fit(photos[:, :16, :16], LABELS, batch_size=16, epochs=2, verbose=0)
    for index, pair in enumerate(pairs):
        for old, part in zip(before[index], pair, strict=True):
            assert is_unchanged(old, part) == (index not in learning)
    assert model.classifier.kernel.shape[0] == (4 if layer == -1 else model.encoder.output_shape[-1])


def test_a_classifier_that_starts_as_zero_says_nothing(photos):
    model = build(finetune__zero_init=True)
    images = tf.image.convert_image_dtype(photos[:, :16, :16], tf.float32)
    assert not np.any(model(images))
    first = model.train_on_batch(photos[:, :16, :16], LABELS, return_dict=True)
    assert first["loss"] == pytest.approx(math.log(3), rel=1e-6)
    assert np.any(build()(images))


def test_images_are_cropped_and_flipped_and_keep_their_colours(photos):
    augmentation = crop_and_flip(Augmentation(16, seed=1))
    colours = np.random.default_rng(0).integers(0, 256, [16, 1, 1, 3], np.uint8)
    keys = example_keys(3, 0, 16)
    views = augmentation(np.tile(colours, [1, 16, 16, 1]), keys)
    np.testing.assert_allclose(views, np.tile(colours / 255, [1, 16, 16, 1]), atol=1e-5)
    views = augmentation(photos, keys)
    assert views.shape == (16, 16, 16, 3)
    assert np.any(views != augmentation(photos, example_keys(4, 0, 16)))


def test_supervised_training_learns(photos):
    model = build(train_mode="supervised", checkpoint="none", optimizer__base_learning_rate=1.0)
    # A crop does not tell one photo from another, but each class has a colour of its own.
    tinted = photos[:, :16, :16] // 2 + 127 * np.eye(3, dtype=np.uint8)[LABELS][:, np.newaxis, np.newaxis]
    accuracy = model.fit(tinted, LABELS, batch_size=16, epochs=30, verbose=0).history["top_1_accuracy"]
    assert accuracy[0] < 0.7 and min(accuracy[-5:]) == 1.0


def test_unlabelled_images_and_missing_checkpoints_are_refused():
    settings = override(RunConfig(), {"train_mode": "supervised"})
    with pytest.raises(ValueError, match="train_mode=supervised needs labels"):
        builders.build_model(settings, 1000, None)
    with pytest.raises(ValueError, match="train_mode=finetune needs --checkpoint"):
        override(RunConfig(), {"train_mode": "finetune"})


def test_a_head_without_that_layer_is_refused():
    with pytest.raises(ValueError, match="between -1 and 2, the number of layers of the head. Received: 3"):
        Classifier(
            keras.Sequential([keras.layers.Flatten()]), keras.layers.Dense(2), image_size=4,
            projection_head=ProjectionHead(2), classifier_layer=3,
        )  # fmt: skip


def two_layers(num_replicas):
    """One SGD step in float64 on the replicas; returns the metrics and the weights."""
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.layers.Conv2D(6, 5, strides=4, dtype="float64"),
            keras.layers.BatchNormalization(synchronized=num_replicas > 1, dtype="float64"),
            keras.layers.ReLU(dtype="float64"),
            keras.layers.GlobalAveragePooling2D(dtype="float64"),
        ]
    )
    head = ProjectionHead(1, 5, synchronized=num_replicas > 1, dtype="float64")
    model = Classifier(
        encoder,
        keras.layers.Dense(3, kernel_regularizer="l2", dtype="float64"),
        image_size=16,
        projection_head=head,
        classifier_layer=1,
    )
    model.compile(optimizer=keras.optimizers.SGD(1.0, jit_compile=False))
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.slow
def test_replicas_take_the_step_of_one(photos):
    data = tf.data.Dataset.from_tensor_slices((photos, LABELS)).batch(16)
    alone = two_layers(1)
    expected = alone.fit(data, verbose=0).history
    with mirrored(4).scope():
        model = two_layers(4)
    received = model.fit(data, verbose=0).history
    for name, values in expected.items():
        np.testing.assert_allclose(received[name], values, rtol=1e-5, err_msg=name)
    for layer in ("encoder", "projection_head", "classifier"):
        for mine, theirs in zip(getattr(model, layer).variables, getattr(alone, layer).variables, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-10, atol=1e-12)


def test_the_penalty_on_a_linear_classifier_is_half_the_square():
    classifier = linear_classifier(3, l2=0.5, bias_l2=0.25)
    classifier.build([None, 4])
    classifier.bias.assign([1.0, 2.0, 3.0])
    expected = 0.5 * tf.nn.l2_loss(classifier.kernel) + 0.25 * tf.nn.l2_loss(classifier.bias)
    np.testing.assert_allclose(sum(classifier.losses), expected, rtol=1e-6)

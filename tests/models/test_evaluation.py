"""`evaluate`, validation, and what examples weigh: against closed forms, plain Keras, and one replica."""

import numpy as np
import pytest
import tensorflow as tf
from oracles import contrast as slow_contrast
from replicas import mirrored
from tiny import LABELS, tiny_encoder

from tf_simclr.augment import Augmentation, RandomCrop, RandomFlip, content_keys, example_keys
from tf_simclr.augment.center import preprocess_for_eval
from tf_simclr.keras import keras
from tf_simclr.metrics.classification import classification_loss
from tf_simclr.models.classifier import Classifier
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.simclr import SimCLR

# Cheap to trace.
VIEWS = Augmentation(16, branches=((RandomCrop(), RandomFlip()),) * 2)
WHOLE = Augmentation(16, branches=((RandomCrop(area=(1.0, 1.0), aspect_ratio=(1.0, 1.0)),),))
SOME_KNOWN = np.where(np.arange(16) % 5 < 2, LABELS, -1)


def compiled(model):
    model.compile(keras.optimizers.SGD(0.5, jit_compile=False))
    model.optimizer.build(model.trainable_variables)
    return model


def make_simclr(dtype="float32", classifier=True, microbatch_size=0):
    keras.utils.set_random_seed(1)
    model = SimCLR(
        tiny_encoder(dtype),
        ProjectionHead(1, 5, dtype=dtype),
        image_size=16,
        temperature=0.3,
        augmentation=VIEWS,
        online_classifier=keras.layers.Dense(3, dtype=dtype) if classifier else None,
        microbatch_size=microbatch_size,
    )
    return compiled(model)


def make_classifier(frozen=False):
    keras.utils.set_random_seed(1)
    model = Classifier(tiny_encoder("float32"), keras.layers.Dense(3), image_size=16, augmentation=WHOLE)
    model.encoder.trainable = not frozen
    return compiled(model)


def batches(size, *data):
    return tf.data.Dataset.from_tensor_slices(data if len(data) > 1 else data[0]).batch(size)


def expected_of(model, images, labels, keys, size):
    """The metrics of SimCLR, batch by batch."""
    totals = np.zeros(6)
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        count, known = len(images[rows]), labels[rows] >= 0
        representations = model.encoder(model.augmentation(images[rows], keys[rows]), training=False)
        projections = np.asarray(model.projection_head(representations, training=False))
        contrast = slow_contrast(projections.reshape([2, count, -1]), 0.3)
        logits = np.asarray(model.online_classifier(representations)).reshape([2, count, 3])[:, known]
        scores = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        losses = -scores[:, np.arange(known.sum()), labels[rows][known]]
        hits = logits.argmax(axis=-1) == labels[rows][known]
        totals += [*(count * np.array(contrast)), losses.sum() / 2, hits.sum() / 2, known.sum()]
    return [*(totals[:3] / len(images)), *(totals[3:5] / totals[5])]


@pytest.mark.parametrize("microbatch_size", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_simclr_is_evaluated_on_views_that_follow_from_the_images(photos, microbatch_size):
    images = photos[:13]
    labels = SOME_KNOWN[:13]
    model = make_simclr(microbatch_size=microbatch_size)
    before = [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]
    found = model.evaluate(batches(8, images, labels), verbose=0, return_dict=True)
    assert list(found) == list(model.metrics_names[:5]) and "learning_rate" not in found
    for variable, value in zip((*model.variables, *model.optimizer.variables), before, strict=True):
        np.testing.assert_array_equal(variable, value)
    keys = content_keys(images).numpy()
    assert len(np.unique(keys, axis=0)) == 13
    np.testing.assert_allclose(list(found.values()), expected_of(model, images, labels, keys, 8), rtol=1e-5)
    # Neither the step nor the place of an image in its batch matters.
    model.optimizer.iterations.assign(7)
    order = np.random.default_rng(0).permutation(8)
    moved = model.evaluate(batches(8, images[:8][order], labels[:8][order]), verbose=0)
    np.testing.assert_allclose(moved, expected_of(model, images[:8], labels[:8], keys[:8], 8), rtol=1e-5)
    # Keys of the user's own decide.
    own = example_keys(5, 2, 13).numpy()
    found = model.evaluate(batches(8, {"images": images, "keys": own}, labels), verbose=0)
    np.testing.assert_allclose(found, expected_of(model, images, labels, own, 8), rtol=1e-5)


# The last batch has 3 and 2 images on the replicas, or 1 and none.
@pytest.mark.parametrize("count", [pytest.param(13, marks=pytest.mark.slow), 9])
def test_replicas_evaluate_as_one_does(photos, count):
    labels = np.where(np.arange(count) < 5, -1, LABELS[:count])  # other labels on every replica
    weights = np.linspace(0.0, 2.0, count, dtype=np.float32)
    for make in (make_simclr, make_classifier):
        alone = make().evaluate(batches(8, photos[:count], labels, weights), verbose=0)
        with mirrored(2).scope():
            model = make()
        found = model.evaluate(batches(8, photos[:count], labels, weights), verbose=0)
        assert min(alone) > 0
        np.testing.assert_allclose(found, alone, rtol=1e-5)


def test_a_classifier_is_evaluated_on_the_centre_of_the_images(photos):
    model = make_classifier()
    wide = np.concatenate([photos, photos[:, :, :8]], axis=2)
    logits = model(preprocess_for_eval(wide, 16))
    loss, accuracy = classification_loss(logits, tf.constant(LABELS))
    for images in (wide, wide / np.float32(255)):
        found = model.evaluate(images, LABELS, batch_size=5, verbose=0, return_dict=True)
        assert list(found) == ["loss", "top_1_accuracy"]
        np.testing.assert_allclose(list(found.values()), [loss, accuracy], rtol=1e-5)
    cropped = preprocess_for_eval(wide, 16)[:, tf.newaxis]
    np.testing.assert_allclose(make_classifier().evaluate(cropped, LABELS, verbose=0), [loss, accuracy], rtol=1e-5)


@pytest.mark.parametrize("make", [pytest.param(make_simclr, marks=pytest.mark.slow), make_classifier])
def test_validation_moves_no_bit_of_the_training(make, photos, tmp_path):
    def evaluate(batch, logs):
        if batch == 0:
            validated.evaluate(photos[:9], LABELS[:9], verbose=0)

    data = batches(8, photos, LABELS)
    alone, validated = make(), make()
    expected = alone.fit(data, epochs=2, verbose=0).history
    used = [
        keras.callbacks.LambdaCallback(on_train_batch_end=evaluate),  # in the middle of an epoch
        keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), monitor="val_loss", save_best_only=True),
        keras.callbacks.EarlyStopping(monitor="val_loss", min_delta=1e3, patience=1),
    ]
    found = validated.fit(data, epochs=5, validation_data=(photos[:9], LABELS[:9]), callbacks=used, verbose=0).history
    assert {name for name in found if name.startswith("val_")} == {
        f"val_{name}" for name in expected if name not in ("learning_rate", "gradient_norm")
    }
    assert len(found["val_loss"]) == 2 and found["val_loss"][0] != found["val_loss"][1] and min(found["val_loss"]) > 0
    assert {name: found[name] for name in expected} == expected
    for part in ("encoder", "classifier"):
        for weight, other in zip(getattr(validated, part).weights, getattr(alone, part).weights, strict=True):
            np.testing.assert_array_equal(weight, other)
    best = keras.models.load_model(tmp_path / "best.keras").evaluate(photos[:9], LABELS[:9], verbose=0)[0]
    np.testing.assert_allclose(best, min(found["val_loss"]), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("validation", ["validation_data", "validation_split"])
def test_images_alone_validate(photos, validation):
    model = make_simclr(classifier=False)
    options = {"validation_data": photos[12:]} if validation == "validation_data" else {"validation_split": 0.25}
    history = model.fit(photos, batch_size=8, **options, verbose=0).history
    assert history["val_loss"][0] == pytest.approx(model.evaluate(photos[12:], verbose=0)[0], rel=1e-5)


def plain_keras(model):
    """The same network, trained by Keras alone."""
    copy = keras.Sequential([keras.models.clone_model(model.encoder), keras.layers.Dense(3)])
    copy.build([None, 16, 16, 3])
    copy.set_weights([*model.encoder.get_weights(), *model.classifier.get_weights()])
    copy.compile(
        keras.optimizers.SGD(0.5, jit_compile=False),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return copy


def test_a_classifier_weighs_examples_as_keras_does(photos):
    images = photos[:, :16, :16] / np.float32(255)
    weights = np.linspace(0.0, 3.0, 16, dtype=np.float32)
    options = {"sample_weight": weights, "batch_size": 8, "shuffle": False, "verbose": 0}
    model = make_classifier()
    keras_model = plain_keras(model)
    class_weight = {0: 0.5, 1: 2.0, 2: 0.0}
    found = model.fit(images, LABELS, class_weight=class_weight, epochs=2, **options).history
    expected = keras_model.fit(images, LABELS, class_weight=class_weight, epochs=2, **options).history
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-4)
    np.testing.assert_allclose(found["top_1_accuracy"], expected["accuracy"], rtol=1e-6)
    trained = [*model.encoder.get_weights(), *model.classifier.get_weights()]
    for weight, other in zip(trained, keras_model.get_weights(), strict=True):
        np.testing.assert_allclose(weight, other, atol=1e-4)
    found = model.evaluate(images, LABELS, sample_weight=weights, batch_size=5, verbose=0)
    np.testing.assert_allclose(
        found, keras_model.evaluate(images, LABELS, sample_weight=weights, batch_size=5, verbose=0), rtol=1e-4
    )


def test_unknown_labels_and_weights_are_shared_by_the_replicas(photos):
    """One replica knows one label, the other all; the step is that of one replica with the whole batch."""
    labels = np.where((np.arange(16) < 8) & (np.arange(16) != 3), -1, LABELS)
    data = batches(16, photos, labels, np.linspace(0.5, 2.0, 16, dtype=np.float32))
    alone = make_classifier(frozen=True)  # Batch norm on replicas is another matter.
    with mirrored(2).scope():
        model = make_classifier(frozen=True)
    expected, found = (each.fit(data, verbose=0).history for each in (alone, model))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(model.classifier.kernel.numpy(), alone.classifier.kernel.numpy(), rtol=1e-5)


def test_the_online_classifier_weighs_and_the_contrastive_loss_does_not(photos):
    model = make_simclr()
    outputs = model.encode_views({"images": photos, "keys": example_keys(0, 0, 16)})
    labels = tf.constant(LABELS)
    _, plain = model.compare_views(outputs, labels)
    _, weighed = model.compare_views(outputs, labels, tf.cast(labels == 1, tf.float32))
    _, known = model.compare_views(outputs, tf.where(labels == 1, labels, -1))
    assert weighed["loss"] == plain["loss"] == known["loss"]
    # The sum over class 1 is divided by 16 images, or by the 5 whose class is known.
    np.testing.assert_allclose(weighed["classifier_loss"], known["classifier_loss"] * 5 / 16, rtol=1e-6)
    assert weighed["classifier_top_1_accuracy"] == plain["classifier_top_1_accuracy"]
    _, unknown = model.compare_views(outputs, tf.fill([16], -1))
    assert unknown["classifier_loss"] == unknown["classifier_top_1_accuracy"] == 0


def test_weights_that_mean_nothing_are_refused(photos):
    model = make_simclr(classifier=False)
    weights = np.ones(16, np.float32)
    for arguments in ({"sample_weight": weights}, {"y": LABELS, "class_weight": {0: 1.0, 1: 1.0, 2: 1.0}}):
        with pytest.raises(ValueError, match="images in the contrastive loss have no weights"):
            model.fit(photos, **({"y": LABELS} | arguments), verbose=0)
    with pytest.raises(ValueError, match="class_weight weighs classes, so it needs labels"):
        model.fit(photos, class_weight={0: 1.0}, verbose=0)
    with pytest.raises(ValueError, match="images in the contrastive loss have no weights"):
        model.evaluate(photos, LABELS, sample_weight=weights, verbose=0)
    with pytest.raises(ValueError, match="no.* for unknown labels of -1: give sample_weight in its place.*label of -1"):
        make_classifier().fit(photos, LABELS - 1, class_weight={0: 1.0, 1: 1.0}, verbose=0)

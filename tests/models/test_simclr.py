"""The train step: replicas, XLA, the online classifier, half precision, and learning at all."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from oracles import contrast as slow_contrast
from replicas import mirrored
from tiny import augmentation_of, fit, tiny_encoder, tiny_model, weights

from tf_simclr.augment import Augmentation, simclr_chain
from tf_simclr.keras import keras
from tf_simclr.losses import NTXent, Pairs, SupCon
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.resnet import resnet
from tf_simclr.models.simclr import SimCLR
from tf_simclr.optimizers import LARS


class RecordingLARS(LARS):
    """LARS that keeps the last gradients, as they reach it, among its variables."""

    def build(self, var_list):
        super().build(var_list)
        if not hasattr(self, "gradients"):
            self.gradients = [self.add_variable_from_reference(variable, "gradient") for variable in var_list]

    def update_step(self, gradient, variable):
        self.gradients[self._index_dict[self._var_key(variable)]].assign(gradient)
        super().update_step(gradient, variable)


def sgd():
    return keras.optimizers.SGD(1.0, jit_compile=False)


def lars():
    return RecordingLARS(10.0, weight_decay=0.01)


@pytest.fixture(scope="module")
def trained_alone(photos):
    """Metrics, weights and gradients of one LARS step on one replica."""
    model = tiny_model(lars)
    before = weights(model)
    metrics = fit(model, photos)
    after = weights(model)
    assert all(np.any(after[name] != before[name]) for name in after)
    return metrics, after, [gradient.numpy() for gradient in model.optimizer.gradients]


@pytest.mark.parametrize("num_replicas", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_replicas_together_compute_what_one_does(photos, num_replicas, trained_alone):
    with mirrored(num_replicas, collective=num_replicas == 2).scope():
        model = tiny_model(lars, synchronized=True)
    metrics = fit(model, photos)
    expected_metrics, expected_weights, expected_gradients = trained_alone
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    for gradient, expected in zip(model.optimizer.gradients, expected_gradients, strict=True):
        assert np.any(expected)
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=0, atol=1e-11 * np.abs(expected).max())
    for name, value in weights(model).items():
        expected = expected_weights[name]
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-11 * max(1, np.abs(expected).max()), err_msg=name)


def test_xla_gives_the_same_numbers(photos):
    results = []
    for jit_compile in (False, True):
        model = tiny_model(lars, jit_compile=jit_compile)
        results.append(fit(model, photos, epochs=2) | weights(model))
    for name, value in results[0].items():
        # The views are float32: their rounding moves every entry, also one that is near zero among large ones.
        atol = 1e-5 * max(1, np.abs(value).max())
        np.testing.assert_allclose(results[1][name], value, rtol=1e-4, atol=atol, err_msg=name)


@pytest.mark.parametrize("num_views", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_reported_loss_is_that_of_the_paper(photos, num_views):
    model = tiny_model(sgd, num_views=num_views)
    views = model.make_views(photos)
    projections = model.projection_head(model.encoder(views, training=True), training=True).numpy()
    expected = slow_contrast(projections.reshape([num_views, 16, -1]), 0.3)
    metrics = fit(tiny_model(sgd, num_views=num_views), photos)
    found = [metrics[name] for name in ("loss", "contrastive_top_1_accuracy", "contrastive_entropy")]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("num_replicas", [2, 4])
def test_replicas_with_three_views_compute_what_one_does(photos, num_replicas):
    expected_metrics = fit(alone := tiny_model(sgd, num_views=3), photos)
    with mirrored(num_replicas).scope():
        model = tiny_model(sgd, synchronized=True, num_views=3)
    metrics = fit(model, photos)
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    for name, value in weights(alone).items():
        np.testing.assert_allclose(weights(model)[name], value, rtol=0, atol=1e-10, err_msg=name)


@dataclasses.dataclass(frozen=True)
class Spread:
    """A loss of the user's own, with another number of metrics and no value of a collapse."""

    metric_names = ("spread",)

    def __call__(self, projections, pairs=Pairs()):
        spread = tf.math.reduce_variance(pairs.candidates(projections))
        return -spread, {"spread": spread}

    def collapse_value(self, num_views, global_batch_size):
        return None


def test_any_loss_that_keeps_the_contract_trains(photos):
    model = SimCLR(tiny_encoder("float32"), image_size=16, loss=Spread())
    model.compile(sgd())
    model.optimizer.build(model.trainable_variables)
    metrics = model.train_on_batch(photos, return_dict=True)
    assert list(metrics) == ["loss", "spread", "learning_rate", "gradient_norm"]
    assert metrics["loss"] == -metrics["spread"] < 0


KNOWN = np.array([0, 1, -1, 0, 2, -1, 1, 0, 2, 2, -1, 0, 1, -1, 2, 0])


def supcon_model(**settings):
    keras.utils.set_random_seed(3)
    model = SimCLR(
        tiny_encoder("float64", settings.pop("synchronized", False)),
        keras.layers.Dense(5, dtype="float64"),
        image_size=16,
        loss=SupCon(0.3),
        augmentation=augmentation_of(2),
        **settings,
    )
    model.compile(sgd())
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture(scope="module")
def trained_on_classes(photos):
    model = supcon_model()
    return model, fit(model, photos, KNOWN)


def test_a_loss_gets_the_labels_without_an_online_classifier(photos, trained_on_classes):
    model = supcon_model()
    projections = model.projection_head(model.encoder(model.make_views(photos), training=True)).numpy()
    expected = slow_contrast(projections.reshape([2, 16, -1]), 0.3, labels=KNOWN)
    _, metrics = trained_on_classes
    found = [metrics[name] for name in ("loss", "contrastive_top_1_accuracy", "contrastive_entropy")]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_replicas_compare_the_classes_of_all_images(photos, trained_on_classes):
    alone, expected = trained_on_classes
    with mirrored(2).scope():
        model = supcon_model(synchronized=True)
    metrics = fit(model, photos, KNOWN)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-6)
    for name, value in weights(alone).items():
        np.testing.assert_allclose(weights(model)[name], value, rtol=0, atol=1e-10, err_msg=name)
    found, expected = (each.evaluate(photos[:9], KNOWN[:9], batch_size=8, verbose=0) for each in (model, alone))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_labels_of_a_loss_are_looked_at(photos):
    model = supcon_model()
    for images in (photos, tf.data.Dataset.from_tensors(photos)):
        with pytest.raises(ValueError, match="SupCon compares images by their classes: .* Received: images alone"):
            model.fit(images, verbose=0)
    with pytest.raises(ValueError, match="whole numbers, at least 0, or -1 .* Received: a label of -2"):
        model.fit(photos, KNOWN - 1, verbose=0)


def test_a_temperature_is_short_for_nt_xent():
    assert SimCLR(tiny_encoder(), image_size=16, temperature=0.3).view_loss == NTXent(0.3)
    assert SimCLR(tiny_encoder(), image_size=16).view_loss == NTXent(0.1)
    assert SimCLR(tiny_encoder(), image_size=16, loss=NTXent(0.2, normalize=False)).view_loss.temperature == 0.2


def test_online_classifier_leaves_the_encoder_alone(photos):
    with_classifier = tiny_model(sgd)
    without = tiny_model(sgd, classifier=False)
    metrics = fit(with_classifier, photos, epochs=2)
    fit(without, photos, epochs=2)
    for weight, other in zip(with_classifier.encoder.get_weights(), without.encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)
    assert 0 <= metrics["classifier_top_1_accuracy"] <= 1
    start = tiny_model(sgd)
    assert np.any(start.online_classifier.kernel != with_classifier.online_classifier.kernel)


def test_online_classifier_without_labels_is_an_error(photos):
    with pytest.raises(ValueError, match="needs batches of .images, labels."):
        tiny_model(lars).fit(photos, batch_size=8, verbose=0)


def test_learns_to_tell_images_apart_from_an_array(photos):
    keras.utils.set_random_seed(0)
    chain = simclr_chain(crop_area=(0.8, 1.0), jitter_strength=0.2, blur_probability=0)
    model = SimCLR(
        resnet(10, 0.125, "strided", num_groups=2, dtype="mixed_bfloat16"),
        ProjectionHead(2, 16),
        image_size=32,
        temperature=0.2,
        augmentation=Augmentation(32, branches=(chain, chain)),
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    model.optimizer.build(model.trainable_variables)
    history = model.fit(photos, batch_size=16, epochs=150, verbose=0).history
    assert history["contrastive_top_1_accuracy"][0] < 0.35
    # A single step's accuracy moves by a fifth from one to the next, whatever the seed.
    assert np.mean(history["contrastive_top_1_accuracy"][-10:]) > 0.6
    assert np.mean(history["contrastive_entropy"][-10:]) < history["contrastive_entropy"][0]
    assert model.predict(photos / np.float32(255), verbose=0).shape == (16, 16)


def test_predictions_do_not_depend_on_the_rest_of_the_batch(photos):
    model = tiny_model(lars, dtype="float32")
    images = tf.image.resize(photos / np.float32(255), [16, 16])
    np.testing.assert_allclose(model(images)[:3], model(images[:3]), atol=1e-6)


def test_rejects_what_does_not_fit():
    with pytest.raises(ValueError, match="temperature must be positive"):
        SimCLR(tiny_encoder(), image_size=16, temperature=0)
    with pytest.raises(ValueError, match="give one of the two. Received: loss=NTXent.*, temperature=0.1"):
        SimCLR(tiny_encoder(), image_size=16, loss=NTXent(0.1), temperature=0.1)
    with pytest.raises(ValueError, match="at least two of every image: .* Received: 1"):
        SimCLR(tiny_encoder(), image_size=16, augmentation=augmentation_of(1))
    with pytest.raises(ValueError, match=r"representations \[B, F\]"):
        SimCLR(keras.Sequential([keras.layers.Conv2D(3, 3)]), image_size=16)

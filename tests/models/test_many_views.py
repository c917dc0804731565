"""More than two views, and small ones: the loss, replicas, micro-batches, XLA, batch norm, evaluation, learning."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from oracles import contrast as slow_contrast
from replicas import mirrored
from tiny import LABELS, augmentation_of, fit, microbatch_model, small_views_of, tiny_encoder, tiny_model, weights

from tf_simclr.augment import FIRST_SMALL_VIEW, Augmentation, RandomCrop, RandomFlip, content_keys, example_keys
from tf_simclr.data.batches.views import crop_views
from tf_simclr.keras import keras
from tf_simclr.losses import NTXent
from tf_simclr.metrics.classification import classification_loss
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.simclr import SimCLR

MULTICROP = {"small_views": small_views_of(3)}
ALL_PAIRS = MULTICROP | {"small_view_pairs": "all"}


def sgd():
    return keras.optimizers.SGD(1.0, jit_compile=False)


def compared(model, batch, training):
    """What the loops say of a batch: the loss, its metrics, those of the classifier."""
    representations = [model.encoder(model.make_views(batch), training=training)]
    if model.small_views is not None:
        representations.append(model.encoder(model.make_small_views(batch), training=training))
    representations = tf.concat(representations, axis=0)
    projections = model.projection_head(representations, training=training).numpy()
    count = len(projections) // model.num_views
    num_large = model.augmentation.num_views if model.small_view_pairs == "large" else None
    found = slow_contrast(projections.reshape([-1, count, projections.shape[-1]]), 0.3, num_large=num_large)
    logits = model.online_classifier(representations)
    return [*found, *classification_loss(logits, tf.constant(LABELS[:count]))]


@pytest.mark.parametrize("settings", [{"num_views": 4}, MULTICROP, ALL_PAIRS], ids=["four", "small", "all"])
def test_the_loss_is_that_of_the_loops(photos, settings):
    expected = compared(tiny_model(sgd, **settings), photos, training=True)
    model = tiny_model(sgd, **settings)
    assert model.num_views == (5 if "small_views" in settings else 4)
    np.testing.assert_allclose(list(fit(model, photos).values())[:5], expected, rtol=1e-6)


@pytest.mark.parametrize("settings", [MULTICROP, pytest.param(ALL_PAIRS, marks=pytest.mark.slow)])
def test_replicas_with_small_views_compute_what_one_does(photos, settings):
    expected_metrics = fit(alone := tiny_model(sgd, **settings), photos)
    start = weights(tiny_model(sgd, **settings))
    with mirrored(2).scope():
        model = tiny_model(sgd, synchronized=True, **settings)
    metrics = fit(model, photos)
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    for name, value in weights(alone).items():
        assert np.any(value != start[name]), name
        np.testing.assert_allclose(weights(model)[name], value, rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("settings", [MULTICROP, pytest.param(ALL_PAIRS, marks=pytest.mark.slow)])
def test_micro_batches_with_small_views_give_the_gradient_of_the_whole_batch(photos, settings):
    found, expected = (microbatch_model(size, **settings) for size in (7, 0))
    fit(found, photos), fit(expected, photos)
    start = microbatch_model(0, **settings)
    for variable, other, before in zip(
        found.trainable_variables, expected.trainable_variables, start.trainable_variables, strict=True
    ):
        slope = other.numpy() - before.numpy()
        assert np.any(slope)
        np.testing.assert_allclose(variable.numpy() - before.numpy(), slope, rtol=0, atol=1e-10 * np.abs(slope).max())


@pytest.mark.slow
def test_small_views_with_xla_give_the_same_numbers(photos):
    expected, found = (tiny_model(sgd, jit_compile=jit_compile, **MULTICROP) for jit_compile in (False, True))
    numbers = [fit(model, photos) | weights(model) for model in (expected, found)]
    for name, value in numbers[0].items():
        atol = 1e-5 * max(1, np.abs(value).max())
        np.testing.assert_allclose(numbers[1][name], value, rtol=1e-4, atol=atol, err_msg=name)


def test_each_size_has_batch_norm_statistics_of_its_own_and_the_head_those_of_all_views(photos):
    model = tiny_model(sgd, **MULTICROP)
    convolution, norm = model.encoder.layers[:2]
    moving = np.zeros(6)
    for views in (model.make_views(photos), model.make_small_views(photos)):
        moving += 0.01 * (np.mean(convolution(views), axis=(0, 1, 2)) - moving)
    fit(model, photos)
    np.testing.assert_allclose(norm.moving_mean, moving, rtol=1e-6)
    again = tiny_model(sgd, **MULTICROP)
    batch = again.with_keys(tf.constant(photos))
    projections, hidden = again.encode_views(batch)
    assert projections.shape == [5 * 16, 5]
    np.testing.assert_allclose(projections, again.projection_head(hidden, training=True), rtol=1e-10)


def test_small_views_have_draws_of_their_own_and_move_no_pixel_of_the_others(photos):
    two, three, alone = (
        tiny_model(sgd, **settings) for settings in (MULTICROP, MULTICROP | {"num_views": 3}, {"num_views": 3})
    )
    np.testing.assert_array_equal(three.make_views(photos), alone.make_views(photos))
    np.testing.assert_array_equal(three.make_views(photos)[:32], two.make_views(photos))
    small = two.make_small_views(photos)
    np.testing.assert_array_equal(three.make_small_views(photos), small)
    same_size = dataclasses.replace(two.small_views, first_view=0)  # which the model refuses
    others = same_size(photos, two.with_keys(tf.constant(photos))["keys"])
    assert np.abs(small - others).max(axis=(1, 2, 3)).min() > 0.01
    views = np.split(small, 3)
    assert all(np.abs(views[i] - views[j]).max() > 0.1 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_views_that_the_host_cuts_are_those_of_the_device(photos):
    model = tiny_model(sgd, **MULTICROP)
    batch = model.with_keys(tf.constant(photos))
    cut = {
        name: tf.stack([crop_views(*image, one) for image in zip(batch["images"], batch["keys"], strict=True)])
        for name, one in (("images", model.augmentation), ("small_images", model.small_views))
    }
    assert cut["small_images"].shape == [16, 3, 8, 8, 3]
    cut["keys"] = batch["keys"]
    for make in (model.make_views, model.make_small_views):
        np.testing.assert_allclose(make(cut), make(batch), atol=0.51 / 255)  # rounded to 8 bits


def test_cropped_views_without_the_small_ones_are_refused(photos):
    model = tiny_model(sgd, **MULTICROP)
    keys = example_keys(0, 0, 16).numpy()
    cut = np.zeros([16, 2, 16, 16, 3], np.uint8)
    with pytest.raises(ValueError, match=r"small_images \[n, 3, 8, 8, 3\]. Received: no small_images"):
        model.train_on_batch({"images": cut, "keys": keys}, LABELS)
    with pytest.raises(ValueError, match=r"\[n, 3, 8, 8, 3\] if the views are .* Received: \(16, 2, 8, 8, 3\)"):
        small = np.zeros([16, 2, 8, 8, 3], np.uint8)
        model.train_on_batch({"images": cut, "small_images": small, "keys": keys}, LABELS)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        small = np.full([16, 3, 8, 8, 3], 2, np.float32)
        model.train_on_batch({"images": cut, "small_images": small, "keys": keys}, LABELS)


@pytest.mark.parametrize("settings", [MULTICROP, pytest.param(ALL_PAIRS, marks=pytest.mark.slow)])
def test_evaluation_compares_the_small_views_too(photos, settings):
    model = tiny_model(sgd, **settings)
    keys = content_keys(photos[:9])
    expected = compared(model, {"images": tf.constant(photos[:9]), "keys": keys}, training=False)
    found = model.evaluate(photos[:9], LABELS[:9], batch_size=9, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with mirrored(2).scope():
        model = tiny_model(sgd, **settings)
    dataset = tf.data.Dataset.from_tensor_slices((photos[:9], LABELS[:9])).batch(9)  # 5 and 4 images
    np.testing.assert_allclose(model.evaluate(dataset, verbose=0), expected, rtol=1e-5)


def test_a_model_with_small_views_is_made_again(photos):
    model = SimCLR(
        tiny_encoder("float32"), image_size=16, augmentation=augmentation_of(3), **ALL_PAIRS, name="with_small_views"
    )
    again = SimCLR.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert again.small_views == MULTICROP["small_views"] and again.small_view_pairs == "all"
    assert again.collapse_value(8) == NTXent().collapse_value(6, 8)


def test_learns_from_small_views(photos):
    keras.utils.set_random_seed(0)
    large, small = ((RandomCrop(area=area), RandomFlip()) for area in ((0.8, 1.0), (0.4, 0.8)))
    model = SimCLR(
        tiny_encoder("float32"),
        ProjectionHead(2, 16),
        image_size=16,
        temperature=0.2,
        augmentation=Augmentation(16, branches=(large,) * 2),
        small_views=Augmentation(8, branches=(small,) * 2, first_view=FIRST_SMALL_VIEW),
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    model.optimizer.build(model.trainable_variables)
    history = model.fit(photos, batch_size=16, epochs=150, verbose=0).history
    assert history["contrastive_top_1_accuracy"][0] < 0.35
    assert np.mean(history["contrastive_top_1_accuracy"][-10:]) > 0.6


def test_rejects_small_views_that_do_not_fit():
    def make(**settings):
        return SimCLR(tiny_encoder("float32"), image_size=16, augmentation=augmentation_of(2), **settings)

    with pytest.raises(ValueError, match="first_view=128. Received: first_view=1$"):
        make(small_views=dataclasses.replace(small_views_of(2), first_view=1))
    with pytest.raises(ValueError, match="small_view_pairs must be one of large, all. Received: 'some'"):
        make(small_views=small_views_of(2), small_view_pairs="some")
    with pytest.raises(ValueError, match="Received: 1$"):
        SimCLR(tiny_encoder(), image_size=16, augmentation=augmentation_of(1), small_views=small_views_of(2))
    with pytest.raises(ValueError, match="at most 256 views"):
        small_views_of(129)

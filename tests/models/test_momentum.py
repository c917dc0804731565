"""The moving average and the memory of negatives, against NumPy, one replica, and a run without interruption."""

import numpy as np
import oracles
import pytest
import tensorflow as tf
from replicas import mirrored
from tiny import LABELS, augmentation_of, fit, tiny_encoder, weights

from tf_simclr.augment import Augmentation, simclr_chain
from tf_simclr.keras import keras
from tf_simclr.losses import LOSSES, SupCon
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.momentum import MomentumSimCLR
from tf_simclr.models.resnet import resnet
from tf_simclr.models.simclr import SimCLR
from tf_simclr.runs import checkpoints
from tf_simclr.training.meter import entropy_candidates

# Not a multiple of the 8 images of a batch.
SIZE, MOMENTUM = 11, 0.9


def make(*, synchronized=False, jit_compile=False, kind=MomentumSimCLR, num_views=2, **settings):
    keras.utils.set_random_seed(3)
    if kind is MomentumSimCLR:
        settings = {"memory_size": SIZE, "memory_momentum": MOMENTUM} | settings
    model = kind(
        tiny_encoder("float64", synchronized),
        ProjectionHead(2, 5, synchronized=synchronized, dtype="float64"),
        image_size=16,
        augmentation=augmentation_of(num_views),
        online_classifier=keras.layers.Dense(3, dtype="float64"),
        **{"temperature": 0.3} | settings,
    )
    model.compile(keras.optimizers.SGD(0.5, momentum=0.9, jit_compile=False), jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)
    return model


def everything(model):
    """All that a step changes, as one vector."""
    found = [*model.followed, *model.momentum_weights, model.memory, *model.optimizer.variables]
    return np.concatenate([np.ravel(keras.backend.get_value(variable)).astype(float) for variable in found])


def encode(variables, views):
    """The projections of views by another network with these weights, whose batch norm takes their statistics."""
    model = make(kind=SimCLR)
    for variable, value in zip([*model.encoder.variables, *model.projection_head.variables], variables, strict=True):
        variable.assign(value)
    return model.projection_head(model.encoder(views, training=True), training=True).numpy()


@pytest.fixture(scope="module")
def trained_alone(photos):
    """A model after two epochs of two steps, and its metrics."""
    model = make()
    return model, fit(model, photos, batch_size=8, epochs=2)


@pytest.mark.parametrize("num_views", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_average_the_queue_and_the_loss_are_those_of_numpy(photos, num_views):
    model = make(num_views=num_views)
    averages, queue = [variable.numpy() for variable in model.followed], model.memory.numpy()
    np.testing.assert_allclose(np.linalg.norm(queue, axis=1), 1, rtol=1e-12)
    for variable, average in zip(model.momentum_weights, averages, strict=True):
        np.testing.assert_array_equal(variable.numpy(), average)
    for step, count in enumerate((8, 8, 5)):
        images = photos[8 * (step % 2) :][:count]
        views = model.make_views(images)
        projections = encode([variable.numpy() for variable in model.followed], views)
        expected = oracles.contrast(projections.reshape([num_views, len(images), -1]), 0.3, memory=queue)
        metrics = model.train_on_batch(images, LABELS[: len(images)], reset_metrics=True, return_dict=True)
        found = [metrics[name] for name in ("loss", "contrastive_top_1_accuracy", "contrastive_entropy")]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        averages = [
            MOMENTUM * average + (1 - MOMENTUM) * variable.numpy()
            for average, variable in zip(averages, model.followed, strict=True)
        ]
        queue = np.concatenate([queue, encode(averages, views[: len(images)])])[-SIZE:]
        np.testing.assert_allclose(model.memory, queue, rtol=1e-9, atol=1e-12)
        for variable, average in zip(model.momentum_weights, averages, strict=True):
            np.testing.assert_allclose(variable, average, rtol=1e-12, atol=1e-15)
    assert model.momentum_weights[0].name == "ema_model/" + model.followed[0].name


@pytest.mark.slow
def test_a_queue_smaller_than_a_batch_holds_its_last_images(photos):
    model = make(memory_size=3)
    views = model.make_views(photos)
    model.train_on_batch(photos, LABELS)
    rows = encode([variable.numpy() for variable in model.momentum_weights], views[:16])
    np.testing.assert_allclose(model.memory, rows[-3:], rtol=1e-9, atol=1e-12)


def test_replicas_hold_the_queue_and_the_average_of_one(photos, trained_alone):
    alone, expected = trained_alone
    with mirrored(2).scope():
        model = make(synchronized=True)
    metrics = fit(model, photos, batch_size=8, epochs=2)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(everything(model), everything(alone), rtol=0, atol=1e-9)
    for variable in (model.memory, *model.momentum_weights):
        first, second = (value.numpy() for value in variable.values)
        np.testing.assert_array_equal(first, second, err_msg=variable.name)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    # XLA rounds the pixels, which are float32, in its own way.
    [({"microbatch_size": 8}, 1e-9), ({"jit_compile": True}, 1e-3)],
)
@pytest.mark.slow
def test_micro_batches_and_xla_give_the_same_numbers(photos, trained_alone, settings, tolerance):
    alone, expected = trained_alone
    model = make(**settings)
    metrics = fit(model, photos, batch_size=8, epochs=2)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(everything(model), everything(alone), rtol=0, atol=tolerance)


def test_a_queue_fills_in_micro_batches_that_do_not_divide_the_batch(photos):
    model = make(microbatch_size=3, memory_size=16, memory_momentum=1.0)
    start = [variable.numpy() for variable in model.followed]
    views = model.make_views(photos[:8])
    model.train_on_batch(photos[:8], LABELS[:8])
    # Images 0 to 2, 3 to 5 and 5 to 7, of which image 5 is there already.
    parts = [encode(start, views[:3]), encode(start, views[3:6]), encode(start, views[5:8])[1:]]
    np.testing.assert_allclose(model.memory[8:], np.concatenate(parts), rtol=1e-9, atol=1e-12)
    for variable, value in zip(model.momentum_weights, start, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_run_that_was_killed_goes_on_bit_for_bit(photos, tmp_path):
    def train(model, steps):
        for step in steps:
            rows = slice(8 * (step % 2), 8 * (step % 2) + 8)
            model.train_on_batch(photos[rows], LABELS[rows])

    whole, resumed = make(), make()
    train(whole, range(2))
    checkpoints.make_manager(checkpoints.make_checkpoint(whole), tmp_path, keep=1).save(checkpoint_number=2)
    train(whole, range(2, 4))
    resumed.memory.assign(-resumed.memory)  # as a resumed run may start from anything
    assert checkpoints.restore_latest(checkpoints.make_checkpoint(resumed), tmp_path) == 2
    train(resumed, range(2, 4))
    np.testing.assert_array_equal(everything(resumed), everything(whole))


def test_what_does_not_train_is_as_without_a_memory(photos, tmp_path, trained_alone):
    model, _ = trained_alone
    plain = make(kind=SimCLR)
    assert len(model.trainable_variables) == len(plain.trainable_variables)
    assert plain.collapse_value(8) > 0 and model.collapse_value(8) is None
    for name, variables in (("encoder", model.encoder), ("head", model.projection_head)):
        assert len(variables.variables) == sum(key.startswith(name) for key in weights(plain))
    for part in ("encoder", "projection_head", "online_classifier"):
        getattr(plain, part).set_weights(getattr(model, part).get_weights())
    before = everything(model)
    np.testing.assert_allclose(
        model.evaluate(photos, LABELS, verbose=0), plain.evaluate(photos, LABELS, verbose=0), rtol=1e-6
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (type(loaded), loaded.memory_size, loaded.memory_momentum) == (MomentumSimCLR, SIZE, MOMENTUM)
    np.testing.assert_array_equal(everything(model), before)
    np.testing.assert_array_equal(everything(loaded), before)


@pytest.mark.parametrize("name", ["nt_xent", "dcl", "nt_logistic"])
def test_the_entropy_is_over_the_memory_too(name):
    model = make(temperature=None, loss=LOSSES[name](0.3))
    model.memory.assign(np.ones(model.memory.shape))
    _, metrics = model.compare_views(
        [tf.ones([2 * 8, 5], tf.float64), tf.ones([2 * 8, 6], tf.float64)], tf.constant(LABELS[:8])
    )
    entropy = metrics.get("contrastive_entropy")
    assert (entropy is None) == (entropy_candidates(model, 8) is None) == (name == "nt_logistic")
    if entropy is not None:
        np.testing.assert_allclose(np.exp(entropy), entropy_candidates(model, 8), rtol=1e-9)


# The queue holds other images' projections mostly: it must not keep the encoder from telling images apart.
@pytest.mark.slow
def test_learns_to_tell_images_apart(photos):
    keras.utils.set_random_seed(0)
    chain = simclr_chain(crop_area=(0.8, 1.0), jitter_strength=0.2, blur_probability=0)
    model = MomentumSimCLR(
        resnet(10, 0.125, "strided", num_groups=2, dtype="mixed_bfloat16"),
        ProjectionHead(2, 16),
        image_size=32,
        temperature=0.2,
        augmentation=Augmentation(32, branches=(chain, chain)),
        memory_size=6,
        memory_momentum=0.9,
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    model.optimizer.build(model.trainable_variables)
    history = model.fit(photos, batch_size=8, epochs=150, verbose=0).history
    assert history["contrastive_top_1_accuracy"][0] < 0.35
    assert np.mean(history["contrastive_top_1_accuracy"][-10:]) > 0.6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"memory_size": 0}, "memory_size must be at least 1. Received: 0"),
        ({"memory_momentum": 1.5}, "memory_momentum must be between 0 and 1. Received: 1.5"),
        ({"loss": SupCon(), "temperature": None}, "With memory_size, .* choose another loss.* Received: SupCon"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    settings = {"memory_size": SIZE, "temperature": 0.3} | settings
    with pytest.raises(ValueError, match=message):
        MomentumSimCLR(tiny_encoder(), image_size=16, augmentation=augmentation_of(2), **settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "supcon"])
def test_every_other_loss_trains_with_a_memory(name, photos):
    model = make(loss=LOSSES[name](), temperature=None)
    before = model.encoder.get_weights()
    assert np.isfinite(fit(model, photos)["loss"])
    kernels = [pair for pair in zip(before, model.encoder.get_weights(), strict=True) if pair[0].ndim == 4]
    assert kernels and not any(np.array_equal(*pair) for pair in kernels)

"""What the config's optimizers and weight decay turn into."""

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr import SimCLR, builders
from tf_simclr.augment import Augmentation
from tf_simclr.builders.encoder import ENCODERS
from tf_simclr.builders.model import build_loss
from tf_simclr.keras import keras
from tf_simclr.losses import DCLW, LOSSES, MarginTriplet, NTLogistic, NTXent, SupCon
from tf_simclr.metrics import classification
from tf_simclr.models.momentum import MomentumSimCLR
from tf_simclr.optimizers import LARS, Muon
from tf_simclr.settings import RunConfig, override
from tf_simclr.settings.run_config import without_effect

KINDS = {
    "lars": LARS,
    "momentum": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "muon": Muon,
}


def build(optimizer="lars", **changes):
    settings = {
        "optimizer.name": optimizer,
        "optimizer.weight_decay": 0.5,
        "optimizer.warmup_epochs": 0,
        "data.image_size": 16,
        "model.resnet_depth": 10,
        "model.width_multiplier": 0.05,
        "model.num_groups": 1,
        "model.se_ratio": 0.5,
        "train.precision": "float32",
    } | {name.replace("__", "."): value for name, value in changes.items()}
    return builders.build_model(override(RunConfig(), settings), num_examples=1000, num_classes=3)


@pytest.mark.parametrize("optimizer", KINDS)
def test_the_penalty_in_the_loss_is_that_of_the_reference(optimizer):
    """LARS: the classifier's kernel. Momentum and Adam: everything but batch norm. The others decay themselves."""
    model = build(optimizer)
    assert type(model.optimizer) is KINDS[optimizer]
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        for variable in variables:
            variable.assign_add(tf.ones_like(variable))  # so that no bias is zero
        penalty = sum(model.losses) + 0.0 * tf.add_n([tf.reduce_sum(variable) for variable in variables])
    batch_norms = [
        layer for part in (model.encoder, model.projection_head) for layer in part.submodules if hasattr(layer, "gamma")
    ]
    of_batch_norm = {id(variable) for layer in batch_norms for variable in layer.trainable_variables}
    assert len(of_batch_norm) > 6
    for variable, gradient in zip(variables, tape.gradient(penalty, variables), strict=True):
        if optimizer in ("momentum", "adam"):
            factor = 0.0 if id(variable) in of_batch_norm else 0.5
        else:
            factor = 0.5 if optimizer == "lars" and variable is model.online_classifier.kernel else 0.0
        tf.debugging.assert_near(gradient, factor * variable, message=variable.name)


@pytest.mark.parametrize("optimizer", ["lars", "adamw", "muon"])
def test_decoupled_and_coupled_decay_spare_vectors(optimizer):
    model = build(optimizer)
    before = [variable.numpy() for variable in model.trainable_variables]
    model.optimizer.apply_gradients([(tf.zeros_like(variable), variable) for variable in model.trainable_variables])
    for variable, start in zip(model.trainable_variables, before, strict=True):
        decayed = bool((variable.numpy() != start).any())
        excluded = variable.shape.rank <= 1 or (optimizer == "lars" and variable is model.online_classifier.kernel)
        assert decayed == (not excluded), variable.name


def test_momentum_is_nesterov_and_the_schedule_is_that_of_the_reference():
    model = build("momentum")
    assert model.optimizer.nesterov and model.optimizer.momentum == 0.9
    assert float(model.optimizer.get_config()["learning_rate"]["config"]["peak_learning_rate"]) == 0.3 * 512 / 256


def test_a_batch_that_replicas_cannot_share_is_refused():
    with (
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope(),
        pytest.raises(
            ValueError,
            match="global_batch_size must be a multiple of the 2 replicas: use --train_batch_size=8. Received: 9",
        ),
    ):
        builders.build_model(override(RunConfig(), {"train.global_batch_size": 9}), 1000, None)


def test_a_classifier_in_half_precision_gets_its_loss_in_float32():
    loss, accuracy = classification.classification_loss(tf.constant([[2.0, 0.0]], tf.bfloat16), tf.constant([0]))
    assert loss.dtype == accuracy.dtype == tf.float32
    np.testing.assert_allclose(loss, np.log1p(np.exp(-2.0)), rtol=1e-6)


def test_views_may_be_smaller_than_the_images_that_the_encoder_is_for():
    model = build(augmentation__view_size=12)
    images = tf.random.stateless_uniform([4, 16, 16, 3], seed=[0, 1])
    assert model.make_views(images).shape == [8, 12, 12, 3]
    assert set(model.train_on_batch(images, tf.zeros([4], tf.int32), return_dict=True)) > {"loss"}
    assert model.image_size == 16 and model(images).shape == [4, 3]
    with pytest.raises(
        ValueError, match="shrinks images by a factor of 4: use --set=augmentation.view_size=4. Received: view_size 3"
    ):
        build(augmentation__view_size=3, model__stem="imagenet")
    fixed = build().encoder
    with pytest.raises(ValueError, match="16, 16, 3"):
        SimCLR(fixed, image_size=16, augmentation=Augmentation(12))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__encoder": "resnt"}, "model.encoder must be one of resnet.*Did you mean resnet.? Received: resnt"),
        ({"model__loss": "ntxent"}, "model.loss must be one of nt_xent.*Did you mean nt_xent.? Received: ntxent"),
        ({"augmentation__more_operators": "a"}, "augmentation.more_operators must be .*Received: a"),
    ],
)
def test_unknown_names_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_a_loss_gets_the_settings_that_are_its_fields():
    given = {"temperature": 0.3, "hidden_norm": False, "margin": 0.8}
    for name, expected in {
        "nt_xent": NTXent(0.3, normalize=False),
        "dclw": DCLW(0.3, normalize=False),
        "nt_logistic_semi_hard": NTLogistic(0.3, normalize=False, semi_hard=True),
        "margin_triplet": MarginTriplet(0.8, normalize=False),
        "margin_triplet_semi_hard": MarginTriplet(0.8, normalize=False, semi_hard=True),
        "supcon": SupCon(0.3, normalize=False),
    }.items():
        settings = {"model.loss": name} | {f"model.{key}": value for key, value in given.items()}
        assert build_loss(override(RunConfig(), settings)) == expected


@pytest.mark.parametrize("name", LOSSES)
def test_a_temperature_has_an_effect_where_the_loss_has_one(name):
    config = override(RunConfig(), {"model.loss": name, "model.temperature": 0.3})
    assert (without_effect(config, "model.temperature") is None) == hasattr(LOSSES[name](), "temperature")


def test_a_loss_on_classes_needs_them():
    config = override(RunConfig(), {"model.loss": "supcon", "optimizer.warmup_epochs": 0})
    with pytest.raises(ValueError, match="--loss=supcon .* use --loss=nt_xent. Received: images without classes"):
        builders.build_model(config, 1000, num_classes=None)
    assert build(model__loss="supcon", model__online_classifier=False).compares_labels


def test_a_memory_makes_a_momentum_encoder():
    model = build(model__memory_size=7, model__memory_momentum=0.5)
    assert (type(model), model.memory_size, model.memory_momentum) == (MomentumSimCLR, 7, 0.5)
    assert model.memory.shape == [7, 128] and type(build()) is SimCLR
    with pytest.raises(ValueError, match="With memory_size, .* Received: SupCon"):
        build(model__loss="supcon", model__memory_size=7)


def test_any_keras_model_is_an_encoder(photos, monkeypatch):
    def build_tiny(config, *, l2, **settings):
        kernels = keras.regularizers.L2(l2 / 2)
        return keras.Sequential(
            [
                keras.layers.Conv2D(6, 5, strides=4, kernel_regularizer=kernels),
                keras.layers.GlobalAveragePooling2D(dtype="float32"),
            ]
        )

    monkeypatch.setitem(ENCODERS, "tiny", build_tiny)
    tuned = {"train_mode": "finetune", "checkpoint": "unread", "model__encoder": "tiny"}
    model = build("momentum", model__encoder="tiny")
    kernel = model.encoder.trainable_variables[0]
    np.testing.assert_allclose(sum(model.encoder.losses), 0.5 * tf.nn.l2_loss(kernel), rtol=1e-6)
    assert model.fit(photos[:, :16, :16], np.arange(16) % 3, verbose=0).history["loss"][0] > 0

    assert len(build("momentum", **tuned).encoder.trainable_variables) == 2
    assert not build("momentum", **tuned, finetune__after_block=4).encoder.trainable_variables
    with pytest.raises(ValueError, match="finetune.after_block must be 4, the whole encoder, or none .*Received: 2"):
        build("momentum", **tuned, finetune__after_block=2)

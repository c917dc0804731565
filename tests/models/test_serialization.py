"""A model that is made again from its config is the same model but for its weights."""

import json
import warnings

import numpy as np
import pytest
import tensorflow as tf
from tiny import LABELS, tiny_encoder

from tf_simclr.augment import Augmentation, RandomCrop, RandomFlip, simclr_chain
from tf_simclr.keras import keras
from tf_simclr.losses import NTXent
from tf_simclr.models.classifier import Classifier
from tf_simclr.models.foreign import penalize
from tf_simclr.models.heads import ProjectionHead, linear_classifier
from tf_simclr.models.resnet import ResNet, resnet
from tf_simclr.models.simclr import SimCLR


def functional_encoder():
    inputs = keras.Input([16, 16, 3])
    return keras.Model(inputs, tiny_encoder("float32")(inputs))


def frozen_resnet():
    encoder = resnet(50, 0.0625, "cifar", num_groups=1, sk_ratio=0.0625, l2=0.01, dtype="mixed_bfloat16")
    encoder.layers[-1].trainable = False  # which has no weights
    return encoder


CROPS = (RandomCrop(), RandomFlip())


def make_simclr(encoder, chain=CROPS):
    return SimCLR(
        encoder,
        ProjectionHead(2, 5, l2=0.1, batch_norm_momentum=0.8),
        image_size=16,
        loss=NTXent(0.3, normalize=False),
        objective_weight=2.0,
        augmentation=Augmentation(16, branches=(chain,) * 3, seed=1),
        online_classifier=linear_classifier(3, l2=0.1),
        classifier_layer=1,
        microbatch_size=6,
        name="pretraining",
    )


def make_classifier(encoder):
    model = Classifier(
        encoder, keras.layers.Dense(3), image_size=16, projection_head=ProjectionHead(3, 5), classifier_layer=2
    )
    model.projection_head.freeze_from(1)
    return model


def take_step(model, photos):
    model.compile(keras.optimizers.SGD(0.1, jit_compile=False))
    model.optimizer.build(model.trainable_variables)  # or the step is traced twice
    return model.train_on_batch(photos, LABELS, return_dict=True)


@pytest.mark.parametrize("make", [make_simclr, pytest.param(make_classifier, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "make_encoder",
    [
        functional_encoder,
        pytest.param(lambda: tiny_encoder("float32"), marks=pytest.mark.slow),
        pytest.param(frozen_resnet, marks=pytest.mark.slow),
    ],
)
def test_a_model_made_again_takes_the_same_step(make, make_encoder, photos):
    model = make(make_encoder())
    config = json.loads(json.dumps(model.get_config()))
    again = type(model).from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    assert again.name == model.name and type(again.encoder) is type(model.encoder)
    for variables in ("weights", "trainable_variables"):
        shapes, others = ([variable.shape for variable in getattr(each, variables)] for each in (model, again))
        assert shapes == others
    again.set_weights(model.get_weights())
    assert take_step(again, photos) == take_step(model, photos)
    for mine, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_parts_are_made_again():
    chain = simclr_chain()
    again = SimCLR.from_config(make_simclr(frozen_resnet(), chain).get_config())
    assert isinstance(again.encoder, ResNet) and not again.encoder.layers[-1].trainable
    assert again.view_loss == NTXent(0.3, normalize=False)
    assert again.augmentation == Augmentation(16, branches=(chain,) * 3, seed=1)
    assert (again.objective_weight, again.classifier_layer, again.microbatch_size) == (2.0, 1, 6)


def test_keras_saves_and_loads_the_model(tmp_path):
    model = make_simclr(functional_encoder())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    for mine, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


class SubclassedEncoder(keras.Model):
    """Keras itself would return an empty config."""

    def __init__(self, width):
        super().__init__()
        self.dense = keras.layers.Dense(width)

    def call(self, images):
        return self.dense(tf.reduce_mean(images, axis=[1, 2]))


class LayerOfTheirOwn(keras.layers.Dense):
    def __init__(self, width):
        super().__init__(width)

    def get_config(self):
        raise NotImplementedError


class LossOfTheirOwn(NTXent):
    pass


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ({"encoder": SubclassedEncoder(4)}, "SubclassedEncoder"),
        ({"projection_head": LayerOfTheirOwn(4)}, "LayerOfTheirOwn"),
        ({"loss": LossOfTheirOwn()}, "LossOfTheirOwn"),
    ],
)
def test_a_part_without_a_config_is_named(parts, name):
    model = SimCLR(**{"encoder": tiny_encoder("float32"), "image_size": 16, **parts})
    with pytest.raises(NotImplementedError, match=f"has a config only if all its parts have one: .* Received: {name}$"):
        model.get_config()


def test_a_config_with_an_unknown_class_is_refused():
    config = make_simclr(functional_encoder()).get_config()
    config["loss"]["dataclass"] = "NTYent"
    with pytest.raises(ValueError, match="that tf_simclr does not have. Received: NTYent"):
        SimCLR.from_config(config)


def test_a_penalty_is_not_lost_in_silence(tmp_path):
    encoder = functional_encoder()
    penalize(encoder, 0.1)  # Its config knows nothing of it.
    with pytest.raises(ValueError, match=r"can be loaded again.*penalties on weights are made again as"):
        make_simclr(encoder).save(tmp_path / "model.keras")
    assert not (tmp_path / "model.keras").exists()

"""Files of weights are loaded whole or not at all; a model that is saved can be loaded."""

import numpy as np
import pytest
import tensorflow as tf
from tiny import LABELS

from tf_simclr import LARS, Muon, WarmupCosine
from tf_simclr.augment import Augmentation, RandomCrop
from tf_simclr.keras import keras
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.resnet import resnet
from tf_simclr.models.simclr import SimCLR

CROPS = Augmentation(16, branches=((RandomCrop(),),) * 2)
FORMATS = ("file.weights.h5", "file.h5", "checkpoint", "model.keras")
# Formats that are read as others are.
MOST = [pytest.param(name, marks=pytest.mark.slow) if name == "model.keras" else name for name in FORMATS]


def chain(depth, width=4):
    """Convolutions of equal shapes, so that a shorter file fits the first ones."""
    convolutions = [keras.layers.Conv2D(width, 3, padding="same") for _ in range(depth)]
    return keras.Sequential([keras.Input([16, 16, 3]), *convolutions, keras.layers.GlobalAveragePooling2D()])


def make(depth, head_layers=1, **options):
    return SimCLR(chain(depth), ProjectionHead(head_layers, 4), image_size=16, augmentation=CROPS, **options)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model of three convolutions, and a folder with its weights in every format."""
    folder = tmp_path_factory.mktemp("weights")
    model = make(3)
    model.compile("sgd")
    for name in FORMATS:
        (model.save_weights if name in FORMATS[:3] else model.save)(folder / name)
    return model, folder


@pytest.mark.parametrize("name", MOST)
def test_the_weights_of_another_model_change_nothing(name, files):
    model, folder = files
    others = [make(2), make(4), make(3, online_classifier=keras.layers.Dense(3))]
    for other in others:
        before = other.get_weights()
        with pytest.raises(ValueError, match="weights of another model, so none of them was loaded") as caught:
            other.load_weights(str(folder / name))
        assert "\n" not in str(caught.value) and name in str(caught.value)
        for weight, value in zip(other.get_weights(), before, strict=True):
            np.testing.assert_array_equal(weight, value)
    same = make(3)
    same.load_weights(str(folder / name))
    for weight, value in zip(same.encoder.get_weights(), model.encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, value)


def test_what_keras_is_asked_for_stays(files):
    model, folder = files
    other = make(3, head_layers=2)
    other.load_weights(str(folder / "file.weights.h5"), skip_mismatch=True)
    np.testing.assert_array_equal(other.encoder.get_weights()[0], model.encoder.get_weights()[0])
    with pytest.raises((FileNotFoundError, OSError, tf.errors.NotFoundError)):
        other.load_weights(str(folder / "missing.h5"))


@pytest.mark.parametrize("name", ["checkpoint", pytest.param("saved_model", marks=pytest.mark.slow)])
def test_an_encoder_alone_refuses_another_depth(name, tmp_path):
    saved, other = resnet(10, 0.05, "cifar", num_groups=1), resnet(18, 0.05, "cifar", num_groups=1)
    for source, target in ((saved, other), (other, saved)):
        (source.save if name == "saved_model" else source.save_weights)(str(tmp_path / name))
        before = target.get_weights()
        with pytest.raises(ValueError, match="weights of another model"):
            target.load_weights(str(tmp_path / name))
        for weight, value in zip(target.get_weights(), before, strict=True):
            np.testing.assert_array_equal(weight, value)
        source.load_weights(str(tmp_path / name))


@pytest.mark.parametrize("optimizer", [LARS(WarmupCosine(0.5, 10, 2), weight_decay=0.1), Muon(0.1, weight_decay=0.1)])
def test_a_compiled_model_goes_on_where_it_was_saved(photos, tmp_path, optimizer):
    keras.utils.set_random_seed(0)
    model = make(1, online_classifier=keras.layers.Dense(3))
    model.compile(optimizer)
    exclude = (
        optimizer.exclude_from_adaptation if isinstance(optimizer, LARS) else optimizer.exclude_from_orthogonalization
    )
    exclude([model.online_classifier.kernel])
    model.fit(photos, LABELS, batch_size=8, verbose=0)
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    assert all(any(part in line for line in lines) for part in ("projection_head", "dense", "Total params"))
    model.save(str(tmp_path / "model.keras"))
    loaded = keras.models.load_model(str(tmp_path / "model.keras"))
    seen = (one.predict(photos[:, :16, :16], verbose=0) for one in (loaded, model))
    np.testing.assert_array_equal(*seen)
    assert loaded.optimizer.iterations == 2
    assert loaded.optimizer.get_config() == optimizer.get_config()
    assert optimizer.get_config()["excluded_positions"] == [
        [variable is model.online_classifier.kernel for variable in model.trainable_variables].index(True)
    ]
    for _ in range(2):  # The second step also sees what the first one made of the classifier.
        expected = model.train_on_batch(photos, LABELS, return_dict=True)
        assert loaded.train_on_batch(photos, LABELS, return_dict=True) == pytest.approx(expected, rel=1e-5)


@keras.saving.register_keras_serializable("test_loading")
class WithoutItsArguments(keras.Sequential):
    def __init__(self, width):
        super().__init__([keras.layers.Flatten(), keras.layers.Dense(width)])


class Unregistered(keras.layers.Dense):
    pass


def with_lambda():
    inputs = keras.Input([16, 16, 3])
    return keras.Model(inputs, keras.layers.Lambda(lambda images: tf.reduce_mean(images, [1, 2]))(inputs))


Unregistered.__module__ = "module.of.another.process"


@pytest.mark.parametrize(
    ("encoder", "name"),
    [
        (lambda: WithoutItsArguments(4), "WithoutItsArguments"),
        (with_lambda, "Lambda"),
        (lambda: keras.Sequential([keras.layers.Flatten(), Unregistered(4)]), "Unregistered"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(encoder, name, tmp_path):
    model = SimCLR(encoder(), image_size=16, augmentation=CROPS)
    with pytest.raises(ValueError, match="A model is saved only if it can be loaded again") as caught:
        model.save(tmp_path / "model.keras")
    assert "\n" not in str(caught.value) and name in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_formats_that_lose_the_training_are_refused(tmp_path):
    for file in ("saved_model", "model.h5"):
        with pytest.raises(ValueError, match="ends in .keras.* export_encoder makes a SavedModel.* Received: .*model"):
            make(1).save(tmp_path / file)
    assert not list(tmp_path.iterdir())


def test_an_optimizer_that_could_not_be_loaded_is_not_saved(tmp_path):
    class Nameless(keras.optimizers.SGD):
        pass

    model = make(1)
    model.compile(Nameless(0.1))
    with pytest.raises(ValueError, match="A model is saved only if .*Nameless"):
        model.save(tmp_path / "model.keras")

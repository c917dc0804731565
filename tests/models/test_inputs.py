"""What images the models take, wherever they are handed in, and which sentence the others get."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from tiny import LABELS, tiny_encoder

from tf_simclr import LARS
from tf_simclr.augment import Augmentation, RandomCrop, example_keys
from tf_simclr.keras import keras
from tf_simclr.models.classifier import Classifier
from tf_simclr.models.heads import ProjectionHead
from tf_simclr.models.simclr import SimCLR

# One operator, which is traced quickly.
CROPS = Augmentation(16, branches=((RandomCrop(),),) * 2)


@pytest.fixture(scope="module")
def images(photos):
    return np.ascontiguousarray(photos[:, :16, :16])


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = SimCLR(tiny_encoder("float32"), ProjectionHead(1, 4), image_size=16, augmentation=CROPS)
    model.compile(keras.optimizers.SGD(0.0, jit_compile=False))
    model.optimizer.build(model.trainable_variables)
    return model


def datasets(*data):
    return tf.data.Dataset.from_tensor_slices(data if len(data) > 1 else data[0]).batch(8)


def entrances(model, images):
    """Every way to hand images to a model, by name; the batch has a key for every image."""
    keys = example_keys(0, 0, 16).numpy()
    return {
        "fit": lambda: model.fit(images, batch_size=16, verbose=0),
        "fit a dataset": lambda: model.fit(datasets(images), verbose=0),
        "fit keys": lambda: model.fit({"images": images, "keys": keys}, verbose=0),
        "validation": lambda: model.fit(np.zeros([2, 16, 16, 3], np.uint8), validation_data=images, verbose=0),
        "train_on_batch": lambda: model.train_on_batch(images),
        "evaluate": lambda: model.evaluate(images, verbose=0),
        "test_on_batch": lambda: model.test_on_batch(images),
        "predict": lambda: model.predict(images, verbose=0),
        "predict a dataset": lambda: model.predict(datasets(images), verbose=0),
        "predict_on_batch": lambda: model.predict_on_batch(images),
        "call": lambda: model(images),
        "make_views": lambda: model.make_views(images),
        "the augmentation": lambda: model.augmentation(images, keys),
    }


# The pixels, and what the sentence says to do or names.
WRONG = {
    "float to 255": (lambda images: images.astype(np.float32), "divide what goes to 255 by 255.* from 0 to 25"),
    "float to 255 in half": (lambda images: images.astype(np.float16), "divide what goes to 255 by 255"),
    "doubles to 255": (lambda images: images.astype(np.float64), "divide what goes to 255 by 255"),
    "signed": (lambda images: images / np.float32(127.5) - 1, r"turn \[-1, 1\] into \(x \+ 1\) / 2.* from -1 to"),
    "a NaN": (lambda images: np.where(np.arange(3) == 1, np.nan, images / np.float32(255)), "leave out NaN.* from nan"),
    "infinite": (lambda images: np.where(images == images.max(), np.inf, images / np.float32(255)), "from 0 to inf"),
    "standardised": (lambda images: (images - images.mean()) / images.std(), r"must be in \[0, 1\]"),
    "int32": (lambda images: images.astype(np.int32), "cast other integers from 0 to 255 to uint8.* Received: int32"),
    "int64": (lambda images: images.astype(np.int64), "Received: int64"),
    "12 bits": (lambda images: images.astype(np.uint16) * 16, "divide those of more bits by their .* Received: uint16"),
    "int8": (lambda images: (images // 2).astype(np.int8), "Received: int8"),
    "bool": (lambda images: images > 127, "Received: bool"),
}
CHEAP = ("train_on_batch", "predict", "call", "the augmentation")


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_pixels_are_refused_in_one_sentence(kind, model, images):
    make, sentence = WRONG[kind]
    names = entrances(model, make(images)) if kind in ("float to 255", "int32") else CHEAP
    before = model.encoder.get_weights()
    for name in names:
        with pytest.raises(ValueError, match=sentence) as caught:
            entrances(model, make(images))[name]()
        assert "\n" not in str(caught.value), name
    for weight, other in zip(model.encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, other)


@pytest.mark.parametrize("method", ["predict", pytest.param("fit", marks=pytest.mark.slow)])
def test_a_later_batch_out_of_range_is_refused_also_where_xla_drops_assertions(method, images):
    model = SimCLR(tiny_encoder("float32"), ProjectionHead(1, 4), image_size=16, augmentation=CROPS)
    model.compile(keras.optimizers.SGD(0.1, jit_compile=False), jit_compile=True, steps_per_execution=2)
    model.optimizer.build(model.trainable_variables)
    floats = images / np.float32(255)
    floats[-1] *= 2
    with pytest.raises(ValueError, match=r"must be in \[0, 1\].* Received: values from 0 to [12]") as caught:
        getattr(model, method)(datasets(floats, LABELS), verbose=0)
    assert "\n" not in str(caught.value)


def test_a_graph_refuses_pixels_when_it_runs(model, images):
    floats = tf.constant(images, tf.float32)
    keys = example_keys(0, 0, 16)
    for function, arguments in ((model, (floats,)), (model.augmentation, (floats, keys))):
        with pytest.raises(tf.errors.InvalidArgumentError, match="divide what goes to 255 by 255"):
            tf.function(function)(*arguments)
        tf.function(function)(floats / 255, *arguments[1:])


def test_bytes_and_floats_mean_the_same_everywhere(model, images):
    floats = images / np.float32(255)
    expected = model.encoder(floats, training=False).numpy()
    views, metrics = model.make_views(images), model.test_on_batch(images)
    for pixels in (images, floats, floats.astype(np.float64), np.where(floats == 1, np.float32(1.0000001), floats)):
        found = [model(pixels), model.predict(pixels, verbose=0)]
        for features in found:
            np.testing.assert_allclose(features, expected, atol=1e-5)
        np.testing.assert_allclose(model.make_views(pixels), views, atol=1e-5)
    np.testing.assert_allclose(model.predict(datasets(floats), verbose=0), expected, atol=1e-5)
    np.testing.assert_allclose(model.test_on_batch(floats), metrics, rtol=1e-4)


def test_uint8_datasets_and_arrays_reach_keras_as_they_are(model, images, monkeypatch):
    """What costs nothing cannot slow a step."""
    received = []
    monkeypatch.setattr(tf.data.Dataset, "map", lambda *_, **__: pytest.fail("mapped"))
    monkeypatch.setattr(keras.Model, "make_train_function", lambda self, force=False: received.append)
    data = datasets(images)
    with pytest.raises(ValueError, match="Empty logs|Unexpected result"):
        model.fit(data, verbose=0, steps_per_epoch=1)
    assert len(received) == 1


def test_a_model_is_a_layer_of_another(model, images):
    inputs = keras.Input([16, 16, 3])
    around = keras.Model(inputs, keras.layers.Dense(2)(model(inputs)))
    np.testing.assert_allclose(
        around.predict(images / np.float32(255), verbose=0), around.layers[-1](model(images)), atol=1e-5
    )
    of_bytes = keras.Input([16, 16, 3], dtype="uint8")
    np.testing.assert_allclose(keras.Model(of_bytes, model(of_bytes))(images), model(images), atol=1e-6)


def generator(images):
    yield images


class Batches(keras.utils.Sequence):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.images


REMEDIES = {
    "a generator": (generator, "tf.data.Dataset.from_generator.* Received: builtins.generator"),
    "a Sequence": (Batches, "tf.data.Dataset.from_generator.* Received: .*Batches"),
    "a list": (list, "join a list by np.stack.* Received: builtins.list"),
    "nothing": (lambda images: None, "Images must be an array"),
    "TFDS": (
        lambda images: datasets({"image": images, "label": LABELS}),
        r"dataset.map\(lambda row: \(row\['image'\], row\['label'\]\)\). Received: a dictionary of image, label",
    ),
    "a dictionary": (lambda images: {"image": images}, "Received: a dictionary of image"),
    "four parts": (lambda images: datasets(images, LABELS, LABELS, LABELS), "Received: 4 parts"),
    "single images": (lambda images: tf.data.Dataset.from_tensor_slices(images), r"batch them.* \(16, 16, 3\)"),
    "grey images": (lambda images: images[..., :1], r"repeat a grey one three times.* \(16, 16, 16, 1\)"),
    "alpha": (lambda images: np.concatenate([images, images[..., :1]], axis=-1), "leave out alpha.*, 4"),
    "channels first": (lambda images: np.moveaxis(images, -1, 1), r"put the channels last.* \(16, 3, 16, 16\)"),
    "no channels": (lambda images: images[..., 0], r"\(16, 16, 16\)"),
    "unknown sizes": (
        lambda images: tf.data.Dataset.from_generator(
            lambda: generator(images), output_signature=tf.TensorSpec([None, None, None, 3], tf.uint8)
        ),
        "by `tf.ensure_shape`. Received: .*None, None, None, 3",
    ),
    "ragged": (
        lambda images: tf.data.Dataset.from_tensors(tf.ragged.constant([[1], [2, 3]])),
        "resize or crop them to one size.* Received: RaggedTensorSpec",
    ),
}


@pytest.mark.parametrize("kind", REMEDIES)
def test_other_containers_and_shapes_get_a_remedy(kind, model, images):
    make, sentence = REMEDIES[kind]
    methods = (model.fit, model.evaluate) if kind in ("unknown sizes",) else (model.fit, model.evaluate, model.predict)
    for method in methods:
        with pytest.raises(
            ValueError, match=sentence if method != model.predict else "Images must|A batch must"
        ) as caught:
            method(make(images), verbose=0)
        assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def classifier():
    model = Classifier(tiny_encoder("float32"), keras.layers.Dense(3), image_size=16)
    model.compile(keras.optimizers.SGD(0.0, jit_compile=False))
    model.optimizer.build(model.trainable_variables)
    return model


# Labels and weights of sixteen images for three classes.
WRONG_LABELS = {
    "a half": (lambda: {"y": LABELS + 0.5}, "whole numbers, .*below 3.* Received: a label of 0.5"),
    "a NaN": (lambda: {"y": np.where(LABELS == 1, np.nan, LABELS)}, "Received: a label of nan"),
    "too large": (lambda: {"y": LABELS.astype(np.uint8) + 5}, "Received: a label of 5"),
    "below -1": (lambda: {"y": tf.constant(LABELS - 2)}, "-1 where the class is not known. Received: a label of -2"),
    "one-hot": (lambda: {"y": np.eye(3)[LABELS]}, r"take tf.argmax of one-hot labels.* Received: float64 \(16, 3\)"),
    "names": (lambda: {"y": LABELS.astype(str)}, r"look names up. Received: string \(16,\)"),
    "none": (dict, "needs batches of .images, labels.. Received: images alone"),
    "weights alone": (lambda: {"sample_weight": np.ones(16)}, "needs batches of .images, labels."),
    "a NaN in the weights": (lambda: {"y": LABELS, "sample_weight": np.full(16, np.nan)}, "finite. Received: nan"),
}


@pytest.mark.parametrize("kind", WRONG_LABELS)
def test_wrong_labels_and_weights_are_refused_in_one_sentence_before_a_step(kind, classifier, images, monkeypatch):
    monkeypatch.setattr(classifier, "train_step", lambda data: pytest.fail("stepped"))
    monkeypatch.setattr(classifier, "test_step", lambda data: pytest.fail("stepped"))
    make, sentence = WRONG_LABELS[kind]
    given = make()
    validation = (images, *(given[name] for name in ("y", "sample_weight") if name in given))
    methods = (classifier.fit, classifier.evaluate, classifier.train_on_batch, classifier.test_on_batch)
    tries = [functools.partial(method, images, **given) for method in methods]
    if "y" in given or not given:
        tries.append(functools.partial(classifier.fit, images, LABELS, validation_data=validation))
    for attempt in tries:
        with pytest.raises(ValueError, match=sentence) as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_labels_of_datasets_are_looked_at_by_their_spec_and_out_of_range_in_the_step(classifier, images):
    for labels, sentence in (
        (np.eye(3)[LABELS], "take tf.argmax of one-hot labels"),
        (LABELS / 1, "must be integers: cast them by map. Received: float64"),
        (LABELS + 5, "whole numbers, .*below 3, .* Received: a label of [567]"),
    ):
        with pytest.raises(ValueError, match=sentence) as caught:
            classifier.evaluate(datasets(images, labels), verbose=0)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="needs batches of"):
        classifier.evaluate(datasets(images), verbose=0)


def test_whole_labels_of_any_type_count(classifier, images):
    expected = classifier.evaluate(images, LABELS, verbose=0)
    for labels in (LABELS.astype(np.float32), LABELS[:, np.newaxis].astype(np.uint8), tf.constant(LABELS)):
        assert classifier.evaluate(images, labels, verbose=0) == expected


def test_a_model_without_classes_refuses_weights_and_reads_no_labels(model, images):
    for method in (model.fit, model.evaluate):
        for labels in ({}, {"y": LABELS}):
            with pytest.raises(ValueError, match="loss have no weights") as caught:
                method(images, sample_weight=np.ones(16), verbose=0, **labels)
            assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="a dictionary of every class and its weight.* Received: list"):
        model.fit(images, LABELS, class_weight=[1.0, 1.0, 1.0], verbose=0)
    assert np.isfinite(model.test_step((tf.constant(images), tf.constant(np.eye(3)[LABELS])))["loss"])


def test_refused_validation_data_does_not_stay(model, images, monkeypatch):
    for name in ("train_function", "test_function"):
        monkeypatch.setattr(model, name, lambda iterator: {"loss": tf.reduce_mean(next(iterator))})
    floats = images / np.float32(255)
    with pytest.raises(ValueError, match="divide what goes to 255"):
        model.fit(floats, validation_data=datasets(floats * 255), verbose=0)
    assert "val_loss" in model.fit(floats, validation_data=datasets(floats), verbose=0).history


def test_nothing_and_lists_are_images_or_get_a_sentence(model, images):
    with pytest.raises(ValueError, match="join a list by np.stack. Received: builtins.list"):
        model([[0.5]])
    assert model.make_views(images[:0] / np.float32(255)).shape == (0, 16, 16, 3)
    for take in (model, model.make_views, model.evaluate, model.predict):
        with pytest.raises(ValueError, match=r"must have the shape .* Received: \(2, 0, 16, 3\)"):
            take(np.zeros([2, 0, 16, 3], np.float32))


def test_legacy_optimizers_are_refused(model):
    with pytest.raises(
        ValueError, match="of keras.optimizers, not of keras.optimizers.legacy.* Received: .*SGD"
    ) as caught:
        model.compile(keras.optimizers.legacy.SGD(0.1))
    assert "\n" not in str(caught.value)


def test_optimizers_that_scale_the_loss_are_refused(model):
    with pytest.raises(ValueError, match="do not train in float16: use .* Received: LossScaleOptimizer"):
        model.compile(keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.1)))
    half = keras.layers.GlobalAveragePooling2D(dtype="mixed_float16", name="half")
    half = SimCLR(keras.Sequential([half, keras.layers.Dense(2, dtype="float32")]), image_size=16)
    with pytest.raises(ValueError, match="do not train in float16: use .* Received: half in float16"):
        half.compile("sgd")


def test_the_losses_and_metrics_of_keras_are_refused(model):
    again = SimCLR(model.encoder, model.projection_head, image_size=16)
    for arguments in ({"loss": "mse"}, {"metrics": ["accuracy"]}, {"weighted_metrics": ["accuracy"]}):
        with pytest.raises(ValueError, match=f"computes its own loss and metrics.* Received: {next(iter(arguments))}"):
            again.compile("sgd", **arguments)


class FromAnotherKeras:
    """Keras 3 beside tf_keras, or tf_keras beside the Keras of TensorFlow 2.15, without importing it."""


FromAnotherKeras.__module__ = ({"keras", "tf_keras"} - {keras.Model.__module__.partition(".")[0]}).pop() + ".src.models"


def test_parts_of_another_keras_are_refused_at_once(model, images):
    other, encoder = type("Dense", (FromAnotherKeras,), {})(), tiny_encoder("float32")
    makers = [
        ("The encoder", lambda: SimCLR(other, image_size=16)),
        ("A head", lambda: SimCLR(encoder, other, image_size=16)),
        ("A head", lambda: SimCLR(encoder, image_size=16, online_classifier=other)),
        ("A head", lambda: Classifier(encoder, other, image_size=16)),
        ("The optimizer", lambda: model.compile(other)),
        ("A callback", lambda: model.fit(images, callbacks=[other], verbose=0)),
        ("learning_rate", lambda: LARS(other)),
    ]
    for name, make in makers:
        with pytest.raises(ValueError, match=f"^{name} must be .*import tf_keras as keras.*TF_USE_LEGACY_KERAS=1"):
            make()


def test_the_augmentation_of_cropped_views_takes_the_same_pixels(images):
    augmentation = Augmentation(16)
    views = np.stack([images, images], axis=1)
    keys = example_keys(0, 0, 16)
    np.testing.assert_allclose(augmentation(views / np.float32(255), keys), augmentation(views, keys), atol=1e-5)
    with pytest.raises(ValueError, match="divide what goes to 255 by 255"):
        augmentation(views.astype(np.float32), keys)

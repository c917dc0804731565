"""Students and teachers: who learns what from which view, on how many replicas, and that the teacher stays as it is."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from replicas import mirrored
from tiny import LABELS, tiny_encoder

from tf_simclr.augment import Augmentation, crop_and_flip
from tf_simclr.keras import keras
from tf_simclr.models.classifier import Classifier
from tf_simclr.models.distiller import Distiller, RepresentationDistiller, Teacher
from tf_simclr.models.heads import ProjectionHead

AUGMENTATION = crop_and_flip(Augmentation(16, seed=1))
# Known labels on the images of the first replica alone, so that a mean over the known ones would differ.
FEW_LABELS = np.where(np.arange(16) < 5, LABELS, -1)


def make_teacher(width=3, size=16, dtype="float64"):
    """A network with batch norm, and its teacher."""
    keras.utils.set_random_seed(7)
    network = keras.Sequential([tiny_encoder(dtype), keras.layers.Dense(width, dtype=dtype)])
    network(np.random.default_rng(0).uniform(size=[8, size, size, 3]), training=True)
    return network, Teacher(lambda images: 5 * network(images, training=False), width, size)


def student(kind, teacher, *, synchronized=False, jit_compile=False, dtype="float64", rate=1.0, **settings):
    keras.utils.set_random_seed(3)
    encoder = tiny_encoder(dtype, synchronized)
    shared = {"image_size": 16, "augmentation": AUGMENTATION, "teacher": teacher}
    if kind is Distiller:
        classifier = keras.layers.Dense(3, kernel_regularizer="l2", dtype=dtype)
        head = ProjectionHead(1, 5, synchronized=synchronized, dtype=dtype)
        model = Distiller(encoder, classifier, projection_head=head, classifier_layer=1, **shared, **settings)
    else:
        model = RepresentationDistiller(encoder, **shared, **settings)
    model.compile(keras.optimizers.SGD(rate, jit_compile=False), jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)
    return model


KINDS = {
    "logits": (Distiller, {"temperature": 0.5}),
    "logits and labels": (Distiller, {"temperature": 0.5, "label_weight": 0.4}),
    "cosine": (RepresentationDistiller, {}),
    "squared": (RepresentationDistiller, {"distance": "squared", "l2": 0.1}),
}


def fit(model, photos, labels=FEW_LABELS, epochs=3):
    dataset = tf.data.Dataset.from_tensor_slices((photos, labels)).batch(16)
    return {name: values[-1] for name, values in model.fit(dataset, epochs=epochs, verbose=0).history.items()}


def values(model):
    return [np.asarray(weight) for weight in [*model.encoder.weights, *model.trainable_variables]]


@pytest.mark.parametrize(
    "name",
    ["logits and labels", "squared", *(pytest.param(name, marks=pytest.mark.slow) for name in ("logits", "cosine"))],
)
def test_two_replicas_with_other_images_and_labels_take_the_steps_of_one(photos, name):
    kind, settings = KINDS[name]
    alone = student(kind, make_teacher()[1], **settings)
    expected = fit(alone, photos)
    with mirrored(2).scope():
        model = student(kind, make_teacher()[1], synchronized=True, **settings)
    received = fit(model, photos)
    assert received.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(received[name], value, rtol=1e-5, err_msg=name)
    for found, weight in zip(values(model), values(alone), strict=True):
        np.testing.assert_allclose(found, weight, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["cosine", pytest.param("logits and labels", marks=pytest.mark.slow)])
def test_a_compiled_step_with_a_teacher_of_keras_layers_is_the_same(photos, name):
    kind, settings = KINDS[name]
    models = []
    for jit_compile in (False, True):
        teacher = make_teacher(size=24, dtype="float32")[1]  # Its views are resized in the compiled step.
        models.append(student(kind, teacher, jit_compile=jit_compile, dtype="float32", rate=0.1, **settings))
        fit(models[-1], photos)
    for found, weight in zip(*map(values, models), strict=True):
        np.testing.assert_allclose(found, weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", [Distiller, RepresentationDistiller])
def test_the_teacher_is_no_part_of_the_student_and_stays_bit_for_bit(photos, kind, tmp_path):
    network, teacher = make_teacher()
    before = [weight.numpy().tobytes() for weight in network.weights]
    model = student(kind, teacher)
    bare = student(kind, None, **({} if kind is Distiller else {"teacher_width": 3}))
    assert [tuple(weight.shape) for weight in model.weights] == [tuple(weight.shape) for weight in bare.weights]
    start = values(model)
    fit(model, photos)
    assert [weight.numpy().tobytes() for weight in network.weights] == before
    assert any(np.any(old != new) for old, new in zip(start, values(model), strict=True))
    for name, one in {"taught": model, "bare": bare}.items():
        tf.train.Checkpoint(model=one).write(str(tmp_path / name))
    assert tf.train.list_variables(str(tmp_path / "taught")) == tf.train.list_variables(str(tmp_path / "bare"))
    teachers_own = {id(weight) for weight in network.weights}
    assert not teachers_own & {id(variable) for module in model.submodules for variable in module.variables}


def test_teacher_and_student_see_the_same_view_and_the_step_is_the_formula(photos):
    network, teacher = make_teacher()
    seen = []
    teacher = dataclasses.replace(teacher, answer=lambda images: (seen.append(images), teacher_of(images))[1])
    teacher_of = make_teacher()[1].answer
    model = student(Distiller, teacher, temperature=0.5, label_weight=0.4)
    model.run_eagerly = True
    views = model.make_views(photos).numpy()
    logits = model._logits(tf.constant(views), training=True).numpy()
    answers = 5 * network(views, training=False).numpy()
    before = values(model)
    with tf.GradientTape() as tape:
        probabilities = tf.nn.softmax(answers / 0.5)
        free = tf.Variable(logits)
        soft = -tf.reduce_sum(probabilities * tf.nn.log_softmax(free / 0.5)) / 16
        known = np.flatnonzero(FEW_LABELS >= 0)
        log = tf.nn.log_softmax(free)
        hard = -sum(log[row, FEW_LABELS[row]] for row in known) / 16
        expected = 0.4 * hard + 0.6 * soft
    received = model.train_on_batch(photos, FEW_LABELS, return_dict=True)
    np.testing.assert_array_equal(seen[0], views)
    assert received["loss"] == pytest.approx(float(expected), rel=1e-6)
    agreement = np.mean(np.argmax(logits, axis=1) == np.argmax(answers, axis=1))
    assert received["teacher_agreement"] == pytest.approx(agreement)
    hits = np.argmax(logits[known], axis=1) == FEW_LABELS[known]
    assert received["top_1_accuracy"] == pytest.approx(hits.mean())
    # The bias of the classifier has no penalty, so its step is the sum of the logits' gradients.
    moved = before[-1] - model.classifier.bias.numpy()
    np.testing.assert_allclose(moved, tf.reduce_sum(tape.gradient(expected, free), axis=0), rtol=1e-6, atol=1e-9)


def test_a_teacher_of_larger_images_gets_the_view_resized(photos):
    views = tf.image.convert_image_dtype(photos[:, :16, :16], tf.float32)
    seen = Teacher(lambda images: tf.reshape(images, [-1, 24 * 24 * 3]), 24 * 24 * 3, 24)(views)
    expected = tf.clip_by_value(tf.image.resize(views, [24, 24], "bicubic"), 0, 1)
    np.testing.assert_allclose(seen, tf.reshape(expected, [16, -1]), atol=1e-5)


def test_a_student_without_labels_comes_to_agree_with_its_teacher(photos):
    """The teacher knows the colours of three classes; the student sees images alone, and other colours are no help."""
    tinted = photos[:, :16, :16] // 2 + 127 * np.eye(3, dtype=np.uint8)[LABELS][:, np.newaxis, np.newaxis]
    teacher = Teacher(lambda images: 20 * tf.reduce_mean(images, axis=[1, 2]), 3, 16)
    model = student(Distiller, teacher, dtype="float32", rate=0.5)
    history = model.fit(tinted, batch_size=16, epochs=40, verbose=0).history
    assert "top_1_accuracy" not in history
    assert history["teacher_agreement"][0] < 0.8 and min(history["teacher_agreement"][-5:]) == 1.0
    judged = model.evaluate(tinted, LABELS, verbose=0, return_dict=True)
    assert judged["top_1_accuracy"] == 1.0


@pytest.mark.parametrize(("distance", "rate"), [("cosine", 1.0), ("squared", 0.1)])
def test_a_student_comes_to_have_the_teachers_representations_up_to_a_linear_map(photos, distance, rate):
    _, teacher = make_teacher(width=4, dtype="float32")
    model = student(RepresentationDistiller, teacher, distance=distance, dtype="float32", rate=rate)
    first = model.evaluate(photos[:, :16, :16], verbose=0, return_dict=True)
    model.fit(photos[:, :16, :16], batch_size=16, epochs=60, verbose=0)
    last = model.evaluate(photos[:, :16, :16], verbose=0, return_dict=True)
    assert last["loss"] < 0.2 * first["loss"] and last["teacher_similarity"] > 0.95
    assert model(photos[:, :16, :16]).shape == (16, 6)


@pytest.mark.parametrize("name", ["logits and labels", pytest.param("squared", marks=pytest.mark.slow)])
def test_a_saved_student_is_loaded_without_its_teacher_and_asks_for_it(photos, name, tmp_path):
    kind, settings = KINDS[name]
    _, teacher = make_teacher(dtype="float32")
    model = student(kind, teacher, dtype="float32", rate=0.1, **settings)
    fit(model, photos, epochs=1)
    model.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    assert type(loaded) is kind and loaded.teacher is None and loaded.get_config() == model.get_config()
    np.testing.assert_array_equal(loaded(photos[:, :16, :16]), model(photos[:, :16, :16]))
    with pytest.raises(ValueError, match="needs a teacher, which is not saved with its student"):
        fit(loaded, photos)
    loaded.learn_from(teacher)
    assert fit(loaded, photos, epochs=1) == pytest.approx(fit(model, photos, epochs=1), rel=1e-4)


def test_what_does_not_fit_together_is_refused(photos):
    _, teacher = make_teacher()
    with pytest.raises(ValueError, match="The teacher must give 3 numbers for an image.* Received: 4"):
        student(Distiller, make_teacher(width=4)[1])
    with pytest.raises(ValueError, match="temperature must be positive. Received: 0"):
        student(Distiller, teacher, temperature=0)
    with pytest.raises(ValueError, match="label_weight must be above 0 and below 1, or None. Received: 1"):
        student(Distiller, teacher, label_weight=1)
    with pytest.raises(ValueError, match="distance must be one of cosine, squared. Received: angle"):
        student(RepresentationDistiller, teacher, distance="angle")
    with pytest.raises(ValueError, match="needs a teacher, or teacher_width. Received: neither"):
        student(RepresentationDistiller, None)
    for data in (photos, tf.data.Dataset.from_tensor_slices(photos).batch(16)):
        with pytest.raises(ValueError, match="^A .* needs batches of .images, labels.. Received: images alone$"):
            student(Distiller, teacher, label_weight=0.5).fit(data, verbose=0)
    with pytest.raises(ValueError, match="A distillation has no weights of classes or images"):
        student(Distiller, teacher).fit(photos, LABELS, sample_weight=np.ones(16), batch_size=16, verbose=0)
    assert issubclass(Distiller, Classifier)  # So evaluation and export need no case of their own.

"""What an export answers beyond the embedding, and that no request harms another."""

import concurrent.futures
import dataclasses
import importlib
import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from exports import IMAGE_SIZE, make_encoder, make_files, make_images, open_session
from paths import ROOT
from PIL import Image

from tf_simclr.augment.center import preprocess_for_eval
from tf_simclr.export import MicroBatching, Serving, export_encoder, verify
from tf_simclr.export.served import Served, to_served
from tf_simclr.export.signatures import Answers
from tf_simclr.keras import keras
from tf_simclr.models.heads import ProjectionHead, linear_classifier

CLASS_NAMES = ("cat", "dög", "elk")
MAX_PIXELS = 70 * 45  # The largest of the whole files has as many.


@pytest.fixture(scope="module")
def model():
    """An encoder to 5 features with a projection head, of which a classifier reads layer 1."""
    model = keras.Sequential()
    model.encoder, model.image_size = make_encoder(), IMAGE_SIZE
    model.projection_head, model.classifier = ProjectionHead(2, 4), linear_classifier(3)
    model.classifier_layer = 1
    model.classifier(model.projection_head(tf.zeros([1, 5])) @ tf.zeros([4, 5]))
    for weight in [*model.projection_head.trainable_variables, *model.classifier.trainable_variables]:
        weight.assign(tf.random.stateless_normal(weight.shape, [1, 2]))
    return model


@pytest.fixture(scope="module")
def serving():
    axes, _ = np.linalg.qr(np.random.default_rng(0).normal(size=[5, 5]))
    return Serving(
        normalize=True, pca=(np.arange(5) / 10, axes[:2]), project=True, class_names=CLASS_NAMES, max_pixels=MAX_PIXELS
    )


@pytest.fixture(scope="module")
def exported(model, serving, tmp_path_factory):
    return export_encoder(model, tmp_path_factory.mktemp("all") / "1", serving=serving)


def test_every_signature_answers_what_it_says(model, serving, exported):
    images = make_images(3, 40, 60)
    floats = preprocess_for_eval(images, IMAGE_SIZE).numpy()
    features = model.encoder(floats).numpy()
    mean, axes = serving.pca
    embedding = (features - mean) @ axes.T
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    _, hidden, projection = model.projection_head.hidden_outputs(features, training=False)
    scores = tf.nn.softmax(model.classifier(hidden)).numpy()
    files = [tf.io.encode_png(image).numpy() for image in images]
    with open_session(exported) as ask:
        for name in ("serving_default", "classify", "project"):
            answer = ask(name, image_bytes=[files[0], b"", *files[1:]])
            assert answer["valid"].tolist() == [True, False, True, True]
            for key in set(answer) & {"embedding", "scores", "projection"}:
                expected = {"embedding": embedding, "scores": scores, "projection": projection}
                np.testing.assert_allclose(answer[key][[0, 2, 3]], expected[key], rtol=1e-4, atol=1e-6)
                assert not answer[key][1].any()
            if name == "classify":
                assert answer["classes"].tolist() == [[name.encode() for name in CLASS_NAMES]] * 4
        np.testing.assert_allclose(ask("pixels", images=images)["embedding"], embedding, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(ask("encode", images=floats)["embedding"], embedding, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
def test_a_classifier_is_judged_by_the_features_that_the_export_has_computed(normalize, monkeypatch):
    """One that magnifies the rounding of features is the right one still; one with other weights is not."""
    encoder = keras.Sequential([keras.Input([8, 8, 3]), keras.layers.GlobalAveragePooling2D()])
    classifier, other = (keras.layers.Dense(2, kernel_initializer=made) for made in ("ones", "zeros"))
    for layer in (classifier, other):
        layer.build([None, 3])
    classifier.kernel.assign(1e4 * np.array([[1.0, -1.0], [-1.0, 1.0], [0.0, 0.0]]))
    head = ProjectionHead(0)
    served = Served(encoder, 8, head, classifier)
    head(tf.zeros([1, 3]))
    serving = Serving(normalize=normalize)
    answers, images = Answers(served, serving), np.full([2, 8, 8, 3], 128, np.uint8)
    features = answers.features(preprocess_for_eval(images, 8)) + [[3e-5, -3e-5, 0.0]]
    scores = {f"classify/{name}": value.numpy() for name, value in answers.classify(features).items()}
    embedding = answers.embed(features)["embedding"].numpy()
    found = {f"{name}/embedding": embedding for name in ("serving_default", "pixels", "encode")} | scores
    found["called/features"] = features.numpy()
    module = importlib.import_module("tf_simclr.export.verify")  # `export.verify` is its function.
    monkeypatch.setattr(module, "_run_in_fresh_process", lambda *inputs: found)
    if normalize:  # Then nobody knows them.
        with pytest.raises(ValueError, match="must agree with the encoder in memory"):
            verify("1", served, images, serving=serving)
    else:
        assert 2e-5 < verify("1", served, images, serving=serving) < 4e-5
    with pytest.raises(ValueError, match="must agree with the encoder in memory"):
        verify("1", dataclasses.replace(served, classifier=other), images, serving=serving)


def test_verify_compares_in_a_process_without_the_package(model, serving, exported, monkeypatch):
    module = importlib.import_module("tf_simclr.export.verify")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # The process must not find the package even so.
    run, answered = module._run_in_fresh_process, []

    def run_once(*arguments):
        answered.extend([run(*arguments)] if not answered else [])
        return answered[0]

    monkeypatch.setattr(module, "_run_in_fresh_process", run_once)
    images = make_images(3, 40, 60)
    assert verify(exported, model, images, serving=serving) < 1e-5
    other = keras.models.clone_model(model.encoder)
    other.set_weights([weight + 0.01 for weight in model.encoder.get_weights()])
    with pytest.raises(ValueError, match="must agree with the encoder in memory.*'encode/embedding': 0"):
        verify(exported, dataclasses.replace(to_served(model), encoder=other), images, serving=serving)


def jpeg(image: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **options)
    return file.getvalue()


def test_no_image_changes_a_bit_of_what_the_others_get(exported):
    """Batches with whole and broken neighbours; a batch of one, too, on CPUs for a network of this size."""
    files, whole = make_files()
    image = make_images(1, 30, 20)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = jpeg(image, quality=95, subsampling=0, exif=exif)
    upright = np.rot90(tf.io.decode_jpeg(turned).numpy(), -1)
    bomb = bytearray(files[2])
    bomb[16:24] = struct.pack(">II", 30_000, 30_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    lost = bytearray(turned)
    directory = lost.index(b"Exif\0\0") + 10
    lost[directory : directory + 4] = b"\xff" * 4
    files += [
        turned,
        bytes(lost),  # whose orientation is out of bounds
        jpeg(make_images(1, 71, 45)[0]),  # one row too many for max_pixels
        bytes(bomb),
        tf.io.encode_png(make_images(1, 1, 1)[0]).numpy(),
        tf.io.encode_png(make_images(1, 1, 2)[0]).numpy(),
    ]
    whole += [True, True, False, False, False, True]
    good, bad = ([file for file, ok in zip(files, whole, strict=True) if ok is kind] for kind in (True, False))
    with open_session(exported) as ask:
        alone = {file: ask("serving_default", image_bytes=[file])["embedding"][0] for file in good}
        rng = np.random.default_rng(0)
        for _ in range(30):
            batch = [files[index] for index in rng.integers(0, len(files), rng.integers(1, 20))]
            answer = ask("serving_default", image_bytes=batch)
            assert answer["valid"].tolist() == [file in alone for file in batch]
            for file, row in zip(batch, answer["embedding"], strict=True):
                assert row.tobytes() == alone.get(file, np.zeros_like(row)).tobytes()
        upright_row = ask("pixels", images=upright[None])["embedding"][0]
        np.testing.assert_allclose(alone[turned], upright_row, atol=1e-5)
    assert len(set(bad)) == len(bad) == 8


@pytest.fixture(scope="module")
def in_shared_batches(model, tmp_path_factory):
    serving = Serving(batch_sizes=(4,), micro_batching=MicroBatching(4, timeout_us=20_000))
    return export_encoder(model, tmp_path_factory.mktemp("shared") / "1", serving=serving)


def test_requests_that_share_batches_get_what_they_get_alone(in_shared_batches):
    files = [tf.io.encode_png(image).numpy() for image in make_images(8, 40, 40)]
    images = make_images(9, 40, 40)
    with open_session(in_shared_batches) as ask:
        alone = [ask("serving_default", image_bytes=[file])["embedding"][0] for file in files]

        def be_a_client(number):
            if number == 0:
                return not ask("serving_default", image_bytes=[b"", b"no image"])["embedding"].any()
            batch = (files * 2)[number : number + number]
            answer = ask("serving_default", image_bytes=batch)["embedding"]
            return answer.tobytes() == np.array((alone * 2)[number : number + number]).tobytes()

        with concurrent.futures.ThreadPoolExecutor(8) as clients:
            assert all(clients.map(be_a_client, [*range(8)] * 5))
        assert ask("serving_default", image_bytes=np.zeros([0], object))["embedding"].shape == (0, 5)
        together = ask("pixels", images=images)["embedding"]  # More than a batch holds.
    assert together.shape == (9, 5)


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(exported).signatures


@pytest.mark.parametrize(
    ("signature", "value"),
    [
        ("serving_default", [[b"a"], [b"b"]]),
        ("serving_default", np.zeros([2, 8, 8, 3], np.uint8)),
        ("pixels", np.zeros([2, 8, 8, 4], np.uint8)),
        ("pixels", np.zeros([2, 0, 8, 3], np.uint8)),
        ("pixels", np.zeros([1, 71, 45, 3], np.uint8)),  # One row too many for max_pixels.
        ("pixels", np.full([1, 8, 8, 3], 0.5, np.float32)),
        ("encode", np.zeros([2, 31, 32, 3], np.float32)),
        ("encode", np.zeros([32, 32, 3], np.float32)),
    ],
)
def test_a_request_of_the_wrong_kind_is_refused_and_forgotten(signatures, signature, value):
    (key,) = signatures[signature].structured_input_signature[1]
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, ValueError, TypeError)):
        signatures[signature](**{key: tf.constant(value)})
    file = tf.io.encode_png(make_images(1, 8, 8)[0])
    assert signatures["serving_default"](image_bytes=file[None])["valid"].numpy().all()


def test_refuses_to_serve_what_a_model_does_not_have(model, tmp_path):
    with pytest.raises(ValueError, match="needs a model with a projection_head"):
        export_encoder(model.encoder, tmp_path / "1", serving=Serving(project=True))
    with pytest.raises(ValueError, match="class_names must name all 3 classes"):
        export_encoder(model, tmp_path / "1", serving=Serving(class_names=["one"]))

"""Small encoders, intact and broken image files, and a session that runs an export as TensorFlow Serving does."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from tf_simclr.augment.center import preprocess_for_eval
from tf_simclr.data.formats.decode import decode_image
from tf_simclr.keras import keras

IMAGE_SIZE = 32


def make_encoder(**batch_norm_options) -> keras.Model:
    images = keras.Input([IMAGE_SIZE, IMAGE_SIZE, 3])
    hidden = keras.layers.Conv2D(5, 3, strides=2)(images)
    hidden = keras.layers.BatchNormalization(**batch_norm_options)(hidden)
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(hidden))
    encoder = keras.Model(images, outputs)
    encoder(tf.random.stateless_normal([16, IMAGE_SIZE, IMAGE_SIZE, 3], seed=[1, 2]), training=True)
    return encoder


def make_images(num_images: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, [num_images, height, width, 3], np.uint8)


def make_files() -> tuple[list[bytes], list[bool]]:
    """Image files of several sizes and formats, some of them broken, and whether each is intact."""
    large, small, square = (make_images(1, *size)[0] for size in [(70, 45), (32, 32), (40, 40)])
    jpeg, png = tf.io.encode_jpeg(large).numpy(), tf.io.encode_png(small).numpy()
    files = [
        jpeg,
        b"not an image",
        png,
        b"",
        jpeg[: len(jpeg) // 2],
        tf.io.encode_png(square[..., :1]).numpy(),
    ]
    files += [png[: len(png) // 2], b"\xff\xd8\xff" + b"garbage" * 9, jpeg]
    return files, [True, False, True, False, False, True, False, False, True]


@contextlib.contextmanager
def open_session(directory: str) -> Iterator[Callable[..., dict[str, np.ndarray]]]:
    """A function that answers requests as TensorFlow Serving does: ask(signature, input=value) -> outputs."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], directory)

        def ask(signature, **inputs):
            found = meta_graph.signature_def[signature]
            fetches = {key: tensor.name for key, tensor in found.outputs.items()}
            return session.run(fetches, {found.inputs[key].name: value for key, value in inputs.items()})

        yield ask


def embed(encoder: keras.Model, images: np.ndarray) -> np.ndarray:
    return encoder(preprocess_for_eval(images, IMAGE_SIZE), training=False).numpy()


def check_answer_to_files(encoder: keras.Model, embedding: np.ndarray, valid: np.ndarray) -> None:
    files, whole = make_files()
    assert valid.tolist() == whole
    assert embedding.dtype == np.float32
    for file, is_whole, row in zip(files, whole, embedding, strict=True):
        expected = embed(encoder, decode_image(file)[None])[0] if is_whole else np.zeros(5)
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)

"""Writes an encoder as a SavedModel that serves without this package, and proves that it does."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tf_simclr.data.decode import decode_image, preprocess_for_eval
from tf_simclr.keras import keras

# Largest difference that `verify` accepts, relative to the largest feature. A graph optimised otherwise may
# round otherwise: by some 1e-6 in float32; a step of bfloat16 is 2^-8, and layers add up.
_FLOAT32_TOLERANCE = 1e-4
_HALF_PRECISION_TOLERANCE = 2e-2

# Runs in the fresh process. None in sys.modules makes all imports of a package fail, however it is installed.
_LOAD_AND_ENCODE = """
import importlib.util, sys
sys.modules["tf_simclr"] = None
if importlib.util.find_spec("tf_simclr") is not None:
    raise SystemExit("tf_simclr can be imported, so the check would prove nothing")
import numpy as np
import tensorflow as tf
directory, inputs_file, outputs_file = sys.argv[1:]
inputs = np.load(inputs_file)
signatures = tf.saved_model.load(directory).signatures
encoded = [tf.io.encode_png(image).numpy() for image in inputs["pixels"]]
served = signatures["serving_default"](image_bytes=tf.constant([encoded[0], b"no image", *encoded[1:]]))
pixels = signatures["pixels"](images=tf.constant(inputs["pixels"]))
floats = signatures["encode"](images=tf.constant(inputs["floats"]))
np.savez(
    outputs_file,
    serving_default=served["embedding"],
    valid=served["valid"],
    pixels=pixels["embedding"],
    encode=floats["embedding"],
)
"""


def export_encoder(
    model_or_encoder: keras.Model, directory: str | os.PathLike[str], *, image_size: int | None = None
) -> str:
    """Writes the encoder as a SavedModel that does everything from an image file's bytes to its embedding.

    Its signatures, whose embeddings are float32 [B, F] under every precision policy:
      serving_default: image_bytes, string [B], image files -> embedding, and valid, bool [B]. What is no
        image has `valid` False and a row of zeros, and leaves the rest of the batch alone.
      pixels: images, uint8 [B, H, W, 3] -> embedding.
      encode: images, float32 [B, S, S, 3] in [0, 1] -> embedding.
    The first two preprocess as evaluation does; the last takes the encoder's input as it is.

    The files are written beside `directory` under a name that no server takes for a version, then renamed, so
    that it is there whole or not at all. It is never replaced, because a server may hold it.

    Args:
      model_or_encoder: A model with the attributes `encoder` and `image_size`, or any Keras model from images
        [B, S, S, 3] in [0, 1] to [B, F].
      directory: Where to write, such as "encoder/1"; servers load the child of the highest number.
      image_size: S in pixels; by default the model's, or that of the encoder's static input shape.

    Returns:
      `directory` as a string.

    Raises:
      FileExistsError: If `directory` exists.
      ValueError: If the image size is not known, or the encoder does not return [B, F].
    """
    encoder, image_size = _encoder_and_size(model_or_encoder, image_size)
    directory = os.fspath(directory).rstrip("/")
    if tf.io.gfile.exists(directory):
        raise FileExistsError(f"An export never replaces a directory; name a new one. Received: {directory}")
    module, signatures = _serving_module(encoder, image_size)
    unfinished = f"{directory}.incomplete-{os.getpid()}"
    try:
        tf.saved_model.save(module, unfinished, signatures)
        tf.io.gfile.rename(unfinished, directory)
    finally:
        if tf.io.gfile.exists(unfinished):
            tf.io.gfile.rmtree(unfinished)
    logging.info("Exported the encoder to %s", directory)
    return directory


def _encoder_and_size(model: keras.Model, image_size: int | None) -> tuple[keras.Model, int]:
    """The encoder inside `model`, or itself, and the size of its images."""
    encoder = getattr(model, "encoder", model)
    if image_size is None:
        image_size = getattr(model, "image_size", None)
    if image_size is None:
        shape = getattr(encoder, "input_shape", None)
        height, width = shape[1:3] if isinstance(shape, tuple) and len(shape) == 4 else (None, None)
        if height is None or height != width:
            raise ValueError(f"Pass image_size: the encoder's input shape does not tell. Received: {shape}")
        image_size = height
    return encoder, image_size


def _serving_module(encoder: keras.Model, image_size: int) -> tuple[tf.Module, dict[str, Callable]]:
    """A module that owns the encoder's variables alone, and the functions to serve."""
    float_images = tf.TensorSpec([None, image_size, image_size, 3], tf.float32, name="images")

    def embed(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(encoder(images, training=False), tf.float32)

    @tf.function(input_signature=[float_images])
    def encode(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embedding": embed(images)}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def pixels(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embedding": embed(preprocess_for_eval(images, image_size))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images, valid = _decode_batch(image_bytes, image_size)
        embedding = embed(images)
        return {"embedding": tf.where(valid[:, None], embedding, tf.zeros_like(embedding)), "valid": valid}

    embedding_shape = encode.get_concrete_function().structured_outputs["embedding"].shape
    if embedding_shape.rank != 2 or embedding_shape[1] is None:
        raise ValueError(f"The encoder must map images to features [B, F]. Received: shape {embedding_shape}")
    module = tf.Module()
    # Not the encoder itself: Keras would add its training functions and the names of its classes.
    module.encoder_variables = encoder.variables
    return module, {"serving_default": serve, "pixels": pixels, "encode": encode}


def _decode_batch(image_bytes: tf.Tensor, image_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and preprocesses image files, string [B], such that a broken one does not fail the others.

    Returns:
      images: float32 [B, S, S, 3]; zeros where there is no image.
      valid: bool [B].
    """
    shape = [image_size, image_size, 3]
    count = tf.size(image_bytes, out_type=tf.int64)

    def decode(index: tf.Tensor, encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return index, tf.ensure_shape(preprocess_for_eval(decode_image(encoded), image_size), shape)

    decoded = (
        tf.data.Dataset.from_tensor_slices(image_bytes)
        .enumerate()
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        .ignore_errors()
    )
    # A row behind the last one lets a batch come out even if no image is valid. It is cut off again.
    sentinel = tf.data.Dataset.from_tensors((count, tf.zeros(shape)))
    indices, images = decoded.concatenate(sentinel).batch(count + 1).get_single_element()
    indices = indices[:, None]
    images = tf.scatter_nd(indices, images, tf.stack([count + 1, *shape]))[:-1]
    valid = tf.scatter_nd(indices, tf.ones_like(indices[:, 0], tf.bool), [count + 1])[:-1]
    return tf.ensure_shape(images, [None, *shape]), valid


def verify(
    directory: str | os.PathLike[str],
    model_or_encoder: keras.Model,
    images: np.ndarray,
    *,
    image_size: int | None = None,
) -> float:
    """Loads an export in a fresh Python process without tf_simclr and compares it with the encoder in memory.

    All three signatures see the same images (PNG bytes, uint8, float), and the first a broken file, too. Both
    sides run on the CPU: the fresh process may find the accelerator taken.

    Args:
      directory: An export of `export_encoder`.
      model_or_encoder: What was exported.
      images: uint8 [n, H, W, 3], n >= 1.
      image_size: As given to `export_encoder`.

    Returns:
      The largest absolute difference between an embedding of the export and the encoder's own.

    Raises:
      ValueError: If they differ by more than 1e-4 of the largest feature (2e-2 where the encoder computes in
        half precision), or the broken file is not reported as such.
      RuntimeError: If the process fails.
    """
    encoder, image_size = _encoder_and_size(model_or_encoder, image_size)
    with tf.device("CPU:0"):
        floats = preprocess_for_eval(images, image_size)
        expected = tf.cast(encoder(floats, training=False), tf.float32).numpy()
    served = _encode_in_fresh_process(directory, images, floats.numpy())
    embedding = served["serving_default"]
    expected_valid = np.arange(len(images) + 1) != 1
    if not np.array_equal(served["valid"], expected_valid) or embedding[1].any():
        raise ValueError(
            f"The export in {directory} must answer a broken file, and no other, with valid=False and 0. "
            f"Received: valid={served['valid'].tolist()}, row {embedding[1]}"
        )
    served["serving_default"] = embedding[expected_valid]
    names = ("serving_default", "pixels", "encode")
    differences = {name: float(np.max(np.abs(served[name] - expected))) for name in names}
    scale = float(np.max(np.abs(expected)))
    tolerance = scale * (_HALF_PRECISION_TOLERANCE if _computes_in_half(encoder) else _FLOAT32_TOLERANCE)
    if not all(difference <= tolerance for difference in differences.values()):  # NaN fails, too.
        raise ValueError(
            f"The export in {directory} must agree with the encoder in memory to {tolerance:.3g} (largest "
            f"feature: {scale:.3g}). Received: differences {differences}"
        )
    return max(differences.values())


def _encode_in_fresh_process(
    directory: str | os.PathLike[str], pixels: np.ndarray, floats: np.ndarray
) -> dict[str, np.ndarray]:
    """Runs `_LOAD_AND_ENCODE` in an empty working directory and returns the arrays that it saves."""
    directory = os.fspath(directory)
    directory = directory if "://" in directory else os.path.abspath(directory)
    with tempfile.TemporaryDirectory() as folder:
        inputs_file, outputs_file = os.path.join(folder, "inputs.npz"), os.path.join(folder, "outputs.npz")
        np.savez(inputs_file, pixels=pixels, floats=floats)
        process = subprocess.run(
            [sys.executable, "-c", _LOAD_AND_ENCODE, directory, inputs_file, outputs_file],
            cwd=folder,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"},
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            raise RuntimeError(f"{directory} does not run in a fresh process:\n{process.stderr[-2000:]}")
        with np.load(outputs_file) as outputs:
            return dict(outputs)


def _computes_in_half(encoder: Any) -> bool:
    """Whether a layer of the encoder computes in float16 or bfloat16."""
    dtypes = {getattr(layer, "compute_dtype", None) for layer in (encoder, *encoder.submodules)}
    return not dtypes.isdisjoint({"float16", "bfloat16"})

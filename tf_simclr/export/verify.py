"""Proves that an export computes what the encoder in memory does, without this package."""

import os
import subprocess
import sys
import tempfile

import numpy as np
import tensorflow as tf

from tf_simclr.augment.center import preprocess_for_eval
from tf_simclr.export import fresh_process
from tf_simclr.export.served import Served, to_served
from tf_simclr.export.signatures import Answers, Serving
from tf_simclr.export.warmup import WARMUP_FILE
from tf_simclr.files import for_tensorflow
from tf_simclr.keras import keras

# Largest difference that `verify` accepts, relative to the largest feature. A differently optimised graph may
# round differently: by about 1e-6 in float32; a step of bfloat16 is 2^-8, and layers add up.
_FLOAT32_TOLERANCE = 1e-4
_HALF_PRECISION_TOLERANCE = 2e-2


def verify(
    directory: str | os.PathLike[str],
    model_or_encoder: keras.Model | Served,
    images: np.ndarray,
    *,
    image_size: int | None = None,
    serving: Serving | None = None,
) -> float:
    """Loads an export in a fresh Python process without tf_simclr and compares it with the encoder in memory.

    All signatures get the same images (PNG bytes, uint8, float); those that take files also get a broken one. The
    process answers the warm-up requests in a session, as TensorFlow Serving does. Both sides run on the CPU, because
    the accelerator may be in use.

    Args:
      directory: An export of `export_encoder`.
      model_or_encoder: As given to `export_encoder`.
      images: uint8 [n, H, W, 3], n >= 1.
      image_size: As given to `export_encoder`.
      serving: As given to `export_encoder`.

    Returns:
      The largest absolute difference between an embedding of the export and the encoder's own.

    Raises:
      ValueError: If they differ by more than 1e-4 of the largest feature (2e-2 where the encoder computes in
        half precision), or the broken file is not reported as such.
      RuntimeError: If the process fails.
    """
    served, serving = to_served(model_or_encoder, image_size), serving or Serving()
    answers = Answers(served, serving)
    with tf.device("CPU:0"):
        floats = preprocess_for_eval(images, served.image_size)
        answered = _of_intact_files(directory, _run_in_fresh_process(directory, images, floats.numpy()))
        features = answers.features(floats)
        embedded = answers.embed(features)
        # Heads are judged by the features that the export has computed, since they may magnify how those are rounded.
        own = answered["serving_default/embedding"] if serving.is_raw else features
        expected = {name: answer(own) for name, answer in answers.of_bytes().items()}
    expected |= {"serving_default": embedded, "pixels": embedded, "encode": embedded, "called": {"features": features}}
    differences, scales = {}, {}
    for name, outputs in expected.items():
        for key, value in outputs.items():
            differences[f"{name}/{key}"], scales[f"{name}/{key}"] = _compare(answered[f"{name}/{key}"], value.numpy())
    tolerance = _HALF_PRECISION_TOLERANCE if _computes_in_half(served.encoder) else _FLOAT32_TOLERANCE
    if not all(differences[name] <= tolerance * scale for name, scale in scales.items()):  # NaN fails, too.
        raise ValueError(
            f"The export in {directory} must agree with the encoder in memory to {tolerance:.3g} of the largest value. "
            f"Received: differences {differences}, largest values {scales}"
        )
    return max(difference for name, difference in differences.items() if name.endswith("/embedding"))


def _compare(received: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """The largest absolute difference and the largest value; for strings, the number of wrong ones and 0."""
    if expected.dtype == object:
        return float(np.sum(received.astype(object) != expected)), 0.0
    return float(np.max(np.abs(received - expected))), float(np.max(np.abs(expected)))


def _of_intact_files(directory: str | os.PathLike[str], answered: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The answers without those to the broken file, which signatures that say what is valid have got."""
    found = {}
    for name, received in answered.items():
        valid = answered.get(f"{name.partition('/')[0]}/valid")
        if not name.endswith("/valid"):
            found[name] = received if valid is None else _without_broken_file(directory, valid, received)
    return found


def _without_broken_file(directory: str | os.PathLike[str], valid: np.ndarray, received: np.ndarray) -> np.ndarray:
    """The answers to the intact files.

    Raises:
      ValueError: If row 1 is not marked as broken, or another row is.
    """
    expected = np.arange(len(valid)) != 1
    if not np.array_equal(valid, expected) or (received.dtype == np.float32 and received[1].any()):
        raise ValueError(
            f"The export in {directory} must answer a broken file, and no other, with valid=False and 0. "
            f"Received: valid={valid.tolist()}, row {received[1]}"
        )
    return received[expected]


def _run_in_fresh_process(
    directory: str | os.PathLike[str], pixels: np.ndarray, floats: np.ndarray
) -> dict[str, np.ndarray]:
    """Runs `fresh_process.py` in an empty working directory and returns the arrays that it saves."""
    directory = for_tensorflow(directory)
    directory = directory if "://" in directory else os.path.abspath(directory)
    with tempfile.TemporaryDirectory() as folder:
        inputs_file, outputs_file = os.path.join(folder, "inputs.npz"), os.path.join(folder, "outputs.npz")
        np.savez(inputs_file, pixels=pixels, floats=floats)
        process = subprocess.run(
            [sys.executable, fresh_process.__file__, directory, WARMUP_FILE, inputs_file, outputs_file],
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


def _computes_in_half(encoder: keras.Model) -> bool:
    """Whether a layer of the encoder computes in float16 or bfloat16."""
    dtypes = {getattr(layer, "compute_dtype", None) for layer in (encoder, *encoder.submodules)}
    return not dtypes.isdisjoint({"float16", "bfloat16"})

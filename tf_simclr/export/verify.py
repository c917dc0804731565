"""Proves that an export computes what the encoder in memory does, without this package."""

import os
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr.data.formats.decode import preprocess_for_eval
from tf_simclr.export.saved_model import encoder_and_size
from tf_simclr.export.signatures import Answers, Serving
from tf_simclr.export.warmup import WARMUP_FILE
from tf_simclr.keras import keras

# Largest difference that `verify` accepts, relative to the largest feature. A graph optimised otherwise may
# round otherwise: by some 1e-6 in float32; a step of bfloat16 is 2^-8, and layers add up.
_FLOAT32_TOLERANCE = 1e-4
_HALF_PRECISION_TOLERANCE = 2e-2

# Runs in the fresh process. None in sys.modules makes all imports of a package fail, however it is installed.
_LOAD_AND_ENCODE = """
import importlib.util, os, sys
sys.modules["tf_simclr"] = None
if importlib.util.find_spec("tf_simclr") is not None:
    raise SystemExit("tf_simclr can be imported, so the check would prove nothing")
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

def read_number(message, at):
    number = shift = 0
    while True:
        number |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 128:
            return number, at

def fields(message):
    found, at = {}, 0
    while at < len(message):
        tag, at = read_number(message, at)
        size, at = read_number(message, at)
        found[tag >> 3] = message[at : at + size]
        at += size
    return found

directory, warmup_file, inputs_file, outputs_file = sys.argv[1:]
inputs = np.load(inputs_file)
loaded = tf.saved_model.load(directory)
signatures = loaded.signatures
encoded = [tf.io.encode_png(image).numpy() for image in inputs["pixels"]]
files = tf.constant([encoded[0], b"no image", *encoded[1:]])
outputs = {
    "serving_default": signatures["serving_default"](image_bytes=files),
    "pixels": signatures["pixels"](images=tf.constant(inputs["pixels"])),
    "encode": signatures["encode"](images=tf.constant(inputs["floats"])),
    "called": {"features": loaded(tf.constant(inputs["floats"]), trainable=False)["final_avg_pool"]},
}
for name in {"classify", "project"} & set(signatures):
    outputs[name] = signatures[name](image_bytes=files)
records = os.path.join(directory, warmup_file)
records = [record.numpy() for record in tf.data.TFRecordDataset(records)] if tf.io.gfile.exists(records) else []

# A server loads and runs an export like this.
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], directory)
    for record in records:
        request = fields(fields(fields(record)[6])[1])
        signature = meta_graph.signature_def[fields(request[1])[3].decode()]
        entry = fields(request[2])
        name, value = entry[1].decode(), tf.make_ndarray(tensor_pb2.TensorProto.FromString(entry[2]))
        fetches = {key: tensor.name for key, tensor in signature.outputs.items()}
        answer = session.run(fetches, {signature.inputs[name].name: value})
        if not answer["valid"].all() or len(answer["valid"]) != len(value):
            raise SystemExit("a warm-up request is not answered")
arrays = {f"{name}/{key}": value.numpy() for name, found in outputs.items() for key, value in found.items()}
np.savez(outputs_file, **{key: value.astype("S") if value.dtype == object else value for key, value in arrays.items()})
"""


def verify(
    directory: str | os.PathLike[str],
    model_or_encoder: keras.Model,
    images: np.ndarray,
    *,
    image_size: int | None = None,
    serving: Serving | None = None,
) -> float:
    """Loads an export in a fresh Python process without tf_simclr and compares it with the encoder in memory.

    All signatures see the same images (PNG bytes, uint8, float), and those that take files a broken one, too. The
    requests that are to warm a server up are answered as TensorFlow Serving does it, by a session. Both sides run on
    the CPU: the fresh process may find the accelerator taken.

    Args:
      directory: An export of `export_encoder`.
      model_or_encoder: What was exported.
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
    encoder, image_size = encoder_and_size(model_or_encoder, image_size)
    answers = Answers(model_or_encoder, encoder, serving or Serving())
    with tf.device("CPU:0"):
        floats = preprocess_for_eval(images, image_size)
        features = answers.features(floats)
        expected = {name: answer(features) for name, answer in answers.of_bytes().items()}
    embedded = expected["serving_default"]
    expected |= {"pixels": embedded, "encode": embedded, "called": {"features": features}}
    served = _encode_in_fresh_process(directory, images, floats.numpy())
    differences, scales = {}, {}
    for name, outputs in expected.items():
        for key, value in outputs.items():
            received = served[f"{name}/{key}"]
            if f"{name}/valid" in served:
                received = _without_broken_file(directory, served[f"{name}/valid"], received)
            differences[f"{name}/{key}"], scales[f"{name}/{key}"] = _compare(received, value.numpy())
    tolerance = _HALF_PRECISION_TOLERANCE if _computes_in_half(encoder) else _FLOAT32_TOLERANCE
    if not all(differences[name] <= tolerance * scale for name, scale in scales.items()):  # NaN fails, too.
        raise ValueError(
            f"The export in {directory} must agree with the encoder in memory to {tolerance:.3g} of the largest value. "
            f"Received: differences {differences}, largest values {scales}"
        )
    return max(difference for name, difference in differences.items() if name.endswith("/embedding"))


def _compare(received: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """The largest absolute difference, and the largest value; of strings, how many are wrong, and 0."""
    if expected.dtype == object:
        return float(np.sum(received.astype(object) != expected)), 0.0
    return float(np.max(np.abs(received - expected))), float(np.max(np.abs(expected)))


def _without_broken_file(directory: str | os.PathLike[str], valid: np.ndarray, received: np.ndarray) -> np.ndarray:
    """What was answered to the whole files, if row 1, of a broken file, is as it should be."""
    expected = np.arange(len(valid)) != 1
    if not np.array_equal(valid, expected) or (received.dtype == np.float32 and received[1].any()):
        raise ValueError(
            f"The export in {directory} must answer a broken file, and no other, with valid=False and 0. "
            f"Received: valid={valid.tolist()}, row {received[1]}"
        )
    return received[expected]


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
            [sys.executable, "-c", _LOAD_AND_ENCODE, directory, WARMUP_FILE, inputs_file, outputs_file],
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

"""Converts an export to TensorFlow Lite and ONNX, and measures how far each result is from the export."""

import functools
import importlib.util
import os
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tf_simclr.files import for_tensorflow, replacing

FORMATS = ("tflite", "onnx")
# Images that set the ranges of 8-bit integers, and images to compare the results on.
MAX_CALIBRATION_IMAGES = 128
MAX_COMPARED_IMAGES = 32
_ONNX_PACKAGES = ("tf2onnx", "onnxruntime")

# Name of a file, its content, and a function that runs it.
Run = Callable[[np.ndarray], np.ndarray]
Converted = Iterator[tuple[str, bytes, Run]]


def check_formats(formats: Sequence[str]) -> None:
    """Checks, before a long run, that the packages for the formats are installed.

    Raises:
      ValueError: If a package is missing.
    """
    missing = [name for name in _ONNX_PACKAGES if "onnx" in formats and importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            "export.formats=onnx needs missing packages: pip install -r requirements-onnx.txt. "
            f"Received: no {' and no '.join(missing)}"
        )


def convert(
    saved_model: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    formats: Sequence[str],
    images: np.ndarray,
) -> list[str]:
    """Writes the signature `encode` of an export in other formats and runs each in its own interpreter.

    Input, `images`, and output, `embedding`, are those of `encode`, float32 in every file. An encoder that computes
    in bfloat16 is converted to compute in float32, because the interpreters do not know bfloat16.

    Args:
      saved_model: An export of `export_encoder`.
      directory: Where to write encoder_float32.tflite, encoder_float16.tflite (16-bit weights), encoder_int8.tflite
        (weights and all operations in 8-bit integers) and encoder.onnx. Files of these names are replaced.
      formats: Some of FORMATS.
      images: float32 [n, S, S, 3] in [0, 1], like those that will be encoded. The first 128 set the ranges of the 8-bit
        integers, the last 32 are encoded for the comparison.

    Returns:
      A line per file for the terminal: its name, its size, and how far its embeddings are from the export's.
    """
    loaded = tf.saved_model.load(for_tensorflow(saved_model))
    encode = loaded.signatures["encode"]
    compared = images[-MAX_COMPARED_IMAGES:]
    expected = encode(images=tf.constant(compared))["embedding"].numpy()
    encode = _in_float32(encode)
    folder = pathlib.Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A newer package offers the same interpreter.
        for name, content, run in _convert_all(encode, formats, images[:MAX_CALIBRATION_IMAGES]):
            with replacing(folder / name) as beside:
                beside.write_bytes(content)
            lines.append(f"{name}, {len(content) / 1e6:.1f} MB: {_compare(run(compared), expected)}")
    return lines


def _convert_all(encode: Any, formats: Sequence[str], calibration_images: np.ndarray) -> Converted:
    if "tflite" in formats:
        yield from _to_tflite(encode, calibration_images)
    if "onnx" in formats:
        yield _to_onnx(encode)


def _in_float32(encode: Any) -> Any:
    """The signature with its weights as constants and without bfloat16."""
    frozen = convert_variables_to_constants_v2(encode)
    graph = frozen.graph.as_graph_def()
    half, single = tf.bfloat16.as_datatype_enum, tf.float32.as_datatype_enum
    for node in graph.node:
        # Weights are float32, cast before use, so no constant needs converting.
        for attribute in node.attr.values():
            if attribute.type == half:
                attribute.type = single
    image_name, embedding_name = frozen.inputs[0].name, frozen.outputs[0].name

    @tf.function(input_signature=[tf.TensorSpec(frozen.inputs[0].shape, tf.float32, name="images")])
    def encode_in_float32(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embedding": tf.graph_util.import_graph_def(graph, {image_name: images}, [embedding_name])[0]}

    return encode_in_float32


def _to_tflite(encode: Any, calibration_images: np.ndarray) -> Converted:
    """A file in each precision."""
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(tf.Module(), folder, {"encode": encode})
        for precision in ("float32", "float16", "int8"):
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["encode"])
            if precision != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if precision == "float16":
                converter.target_spec.supported_types = [tf.float16]
            elif precision == "int8":
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
                converter.representative_dataset = lambda: (
                    ("encode", {"images": image[np.newaxis]}) for image in calibration_images
                )
            content = converter.convert()
            runner = tf.lite.Interpreter(model_content=content).get_signature_runner("encode")
            yield f"encoder_{precision}.tflite", content, functools.partial(_run_tflite, runner)


def _run_tflite(runner: Any, images: np.ndarray) -> np.ndarray:
    return runner(images=images)["embedding"]


def _to_onnx(encode: Any) -> tuple[str, bytes, Run]:
    """One file, in float32."""
    import onnxruntime
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(encode, input_signature=encode.input_signature)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return "encoder.onnx", content, lambda images: session.run(["embedding"], {"images": images})[0]


def _compare(embedding: np.ndarray, expected: np.ndarray) -> str:
    """The largest difference, absolute and as an angle."""
    lengths = np.linalg.norm(embedding, axis=1) * np.linalg.norm(expected, axis=1)
    cosine = np.min(np.sum(embedding * expected, axis=1) / lengths)
    difference = np.max(np.abs(embedding - expected))
    return (
        f"embeddings of {len(expected)} images differ by at most {difference:.1e} "
        f"(largest feature {np.max(np.abs(expected)):.2g}), cosine at least {cosine:.6f}"
    )

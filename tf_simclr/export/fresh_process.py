"""Loads an export and runs it for `verify`, in a process of its own that cannot import the package.

    python fresh_process.py EXPORT WARMUP_FILE INPUTS.npz OUTPUTS.npz

EXPORT is the directory of the SavedModel, WARMUP_FILE the path of the warm-up requests in it. The inputs are `pixels`,
uint8 [n, H, W, 3], and `floats`, float32 [n, S, S, 3]. The outputs are those of the signatures, as "signature/output".
Signatures that take files get the pixels as PNG, with a file in row 1 that is not an image.

It imports nothing from the package, and is run by its path.
"""

import importlib
import os
import sys
from typing import Any

if __name__ == "__main__":
    # Python looks for modules beside the program first, so ours would shadow others of names like `convert`.
    _here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [place for place in sys.path if os.path.abspath(place) != _here]

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.core.framework import tensor_pb2  # noqa: E402

_PACKAGE = "tf_simclr"


def main(directory: str, warmup_file: str, inputs_file: str, outputs_file: str) -> None:
    """Runs all signatures on the inputs, answers the warm-up requests, and saves the outputs.

    Raises:
      SystemExit: If the package can be imported, or a request is not answered.
    """
    hide_package()
    with np.load(inputs_file) as inputs:
        outputs = run_signatures(directory, inputs["pixels"], inputs["floats"])
    answer_warmup(directory, os.path.join(directory, warmup_file))
    arrays = {f"{name}/{key}": value.numpy() for name, found in outputs.items() for key, value in found.items()}
    # TensorFlow returns strings as objects, which NumPy does not save without pickle.
    strings = {key: value.astype("S") for key, value in arrays.items() if value.dtype == object}
    np.savez(outputs_file, **(arrays | strings))


def hide_package() -> None:
    """Makes all imports of the package fail, however it is installed."""
    sys.modules[_PACKAGE] = None  # type: ignore[assignment]
    try:
        importlib.import_module(_PACKAGE)
    except ModuleNotFoundError:
        return
    raise SystemExit(f"{_PACKAGE} can be imported, so the check would prove nothing")


def run_signatures(directory: str, pixels: np.ndarray, floats: np.ndarray) -> dict[str, Any]:
    """The outputs of every signature by name and, under "called", the features that a call of the model returns."""
    loaded = tf.saved_model.load(directory)
    signatures = loaded.signatures
    encoded = [tf.io.encode_png(image).numpy() for image in pixels]
    files = tf.constant([encoded[0], b"no image", *encoded[1:]])
    outputs = {
        "pixels": signatures["pixels"](images=tf.constant(pixels)),
        "encode": signatures["encode"](images=tf.constant(floats)),
        "called": {"features": loaded(tf.constant(floats), trainable=False)["final_avg_pool"]},
    }
    of_files = {"serving_default"} | ({"classify", "project"} & set(signatures))
    return outputs | {name: signatures[name](image_bytes=files) for name in of_files}


def answer_warmup(directory: str, path: str) -> None:
    """Answers the warm-up requests in a session, as servers run an export."""
    records = [record.numpy() for record in tf.data.TFRecordDataset(path)] if tf.io.gfile.exists(path) else []
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], directory)
        for record in records:
            request = read_fields(read_fields(read_fields(record)[6])[1])
            signature = meta_graph.signature_def[read_fields(request[1])[3].decode()]
            entry = read_fields(request[2])
            name, value = entry[1].decode(), tf.make_ndarray(tensor_pb2.TensorProto.FromString(entry[2]))
            fetches = {key: tensor.name for key, tensor in signature.outputs.items()}
            answer = session.run(fetches, {signature.inputs[name].name: value})
            if not answer["valid"].all() or len(answer["valid"]) != len(value):
                raise SystemExit("a warm-up request is not answered")


def read_fields(message: bytes) -> dict[int, bytes]:
    """The fields of a protocol buffer message by number; all must be length-delimited."""
    found, at = {}, 0
    while at < len(message):
        tag, at = _read_number(message, at)
        size, at = _read_number(message, at)
        found[tag >> 3] = message[at : at + size]
        at += size
    return found


def _read_number(message: bytes, at: int) -> tuple[int, int]:
    """A number stored as 7 bits per byte, lowest first, and the position after it."""
    number = shift = 0
    while True:
        number |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 128:
            return number, at


if __name__ == "__main__":
    main(*sys.argv[1:])

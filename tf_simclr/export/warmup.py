"""Writes the requests that TensorFlow Serving answers with an export before it announces it as available.

The messages are those of TensorFlow Serving's `prediction_log.proto`. The few fields that they need are encoded
here, because `tensorflow-serving-api` would tie the package to one release of TensorFlow.
"""

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

WARMUP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")


def write_warmup(directory: str, image_size: int, batch_sizes: Sequence[int]) -> None:
    """Writes one request to `serving_default` for each batch size; without sizes, writes no file.

    Args:
      directory: The SavedModel.
      image_size: Height and width in pixels of the image, a JPEG file of noise, that all requests repeat.
      batch_sizes: Images in each request.
    """
    if not batch_sizes:
        return
    noise = np.random.default_rng(0).integers(0, 256, [max(image_size, 2), max(image_size, 2), 3], np.uint8)
    image = tf.io.encode_jpeg(noise).numpy()
    path = os.path.join(directory, WARMUP_FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for size in batch_sizes:
            writer.write(prediction_log("serving_default", "image_bytes", tf.make_tensor_proto([image] * size)))


def prediction_log(signature: str, name: str, value: tensor_pb2.TensorProto) -> bytes:
    """A serialized `PredictionLog` of a request with one input."""
    model_spec = _field(3, signature.encode())
    named_value = _field(1, name.encode()) + _field(2, value.SerializeToString())
    request = _field(1, model_spec) + _field(2, named_value)
    return _field(6, _field(1, request))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer message: a string, a message or an entry of a map."""
    length, size = b"", len(content)
    while size > 127:
        length += bytes([size % 128 + 128])
        size //= 128
    return bytes([number * 8 + 2]) + length + bytes([size]) + content

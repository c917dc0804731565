"""Embeds image files with an encoder that TensorFlow Serving serves, over REST or gRPC.

    python examples/serving_client.py http://localhost:8501/v1/models/encoder photos --output=embeddings.npz
    python examples/serving_client.py grpc://localhost:8500/encoder photos --output=embeddings.npz

The .npz file has `path`, `embedding` (float32 [n, F]) and `valid`, false for a file that is not an image; its row is 0.
REST needs only NumPy, gRPC needs `pip install grpcio tensorflow-serving-api`. Copy what you need.
"""

import argparse
import base64
import http.client
import importlib
import json
import os
import pathlib
import random
import time
import types
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

# 503: the server is starting, or its queue is full. 429: the request waited too long, or memory ran out.
BUSY_HTTP_STATUS, HARD_HTTP_STATUS = (503,), (429,)
MAX_ATTEMPTS = 8
# For a request that may itself be the cause: it should not stop one server after the other.
FEW_ATTEMPTS = 2
FIRST_DELAY_SECONDS = 0.1
# No limit on messages, in bytes. Clients accept 4 MB by default, which 512 embeddings of 2,048 features exceed.
GRPC_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

Answer = TypeVar("Answer")
Embeddings = tuple[np.ndarray, np.ndarray]


def with_retries(call: Callable[[], Answer], max_attempts: Callable[[Exception], int]) -> Answer:
    """Retries after random waits that double, so that clients do not return all at once.

    Args:
      call: What to try.
      max_attempts: How often, by its error.
    """
    for attempt in range(MAX_ATTEMPTS):
        try:
            return call()
        except Exception as error:
            if attempt + 1 >= max_attempts(error):
                raise
        time.sleep(random.uniform(0.5, 1.0) * FIRST_DELAY_SECONDS * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def import_quietly(name: str) -> types.ModuleType:
    """Imports TensorFlow, or what imports it, without what it says on stderr meanwhile, on CUDA for instance."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        stderr = os.dup(2)
    except OSError:  # It is closed already.
        return importlib.import_module(name)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        return importlib.import_module(name)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


class RestClient:
    """Speaks REST to one model: http://HOST:8501/v1/models/NAME, or .../NAME/versions/3."""

    def __init__(self, url: str, timeout_seconds: float = 60.0):
        self._url = f"{url.rstrip('/')}:predict"
        self._timeout_seconds = timeout_seconds

    def embed(self, files: Sequence[bytes]) -> Embeddings:
        """Embeds the contents of n image files; returns (embeddings float32 [n, F], valid bool [n])."""
        encoded = [{"b64": base64.b64encode(file).decode()} for file in files]
        body = json.dumps({"inputs": {"image_bytes": encoded}}).encode()
        answer = with_retries(lambda: self._post(body), self._max_attempts)
        outputs = answer.get("outputs")
        if not isinstance(outputs, dict) or not {"embedding", "valid"} <= set(outputs):
            raise ValueError(f"The answer must have the outputs embedding and valid. Received: {str(answer)[:200]}")
        return np.array(outputs["embedding"], np.float32), np.array(outputs["valid"], bool)

    def _post(self, body: bytes) -> dict:
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_seconds) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            error.msg = f"{error.msg}: {error.read().decode(errors='replace')}"  # The server's explanation.
            raise

    @staticmethod
    def _max_attempts(error: Exception) -> int:
        reason = error.code if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
        if reason in BUSY_HTTP_STATUS or isinstance(reason, ConnectionRefusedError):  # The latter: it is starting.
            return MAX_ATTEMPTS
        stopped = isinstance(reason, ConnectionError | http.client.RemoteDisconnected)  # While it answered.
        return FEW_ATTEMPTS if stopped or reason in HARD_HTTP_STATUS else 1


class GrpcClient:
    """Speaks gRPC to one model: grpc://HOST:8500/NAME. Not encrypted; put a proxy in front for encryption."""

    def __init__(self, url: str, timeout_seconds: float = 60.0):
        try:
            grpc = importlib.import_module("grpc")
            services = import_quietly("tensorflow_serving.apis.prediction_service_pb2_grpc")
        except ImportError as error:
            raise ValueError(f"gRPC needs pip install grpcio tensorflow-serving-api ({error})") from error

        parts = urllib.parse.urlsplit(url)
        channel = grpc.insecure_channel(parts.netloc, GRPC_OPTIONS)
        self._predict = services.PredictionServiceStub(channel).Predict
        self._name = parts.path.strip("/")
        self._timeout_seconds = timeout_seconds
        self._attempts = {grpc.StatusCode.UNAVAILABLE: MAX_ATTEMPTS, grpc.StatusCode.RESOURCE_EXHAUSTED: FEW_ATTEMPTS}

    def embed(self, files: Sequence[bytes]) -> Embeddings:
        """Embeds the contents of n image files; returns (embeddings float32 [n, F], valid bool [n])."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._name
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files, tf.string, [len(files)]))
        response = with_retries(lambda: self._predict(request, self._timeout_seconds), self._max_attempts)
        return tf.make_ndarray(response.outputs["embedding"]), tf.make_ndarray(response.outputs["valid"])

    def _max_attempts(self, error: Exception) -> int:
        return self._attempts.get(error.code(), 1) if hasattr(error, "code") else 1


def connect(url: str) -> RestClient | GrpcClient:
    """The client for the URL's protocol."""
    return GrpcClient(url) if url.startswith("grpc://") else RestClient(url)


def embed_files(client: RestClient | GrpcClient, paths: Sequence[pathlib.Path], batch_size: int) -> Embeddings:
    """Embeds n image files in batches; returns (embeddings float32 [n, F], valid bool [n])."""
    batches = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    answers = [client.embed([path.read_bytes() for path in batch]) for batch in batches]
    embeddings, valid = zip(*answers, strict=True)
    return np.concatenate(embeddings), np.concatenate(valid)


def find_files(names: Sequence[str]) -> list[pathlib.Path]:
    """The named files, and all files in the named folders; each name must stand for a file at least."""
    paths: list[pathlib.Path] = []
    for name in names:
        path = pathlib.Path(name)
        found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        if not found:
            raise FileNotFoundError(f"There must be an image file, or a folder of them. Received: {name!r}")
        paths += found
    return paths


def at_least_1(text: str) -> int:
    """A number of the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1. Received: {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Embeds the files that the command line names; ends in a sentence and exit status 2 if it cannot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("url", help="http://HOST:8501/v1/models/NAME or grpc://HOST:8500/NAME")
    parser.add_argument("paths", nargs="+", help="image files, and folders of them")
    parser.add_argument("--output", default="embeddings.npz")
    parser.add_argument("--batch_size", type=at_least_1, default=32, help="images in a request")
    options = parser.parse_args(arguments)
    try:
        paths = find_files(options.paths)
    except OSError as error:
        parser.error(str(error))
    try:
        embedding, valid = embed_files(connect(options.url), paths, options.batch_size)
    except Exception as error:  # whatever a library says of a URL, a server or an answer that it cannot use
        reason = error.details() if hasattr(error, "details") else str(error) or type(error).__name__
        parser.error(f"No embeddings from {options.url!r}: {' '.join(reason.split())}")
    if not valid.any():
        parser.error(f"None of the {len(paths)} files is an image. Received: {' '.join(options.paths)}")
    try:
        np.savez(options.output, path=np.array(paths, str), embedding=embedding, valid=valid)
    except OSError as error:
        parser.error(f"--output must be a file that can be written ({error.strerror}). Received: {options.output!r}")
    print(f"{options.output}: {len(paths)} files, {embedding.shape[1]} features")
    for path, is_image in zip(paths, valid, strict=True):
        if not is_image:
            print(f"not an image: {path}")


if __name__ == "__main__":
    main()

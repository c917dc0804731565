"""A double of TensorFlow Serving for the tests. It is not TensorFlow Serving.

It answers REST and gRPC requests by the rules that TensorFlow Serving's sources state (`json_tensor.cc`,
`http_rest_api_handler.cc`, `predict_util.cc`), and computes the answers as TensorFlow Serving does: the graph with the
tag `serve` in a TF1 session, without XLA. It loads the highest version below a folder, replays its warm-up records,
and switches to a higher one when that appears. It has no batching, no labels, no classify and regress, no metrics.

    python tests/support/serving_double.py FOLDER --name=encoder --rest_port=8501 --grpc_port=8500

writes a line of JSON with the two ports once it has loaded the first version.
"""

import argparse
import base64
import binascii
import concurrent.futures
import http.server
import json
import pathlib
import re
import sys
import threading
import time

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from serving_session import ServingError, Version, disable_xla, invalid
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

POLL_SECONDS = 0.1
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
HTTP_STATUS = {3: 400, 4: 504, 5: 404, 8: 429, 9: 400, 11: 400, 12: 501, 14: 503}  # by canonical code; else 500
GRPC_STATUS = {status.value[0]: status for status in grpc.StatusCode}
GRPC_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
PREDICT_PATH = re.compile(r"(?i)/v1/models/([^/:]+)(?:/versions/(\d+))?:predict")
GET_PATH = re.compile(r"(?i)/v1/models/([^/:]+)(?:/versions/(\d+))?(/metadata)?")


def warm_up(version, folder):
    """Replays the warm-up requests of the version."""
    if (folder / WARMUP_FILE).exists():
        for record in tf.data.TFRecordDataset(str(folder / WARMUP_FILE)).as_numpy_iterator():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            version.run(request.model_spec.signature_name, inputs)


class Model:
    """The highest version below a folder."""

    def __init__(self, name, folder):
        self.name = name
        self._folder = pathlib.Path(folder)
        self._version = None
        self._failed = {}

    def poll(self):
        """Loads the highest version if it is a new one; until then, the old one serves."""
        numbers = [int(path.name) for path in self._folder.iterdir() if path.is_dir() and path.name.isdigit()]
        number = max(numbers, default=None)
        if number is None or number in self._failed or (self._version and self._version.number == number):
            return
        try:
            version = Version(self._folder / str(number))
            warm_up(version, self._folder / str(number))
            self._version = version
        except Exception as error:  # Whatever is wrong with it, the old version keeps serving.
            self._failed[number] = str(error)
            print(f"Loading servable {{name: {self.name} version: {number}}} failed: {error}", file=sys.stderr)

    def poll_forever(self):
        while True:
            time.sleep(POLL_SECONDS)
            self.poll()

    def version(self, name, number=None):
        version = self._version
        if name != self.name or version is None or number not in (None, version.number):
            raise ServingError(tf.errors.NOT_FOUND, f"Servable not found for request: {name}/{number or 'Latest'}")
        return version

    def status(self, name, number=None):
        """(number, state, error) of every version that was tried."""
        if name != self.name:
            raise ServingError(tf.errors.NOT_FOUND, f"Could not find any versions of model {name}")
        states = [(failed, "END", message) for failed, message in self._failed.items()]
        if self._version is not None:
            states.append((self._version.number, "AVAILABLE", ""))
        return [state for state in states if number in (None, state[0])]


def from_json(value, dtype):
    """A JSON value as an array: nested lists of one shape."""
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    values = []

    def fill(node, level):
        if isinstance(node, list):
            if level >= len(shape) or len(node) != shape[level]:
                raise invalid(f"Encountered list at unexpected level or size: {level}, {len(node)}")
            for child in node:
                fill(child, level + 1)
        elif level != len(shape):
            raise invalid(f"JSON Value: {node} found at incorrect level: {level + 1}")
        else:
            values.append(scalar_from_json(node, dtype))

    fill(value, 0)
    if dtype == tf.string:
        return np.array(values, object).reshape(shape)
    return np.array(values).astype(dtype.as_numpy_dtype).reshape(shape)  # uint8 wraps around


def scalar_from_json(value, dtype):
    if dtype not in (tf.string, tf.bool, tf.float32, tf.float64) and not (dtype.is_integer and dtype.size <= 8):
        raise ServingError(tf.errors.UNIMPLEMENTED, f"Conversion of JSON Value: {value} to type: {dtype.name}")
    if dtype == tf.string and isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        try:
            text = value["b64"].rstrip("=")
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except binascii.Error:
            raise invalid("Unable to base64 decode") from None
    if dtype == tf.string and isinstance(value, str):
        return value.encode()
    kinds = {tf.string: (), tf.bool: bool, tf.float32: (int, float), tf.float64: (int, float)}.get(dtype, int)
    if not isinstance(value, kinds) or (isinstance(value, bool) and dtype != tf.bool):
        raise invalid(f"JSON Value: {json.dumps(value)[:80]} is not of expected type: {dtype.name}")
    return value


def is_named(item):
    return isinstance(item, dict) and set(item) != {"b64"}


def read_request(body, find_signature):
    """Reads a predict request: (signature's name, inputs, whether they came row by row)."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from None
    if not isinstance(request, dict):
        raise invalid("JSON Value: Is not object")
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("'signature_name' key must be a string value.")
    dtypes = {key: tf.dtypes.as_dtype(info.dtype) for key, info in find_signature(name).inputs.items()}
    if ("instances" in request) == ("inputs" in request):
        raise invalid("Expecting exactly one of 'inputs' or 'instances'")
    if "inputs" in request:
        return name, columns(request["inputs"], dtypes), False
    return name, rows(request["instances"], dtypes), True


def columns(inputs, dtypes):
    if not is_named(inputs):
        if len(dtypes) > 1:
            raise invalid("inputs is a plain value/list, but expecting an object")
        inputs = {next(iter(dtypes)): inputs}
    if set(dtypes) - set(inputs):
        raise invalid(f"Missing named input: {', '.join(set(dtypes) - set(inputs))} in 'inputs' object.")
    return {key: from_json(inputs[key], dtype) for key, dtype in dtypes.items()}


def rows(instances, dtypes):
    if not isinstance(instances, list) or not instances:
        raise invalid("Expecting 'instances' to be a list with values")
    named = is_named(instances[0])
    if not named and len(dtypes) > 1:
        raise invalid("instances is a plain list, but expecting list of objects")
    arrays = {key: [] for key in dtypes}
    for number, instance in enumerate(instances):
        if is_named(instance) != named:
            raise invalid(f"Expecting {'object' if named else 'value/list'} at item {number} of input list")
        items = instance if named else {next(iter(dtypes)): instance}
        if set(items) != set(dtypes):
            raise invalid(f"Failed to process element: {number}. keys must be equal to: {','.join(dtypes)}")
        for key, item in items.items():
            arrays[key].append(from_json(item, dtypes[key]))
            if arrays[key][-1].shape != arrays[key][0].shape:
                raise invalid(f"Expecting shape {arrays[key][0].shape} but got: {arrays[key][-1].shape}")
    return {key: np.stack(items) for key, items in arrays.items()}


def to_json(name, value):
    """An output as JSON; strings whose name ends in `_bytes` in base64."""
    if value.dtype not in (np.float32, np.float64, np.bool_, object) and value.dtype.kind not in "iuS":
        raise invalid(f"Failed to write JSON value for tensor type: {value.dtype}")
    if value.dtype.kind not in "OS":
        return value.tolist()
    encode = (lambda text: {"b64": base64.b64encode(text).decode()}) if name.endswith("_bytes") else bytes.decode
    return np.vectorize(encode, otypes=[object])(value).tolist()


def write_answer(outputs, by_row):
    answers = {name: to_json(name, value) for name, value in outputs.items()}
    if by_row:
        if len({value.shape[:1] for value in outputs.values()} | {()}) != 2:
            raise invalid("Tensors must have the same, non-empty batch size on axis 0")
        if len(answers) > 1:
            answers = [dict(zip(answers, row, strict=True)) for row in zip(*answers.values(), strict=True)]
            return {"predictions": answers}
    if len(answers) == 1:
        answers = next(iter(answers.values()))
    return {"predictions" if by_row else "outputs": answers}


def rest_handler(model):
    """A handler class that answers for the model."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self, make):
            try:
                status, answer = 200, make()
            except ServingError as error:
                status, answer = HTTP_STATUS.get(error.code, 500), {"error": str(error)}
            content = json.dumps(answer, indent=4).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _match(self, pattern):
            found = pattern.fullmatch(self.path)
            if found is None:
                raise invalid(f"Malformed request: {self.command} {self.path}")
            name, number, *rest = found.groups()
            return (name, int(number) if number else None, *rest)

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(lambda: self._predict(body))

        def do_GET(self):
            self._answer(self._describe)

        def _predict(self, body):
            version = model.version(*self._match(PREDICT_PATH))

            def find_signature(name):
                if (name or "serving_default") not in version.signatures:
                    raise invalid(f'Serving signature name: "{name}" not found in signature def')
                return version.signatures[name or "serving_default"]

            signature_name, inputs, by_row = read_request(body, find_signature)
            return write_answer(version.run(signature_name, inputs), by_row)

        def _describe(self):
            name, number, metadata = self._match(GET_PATH)
            if metadata:
                version = model.version(name, number)
                found = get_model_metadata_pb2.SignatureDefMap(signature_def=version.signatures)
                return {
                    "model_spec": {"name": name, "signature_name": "", "version": str(version.number)},
                    "metadata": {"signature_def": json_format.MessageToDict(found, preserving_proto_field_name=True)},
                }
            keys = "version", "state", "status"
            states = [
                (str(found), state, {"error_code": "UNKNOWN" if message else "OK", "error_message": message})
                for found, state, message in model.status(name, number)
            ]
            return {"model_version_status": [dict(zip(keys, state, strict=True)) for state in states]}

        def log_message(self, *_):
            pass

    return Handler


def number_of(spec):
    return spec.version.value if spec.HasField("version") else None


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The part of the gRPC service that an encoder needs."""

    def __init__(self, model):
        self._model = model

    def Predict(self, request, context):
        spec = request.model_spec
        try:
            version = self._model.version(spec.name, number_of(spec))
            try:
                inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            except (TypeError, ValueError) as error:
                raise invalid(f"Could not parse tensor: {error}") from None
            outputs = version.run(spec.signature_name, inputs, request.output_filter)
        except ServingError as error:
            context.abort(GRPC_STATUS[error.code], str(error))
        response = predict_pb2.PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = version.number
        response.model_spec.signature_name = spec.signature_name or "serving_default"
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(as_proto_field(value))
        return response

    def GetModelMetadata(self, request, context):
        try:
            version = self._model.version(request.model_spec.name, number_of(request.model_spec))
        except ServingError as error:
            context.abort(GRPC_STATUS[error.code], str(error))
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version.number
        found = get_model_metadata_pb2.SignatureDefMap(signature_def=version.signatures)
        response.metadata["signature_def"].Pack(found)
        return response


def as_proto_field(value):
    """A tensor in the typed fields of its message, as TensorFlow Serving sends it."""
    proto = tf.make_tensor_proto(value)
    if proto.tensor_content:
        field = {np.float32: proto.float_val, np.bool_: proto.bool_val}.get(value.dtype.type, proto.int_val)
        field.extend(value.ravel().tolist())
        proto.ClearField("tensor_content")
    return proto


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Answers health checks."""

    def __init__(self, model):
        self._model = model

    def GetModelStatus(self, request, context):
        response = get_model_status_pb2.GetModelStatusResponse()
        try:
            states = self._model.status(request.model_spec.name, number_of(request.model_spec))
        except ServingError as error:
            context.abort(GRPC_STATUS[error.code], str(error))
        for number, state, message in states:
            status = response.model_version_status.add(version=number)
            status.state = get_model_status_pb2.ModelVersionStatus.State.Value(state)
            status.status.error_message = message
        return response


def serve(model, rest_port=0, grpc_port=0):
    """Starts both servers; returns them and their ports. Port 0 takes a free one."""
    rest = http.server.ThreadingHTTPServer(("127.0.0.1", rest_port), rest_handler(model))
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16), options=GRPC_OPTIONS)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(model), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(model), server)
    grpc_port = server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    server.start()
    return (rest, server), {"rest": rest.server_address[1], "grpc": grpc_port}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--name", default="encoder")
    parser.add_argument("--rest_port", type=int, default=0)
    parser.add_argument("--grpc_port", type=int, default=0)
    options = parser.parse_args()
    xla_is_off = disable_xla()
    model = Model(options.name, options.folder)
    model.poll()
    _, ports = serve(model, options.rest_port, options.grpc_port)
    print(json.dumps({**ports, "xla_is_off": xla_is_off}), flush=True)
    model.poll_forever()


if __name__ == "__main__":
    main()

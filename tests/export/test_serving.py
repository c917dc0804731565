"""An export behind the double of TensorFlow Serving, as real clients see it; and behind the real one, where there is.

TF_SERVING_URL=http://localhost:8501/v1/models/encoder python -m pytest tests/export/test_serving.py -k real
"""

import base64
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import serving_double
import tensorflow as tf
import yaml
from exports import check_answer_to_files, make_encoder, make_files, make_images
from google.protobuf import text_format
from paths import ROOT, SUPPORT
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tf_simclr.augment.center import preprocess_for_eval
from tf_simclr.export import export_encoder

CLIENT = ROOT / "examples" / "serving_client.py"
FEATURES = 5


@pytest.fixture(scope="module")
def folder(exported, tmp_path_factory):
    """A folder of versions, as a server watches it."""
    folder = tmp_path_factory.mktemp("served") / "encoder"
    shutil.copytree(exported, folder / "1")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """The double in a process of its own, in which XLA is off and the package cannot be imported."""
    command = [sys.executable, str(SUPPORT / "serving_double.py"), str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield json.loads(process.stdout.readline())
        process.kill()


@pytest.fixture(scope="module")
def client():
    """The module examples/serving_client.py, which waits for less time here."""
    spec = importlib.util.spec_from_file_location("serving_client", CLIENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.FIRST_DELAY_SECONDS = 0.001
    return module


def rest_url(server):
    return f"http://localhost:{server['rest']}/v1/models/encoder"


def grpc_url(server):
    return f"grpc://localhost:{server['grpc']}/encoder"


def fetch(url, request=None):
    """(status, JSON) of a GET, or of a POST of the request: bytes, or what JSON can hold."""
    if request is not None and not isinstance(request, bytes):
        request = json.dumps(request).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, request), timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def predict(server, request):
    return fetch(f"{rest_url(server)}:predict", request)


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


def channel(server):
    return grpc.insecure_channel(f"localhost:{server['grpc']}", serving_double.GRPC_OPTIONS)


def grpc_request(signature="", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "encoder"
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


@pytest.mark.parametrize("make_url", [rest_url, grpc_url])
def test_the_client_gets_what_the_encoder_computes(encoder, server, client, make_url):
    embedding, valid = client.connect(make_url(server)).embed(make_files()[0])
    check_answer_to_files(encoder, embedding, valid)


def test_the_client_embeds_folders(server, client, tmp_path):
    files, whole = make_files()
    for number, content in enumerate(files):
        (tmp_path / "photos" / str(number)).parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / str(number)).write_bytes(content)
    arguments = [rest_url(server), "photos", "photos/0", "--batch_size=4"]
    done = subprocess.run(
        [sys.executable, CLIENT, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"embeddings.npz: {len(files) + 1} files, {FEATURES} features" in done.stdout
    assert "not an image: photos/1\n" in done.stdout
    with np.load(tmp_path / "embeddings.npz") as written:
        assert written["valid"].tolist() == [*whole, True]
        assert written["path"][-1] == "photos/0"
        np.testing.assert_array_equal(written["embedding"][-1], written["embedding"][0])


@pytest.mark.slow
def test_the_ten_lines_without_a_server(folder, encoder, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    images = make_images(3, 40, 50)
    for index, image in enumerate(images):
        (photos / f"{index}.png").write_bytes(tf.io.encode_png(image).numpy())
    (photos / "notes.txt").write_text("no image")
    command = [sys.executable, str(ROOT / "examples" / "feature_extractor.py"), str(folder / "1"), str(photos)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"3 embeddings of {FEATURES} features; 1 file is not an image" in done.stdout
    found = np.load(tmp_path / "embeddings.npz")
    assert [pathlib.Path(path).name for path in found["path"]] == ["0.png", "1.png", "2.png"]
    expected = encoder(preprocess_for_eval(images, encoder.input_shape[1]), training=False)
    np.testing.assert_allclose(found["embedding"], expected, rtol=1e-4, atol=1e-6)


def test_rows_and_columns(encoder, server):
    files = make_files()[0]
    status, by_row = predict(server, {"instances": [{"image_bytes": b64(file)} for file in files]})
    assert status == 200 and set(by_row) == {"predictions"}
    columns = {name: np.array([row[name] for row in by_row["predictions"]]) for name in ("embedding", "valid")}
    check_answer_to_files(encoder, columns["embedding"].astype(np.float32), columns["valid"])
    for request in (
        {"instances": [b64(file) for file in files]},
        {"inputs": [b64(file) for file in files]},
        {"inputs": {"image_bytes": [b64(file) for file in files]}, "signature_name": "serving_default"},
    ):
        status, answer = predict(server, request)
        assert status == 200
        if "outputs" in answer:
            assert answer["outputs"]["embedding"] == columns["embedding"].tolist()
        else:
            assert answer == by_row
    images = make_images(2, 9, 7)
    expected = encoder(preprocess_for_eval(images, 32), training=False)
    for key, answer_key in (("instances", "predictions"), ("inputs", "outputs")):
        status, answer = predict(server, {"signature_name": "pixels", key: images.tolist()})
        assert status == 200
        np.testing.assert_allclose(answer[answer_key], expected, rtol=1e-5, atol=1e-6)


def nested(shape, value):
    return np.full(shape, value).tolist()


# What is wrong, the request, the status and a part of what the answer says.
REJECTED = {
    "no JSON": (b"{", 400, "JSON Parse error"),
    "no object": ([1], 400, "Is not object"),
    "neither rows nor columns": ({}, 400, "instances"),
    "both rows and columns": ({"instances": [""], "inputs": [""]}, 400, "instances"),
    "no rows": ({"instances": []}, 400, "instances"),
    "unknown signature": ({"signature_name": "classify_cats", "instances": [""]}, 400, "not found in signature def"),
    "unknown input": ({"instances": [{"image": b64(b"")}]}, 400, "keys must be equal to: image_bytes"),
    "missing input": ({"inputs": {"image": [b64(b"")]}}, 400, "Missing named input: image_bytes"),
    "mixed rows": ({"instances": [{"image_bytes": b64(b"")}, b64(b"")]}, 400, "Expecting object"),
    "numbers for bytes": ({"instances": [1]}, 400, "not of expected type"),
    "no base64": ({"instances": [{"b64": "#"}]}, 400, "base64"),
    "ragged images": ({"signature_name": "pixels", "inputs": [[[[1, 2, 3]], [[1, 2]]]]}, 400, "unexpected"),
    "fractions for integers": ({"signature_name": "pixels", "inputs": nested([1, 2, 2, 3], 0.5)}, 400, "expected type"),
    "two channels": ({"signature_name": "pixels", "inputs": nested([1, 4, 4, 2], 1)}, 400, "not compatible"),
    "no batch": ({"signature_name": "pixels", "inputs": nested([4, 4, 3], 1)}, 400, "not compatible"),
    "another size": ({"signature_name": "encode", "inputs": nested([1, 8, 8, 3], 0.5)}, 400, "not compatible"),
    "no batch of floats": ({"signature_name": "encode", "inputs": nested([32, 32, 3], 0.5)}, 400, "not compatible"),
    "a table of files": ({"inputs": [[b64(b""), b64(b"")], [b64(b""), b64(b"")]]}, 400, "not compatible"),
}


@pytest.mark.parametrize("reason", REJECTED)
def test_rest_rejects(server, reason):
    request, expected, message = REJECTED[reason]
    status, answer = predict(server, request)
    assert (status, set(answer)) == (expected, {"error"})
    assert message in answer["error"]


def test_a_base64_text_that_is_not_marked_is_no_image(server):
    png = base64.b64encode(tf.io.encode_png(make_images(1, 8, 8)[0]).numpy()).decode()
    assert predict(server, {"instances": [png]})[1]["predictions"][0]["valid"] is False


@pytest.mark.parametrize(
    ("inputs", "signature", "code"),
    [
        ({"image_bytes": np.zeros([1, 3], np.float32)}, "", grpc.StatusCode.INVALID_ARGUMENT),
        ({"images": [b""]}, "", grpc.StatusCode.INVALID_ARGUMENT),
        ({"images": np.zeros([1, 4, 4, 3], np.float32)}, "pixels", grpc.StatusCode.INVALID_ARGUMENT),
        ({"images": np.zeros([1, 4, 4, 2], np.uint8)}, "pixels", grpc.StatusCode.INVALID_ARGUMENT),
        ({"image_bytes": [b""]}, "classify_cats", grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
def test_grpc_rejects(server, inputs, signature, code):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel(server))
    with pytest.raises(grpc.RpcError) as error:
        stub.Predict(grpc_request(signature, **inputs))
    assert error.value.code() == code


def test_grpc_sends_the_outputs_that_are_asked_for(server):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel(server))
    request = grpc_request(image_bytes=make_files()[0])
    request.output_filter.append("valid")
    response = stub.Predict(request)
    assert list(response.outputs) == ["valid"]
    assert response.model_spec.version.value == 1
    request.model_spec.version.value = 7
    with pytest.raises(grpc.RpcError) as error:
        stub.Predict(request)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_status_and_metadata(server):
    assert fetch(rest_url(server))[1]["model_version_status"][0]["state"] == "AVAILABLE"
    assert fetch(f"{rest_url(server)}/versions/7:predict", {"instances": [""]})[0] == 404
    assert fetch(rest_url(server).replace("encoder", "decoder"))[0] == 404
    assert fetch(f"{rest_url(server)}:embed", {"instances": [""]})[0] == 400
    signatures = fetch(f"{rest_url(server)}/metadata")[1]["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"

    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "encoder"
    response = prediction_service_pb2_grpc.PredictionServiceStub(channel(server)).GetModelMetadata(request)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    assert {name for name in found.signature_def if not name.startswith("__")} >= {"serving_default", "encode"}
    # Of axis 0 nothing is fixed, so that requests can be of any size and row by row.
    for name, signature in found.signature_def.items():
        for info in [*signature.inputs.values(), *signature.outputs.values()] if not name.startswith("__") else ():
            assert info.tensor_shape.dim[0].size == -1, text_format.MessageToString(info)

    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "encoder"
    status = model_service_pb2_grpc.ModelServiceStub(channel(server)).GetModelStatus(request)
    assert [version.state for version in status.model_version_status] == [30]  # AVAILABLE


def test_the_health_check_of_the_compose_file(server):
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    kind, *command = compose["services"]["serving"]["healthcheck"]["test"]
    assert kind == "CMD"

    def check(port, model="encoder"):
        words = [word.replace("$$", "$").replace("8501", str(port)).replace("encoder", model) for word in command]
        return subprocess.run(words, capture_output=True, check=False).returncode

    assert check(server["rest"]) == 0
    assert check(server["rest"], model="decoder") != 0 and check(port=1) != 0


class BusyModel:
    """Answers the first requests with one code each, and the others with a large array."""

    def __init__(self, *codes):
        self.codes = list(codes)
        self.number = 1
        inputs = {"image_bytes": meta_graph_pb2.TensorInfo(dtype=types_pb2.DT_STRING)}
        self.signatures = {"serving_default": meta_graph_pb2.SignatureDef(inputs=inputs)}

    def version(self, *_):
        return self

    def run(self, signature_name, inputs, outputs=()):
        if self.codes:
            raise serving_double.ServingError(self.codes.pop(0), "busy")
        size = len(inputs["image_bytes"])
        return {"embedding": np.ones([size, 1024], np.float32), "valid": np.ones([size], bool)}


@pytest.mark.parametrize("make_url", [rest_url, grpc_url])
def test_the_client_comes_back_when_the_server_is_busy_and_takes_large_answers(client, make_url):
    busy = BusyModel(tf.errors.RESOURCE_EXHAUSTED, tf.errors.UNAVAILABLE, tf.errors.UNAVAILABLE)
    servers, ports = serving_double.serve(busy)
    try:
        embedding, valid = client.connect(make_url(ports)).embed([b"image"] * 1100)  # 4.3 MiB
        assert embedding.shape == (1100, 1024) and valid.all() and not busy.codes
        # What the request itself is to blame for is not sent again, what it may be to blame for once.
        for code, attempts in ((tf.errors.INVALID_ARGUMENT, 1), (tf.errors.RESOURCE_EXHAUSTED, 2)):
            busy.codes = [code] * 3
            with pytest.raises((urllib.error.HTTPError, grpc.RpcError), match="busy"):
                client.connect(make_url(ports)).embed([b"image"])
            assert len(busy.codes) == 3 - attempts
    finally:
        servers[0].shutdown()
        servers[1].stop(None)


@pytest.mark.parametrize("url", ["http://localhost:1/v1/models/encoder", "grpc://localhost:1/encoder"])
def test_the_client_gives_up_where_nobody_answers(client, url, monkeypatch):
    monkeypatch.setattr(client, "MAX_ATTEMPTS", 2)
    with pytest.raises((urllib.error.URLError, grpc.RpcError), match="refused|connect"):
        client.connect(url).embed([b"image"])


def test_a_new_version_takes_over_and_a_broken_one_does_not(encoder, folder, server):
    request = {"instances": [b64(make_files()[0][0])]}
    before = predict(server, request)
    broken = folder / "3.incomplete"
    shutil.copytree(folder / "1", broken)
    (broken / "assets.extra").mkdir(exist_ok=True)
    record = serving_double.prediction_log_pb2.PredictionLog()
    record.predict_log.request.CopyFrom(grpc_request("pixels", images=np.zeros([1, 4, 4, 3], np.float32)))
    with tf.io.TFRecordWriter(str(broken / serving_double.WARMUP_FILE)) as writer:
        writer.write(record.SerializeToString())
    other = make_encoder()
    other.set_weights([weight + 1 for weight in encoder.get_weights()])
    export_encoder(other, folder / "2")
    answers = []
    while not answers or answers[-1] == before:  # until the new version answers
        answers.append(predict(server, request))
    assert [status for status, _ in answers] == [200] * len(answers)
    assert predict(server, request)[1] != before[1]
    broken.rename(folder / "3")
    while len(states := fetch(rest_url(server))[1]["model_version_status"]) < 2:
        time.sleep(0.05)
    assert {state["version"]: state["state"] for state in states} == {"2": "AVAILABLE", "3": "END"}
    assert predict(server, request) == answers[-1]


def test_a_real_server_answers_as_the_double_does(client):
    """The encoder is another one, so that only what holds for all of them is compared."""
    url = os.environ.get("TF_SERVING_URL")
    if url is None:
        pytest.skip("TF_SERVING_URL names no server")
    files, whole = make_files()
    embedding, valid = client.connect(url).embed(files)
    assert valid.tolist() == whole
    assert not embedding[~valid].any() and np.isfinite(embedding).all()
    alone = [client.connect(url).embed([file])[0][0] for file in files]
    np.testing.assert_allclose(embedding, alone, rtol=1e-4, atol=1e-5)
    if url.startswith("http"):
        for request, expected, _ in REJECTED.values():
            assert fetch(f"{url}:predict", request)[0] == expected
        assert fetch(url)[1]["model_version_status"][0]["state"] == "AVAILABLE"

"""The directory of an export: whole or absent, audited, with what a server and a reader need beside the graph."""

import contextlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

import pytest
import tensorflow as tf
from exports import IMAGE_SIZE
from paths import ROOT
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from tf_simclr.export import audit, export_encoder
from tf_simclr.export.directory import complete_or_absent, is_whole, prune
from tf_simclr.export.warmup import WARMUP_FILE
from tf_simclr.keras import keras

WHOLE = ("model_card.json", "saved_model.pb", "variables/variables.index")
SIGNATURES = ["serving_default", "pixels", "encode"]


def test_warmup_requests_are_those_of_tensorflow_serving(exported):
    records = [record.numpy() for record in tf.data.TFRecordDataset(os.path.join(exported, WARMUP_FILE))]
    assert len(records) == 3
    for size, record in zip([1, 8, 200], records, strict=True):
        received = prediction_log_pb2.PredictionLog.FromString(record)
        (image,) = set(tf.make_ndarray(received.predict_log.request.inputs["image_bytes"]))
        assert tf.io.decode_jpeg(image).shape == [IMAGE_SIZE, IMAGE_SIZE, 3]
        expected = prediction_log_pb2.PredictionLog()
        expected.predict_log.request.model_spec.signature_name = "serving_default"
        expected.predict_log.request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([image] * size))
        assert received == expected


def test_the_model_card_says_what_goes_in_and_what_comes_out(exported):
    card = json.loads(pathlib.Path(exported, "model_card.json").read_text())
    assert card["preprocessing"]["image_size"] == IMAGE_SIZE and card["preprocessing"]["range"] == [0, 1]
    assert card["embedding"] == {"size": 5, "unit_length": False, "pca": False}
    assert set(card["signatures"]) == set(SIGNATURES)
    assert card["signatures"]["serving_default"]["inputs"] == {"image_bytes": {"dtype": "string", "shape": [None]}}
    assert card["signatures"]["encode"]["outputs"] == {"embedding": {"dtype": "float32", "shape": [None, 5]}}
    assert card["versions"]["tensorflow"] == tf.__version__
    assert (card["license"], card["accuracy"]) == ("unknown", None)


def break_meta_graph(rule):
    def change(meta_graph):
        outputs = meta_graph.signature_def["encode"].outputs["embedding"]
        if rule == "Addons>Blur is custom":
            meta_graph.graph_def.library.function[0].node_def.add(name="x", op="Addons>Blur")
        elif rule == "EagerPyFunc runs Python":
            meta_graph.graph_def.node.add(name="x", op="EagerPyFunc")
        elif rule == "must be compiled by XLA":
            meta_graph.graph_def.library.function[-1].attr["_XlaMustCompile"].b = True
        elif rule == "signatures must be encode, pixels, serving_default, but are pixels, serving_default":
            del meta_graph.signature_def["encode"]
        elif rule == "axis 0 of embedding in the signature encode must be open":
            outputs.tensor_shape.dim[0].size = 4
        elif rule == "embedding of the signature encode is bfloat16":
            outputs.dtype = tf.bfloat16.as_datatype_enum
        return meta_graph

    return change


@pytest.mark.parametrize(
    "rule",
    [
        None,
        "Addons>Blur is custom",
        "EagerPyFunc runs Python",
        "must be compiled by XLA",
        "signatures must be encode, pixels, serving_default, but are pixels, serving_default",
        "axis 0 of embedding in the signature encode must be open",
        "embedding of the signature encode is bfloat16",
    ],
)
def test_the_audit_finds_a_graph_that_cannot_be_served(exported, rule):
    saved_model = saved_model_pb2.SavedModel.FromString(pathlib.Path(exported, "saved_model.pb").read_bytes())
    meta_graph = break_meta_graph(rule)(saved_model.meta_graphs[0])
    found = [*audit.broken_operations(meta_graph), *audit.broken_signatures(meta_graph, SIGNATURES)]
    assert [rule in text for text in found] == ([] if rule is None else [True])


@pytest.mark.parametrize(
    ("content", "is_found"),
    [
        (b"\x0aA/home/ann/x.py", True),  # The length of a field may be a letter.
        (b'"data": "/root/photos"', True),
        (b"/home/anna", True),  # It may be another's, but better safe.
        (b"encoder/root/conv2d", False),
        (b"rather /rooted/ than not", False),
        (b"\0" * 60 + b"/home/ann/x", True),
    ],
)
def test_the_audit_finds_paths(tmp_path, content, is_found, monkeypatch):
    monkeypatch.setattr(audit, "_CHUNK_BYTES", 64)
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "file").write_bytes(content)
    found = list(audit.paths_in_files(str(tmp_path), {"/home/ann", "/root"}))
    assert len(found) == is_found


def python_in_the_graph(images):
    return tf.ensure_shape(tf.numpy_function(lambda x: x.mean((1, 2)), [images], tf.float32), [None, 3])


@pytest.mark.parametrize(
    ("function", "details", "message"),
    [
        (python_in_the_graph, {}, "PyFunc runs Python"),
        (
            lambda images: tf.reduce_mean(images, [1, 2]),
            {"data": os.path.join(os.getcwd(), "photos")},
            "model_card.json contains the path",
        ),
    ],
)
def test_a_failing_audit_publishes_nothing(tmp_path, function, details, message):
    images = keras.Input([8, 8, 3])
    (tmp_path / "1").mkdir()
    with pytest.raises(ValueError, match=f"The audit failed, so nothing was published: .*{message}"):
        export_encoder(keras.Model(images, keras.layers.Lambda(function)(images)), tmp_path / "2", details=details)
    assert os.listdir(tmp_path) == ["1"]


def test_what_the_check_refuses_is_not_published(encoder, tmp_path):
    def refuse(directory):
        assert pathlib.Path(directory, WARMUP_FILE).is_file() and not pathlib.Path(directory).name.isdigit()
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        export_encoder(encoder, tmp_path / "1", check=refuse)
    assert os.listdir(tmp_path) == []


def make_version(folder, files=WHOLE, text=""):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_pruning_counts_and_deletes_whole_exports_alone(tmp_path):
    versions = [make_version(tmp_path / str(number)) for number in (2, 10, 9, 1)]
    foreign = [make_version(tmp_path / "77", ["saved_model.pb"]), make_version(tmp_path / "notes"), tmp_path / "88"]
    foreign[-1].mkdir()
    everything = {path.name for path in tmp_path.iterdir()}
    prune(tmp_path, 0, versions[1])
    assert {path.name for path in tmp_path.iterdir()} == everything
    prune(tmp_path, 2, versions[1])
    assert {path.name for path in tmp_path.iterdir()} == everything - {"1", "2"}
    prune(tmp_path, 1, versions[2])  # What was just published stays, even if it is no newer.
    assert {path.name for path in tmp_path.iterdir()} == everything - {"1", "2"}
    assert is_whole(versions[1]) and not any(map(is_whole, foreign))


_KILLED_AT_EVERY_MOMENT = """
import os, pathlib, signal, sys
from tf_simclr.export.directory import complete_or_absent, prune

def publish(folder):
    with complete_or_absent(str(folder / "2")) as place:
        for name in sys.argv[2:]:
            path = pathlib.Path(place, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("whole")
    prune(folder, 1, folder / "2")

def die_at(moment, folder):
    left = moment
    def watch(event, arguments):
        nonlocal left
        left -= event.startswith(("open", "os.", "shutil.")) and str(folder) in str(arguments)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)

publish(pathlib.Path(sys.argv[1], "0"))  # What is imported at the first call is imported before the processes part.
for moment in range(1, 100):
    folder = pathlib.Path(sys.argv[1], str(moment))
    child = os.fork()
    if child == 0:
        die_at(moment, folder)
        publish(folder)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(moment)
"""


@pytest.fixture
def fast_disk(tmp_path):
    """A folder in memory if there is one: flushing to a disk again and again takes minutes."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.path.isdir(memory) else tmp_path) as folder:
        yield pathlib.Path(folder)


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_whole_versions_alone(fast_disk):
    """Version 2 is published and version 1 removed, by processes that are killed at their n-th call for a file."""
    for moment in range(100):
        make_version(fast_disk / str(moment) / "1", text="whole")
    root = ROOT
    command = [sys.executable, "-c", _KILLED_AT_EVERY_MOMENT, str(fast_disk), *WHOLE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    num_moments = int(done.stdout)
    assert 15 < num_moments < 99
    for moment in range(1, num_moments + 1):
        folder = fast_disk / str(moment)
        versions = [path for path in folder.iterdir() if path.name.isdigit()]
        assert versions, f"killed at {moment}"
        for version in versions:
            assert [(version / name).read_text() for name in WHOLE] == ["whole"] * 3, f"killed at {moment}"
        with complete_or_absent(str(folder / "3")) as place:
            make_version(pathlib.Path(place))
        assert all(path.name.isdigit() for path in folder.iterdir())  # What was left is swept away.


@contextlib.contextmanager
def files_of_at_most(num_bytes):
    """Writing more to a file fails, as on a disk that is full."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_where_the_files_do_not_fit_there_is_an_error_and_nothing_else(encoder, tmp_path):
    (tmp_path / "1").mkdir()
    with pytest.raises(OSError, match=f"could not be written: .*Received: {tmp_path}/2"), files_of_at_most(10_000):
        export_encoder(encoder, tmp_path / "2")
    assert os.listdir(tmp_path) == ["1"]


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_version(encoder, tmp_path):
    """On a disk of 100 kB, if this test may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        make_version(disk / "1")
        with pytest.raises(OSError, match="could not be written|No space left"):
            export_encoder(encoder, disk / "2")
        assert os.listdir(disk) == ["1"] and is_whole(disk / "1")
    finally:
        subprocess.run(["umount", str(disk)], check=True)

"""The SavedModel of an encoder: what it answers, what it holds, and that it needs nothing of this package."""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from exports import IMAGE_SIZE, check_answer_to_files, embed, make_encoder, make_files, make_images, open_session
from replicas import mirrored
from tensorflow.core.protobuf import saved_model_pb2

from tf_simclr.export import export_encoder, fresh_process, verify
from tf_simclr.keras import keras
from tf_simclr.models.heads import ProjectionHead, linear_classifier
from tf_simclr.models.resnet import resnet
from tf_simclr.models.simclr import SimCLR


def test_signatures_answer_what_the_encoder_does(encoder, exported):
    signatures = tf.saved_model.load(exported).signatures
    images = make_images(3, 40, 60)
    served = signatures["pixels"](images=tf.constant(images))["embedding"]
    np.testing.assert_allclose(served, embed(encoder, images), rtol=1e-5, atol=1e-6)
    floats = tf.image.convert_image_dtype(make_images(2, 32, 32), tf.float32)
    served = signatures["encode"](images=floats)["embedding"]
    np.testing.assert_allclose(served, encoder(floats, training=False), rtol=1e-5, atol=1e-6)
    served = signatures["serving_default"](image_bytes=tf.constant(make_files()[0]))
    check_answer_to_files(encoder, served["embedding"].numpy(), served["valid"].numpy())


def test_pixels_are_scaled_or_refused_at_every_entrance(encoder, exported):
    """TensorFlow casts NumPy arrays to the type of a signature without a word."""
    loaded = tf.saved_model.load(exported)
    pixels = make_images(2, 32, 32)
    floats = (pixels / 255).astype(np.float32)
    expected = encoder(floats, training=False)
    for images in (pixels, tf.constant(pixels), floats, tf.constant(floats)):
        np.testing.assert_allclose(loaded(images)["final_avg_pool"], expected, rtol=1e-5, atol=1e-6)
    encode, message = loaded.signatures["encode"], r"floats in \[0, 1\], or pixels as uint8"
    np.testing.assert_allclose(encode(images=floats.astype(np.float64))["embedding"], expected, rtol=1e-5, atol=1e-6)
    rounded = np.where(floats == floats.max(), np.float32(1.0005), floats)  # The model takes it.
    np.testing.assert_allclose(
        encode(images=rounded)["embedding"], encoder(rounded, training=False), rtol=1e-5, atol=1e-6
    )
    one_nan = np.where(np.arange(floats.size).reshape(floats.shape) == 1000, np.float32("nan"), floats)
    for images in (pixels, pixels.astype(np.int64), pixels.tolist(), 2 * floats - 1, one_nan, floats + 0.01):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            encode(images=images)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        loaded(pixels.astype(np.float32))
    with open_session(exported) as ask, pytest.raises(tf.errors.InvalidArgumentError, match=message):
        ask("encode", images=pixels)


def test_signatures_run_in_a_session_as_tensorflow_serving_runs_them(encoder, exported):
    files, _ = make_files()
    with open_session(exported) as ask:
        answer = ask("serving_default", image_bytes=files)
        all_broken = ask("serving_default", image_bytes=[b"", b"broken"])
    check_answer_to_files(encoder, answer["embedding"], answer["valid"])
    assert not all_broken["valid"].any() and not all_broken["embedding"].any()


def reached(nodes, functions):
    """The nodes, and those of the functions that they call."""
    found, names = [], set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        found.append(node)
        for attribute in node.attr.values():
            name = attribute.func.name
            if name in functions and name not in names:
                names.add(name)
                waiting += functions[name].node_def
    return found


def test_export_holds_the_inference_of_the_encoder_and_nothing_else(exported):
    loaded = tf.saved_model.load(exported)
    expected = {
        "serving_default": ({"image_bytes": ([None], tf.string)}, {"embedding": [None, 5], "valid": [None]}),
        "pixels": ({"images": ([None, None, None, 3], tf.uint8)}, {"embedding": [None, 5]}),
        "encode": ({"images": ([None, 32, 32, 3], tf.float32)}, {"embedding": [None, 5]}),
    }
    assert set(loaded.signatures) == set(expected)
    for name, (inputs, outputs) in expected.items():
        function = loaded.signatures[name]
        received = function.structured_input_signature[1]
        assert {key: (spec.shape.as_list(), spec.dtype) for key, spec in received.items()} == inputs
        assert {key: spec.shape.as_list() for key, spec in function.structured_outputs.items()} == outputs

    saved_model = saved_model_pb2.SavedModel.FromString(pathlib.Path(exported, "saved_model.pb").read_bytes())
    objects = saved_model.meta_graphs[0].object_graph_def
    assert not any("keras" in node.user_object.identifier for node in objects.nodes)
    graph = saved_model.meta_graphs[0].graph_def
    functions = {function.signature.name: function for function in graph.library.function}
    served = reached(graph.node, functions)  # the signatures are the graph's own nodes; old code's call is not
    assert any(node.op.startswith("FusedBatchNorm") for node in served)
    assert not any(node.attr["is_training"].b for node in served if node.op.startswith("FusedBatchNorm"))


def test_verify_reports_what_cannot_be_loaded_and_takes_no_neighbour_for_a_library(encoder, tmp_path, monkeypatch):
    copy = shutil.copy(fresh_process.__file__, tmp_path)  # The fresh process runs by its path, beside our modules.
    (tmp_path / "numpy.py").write_text("raise SystemExit('not the library')")
    monkeypatch.setattr(fresh_process, "__file__", copy)
    with pytest.raises(RuntimeError, match="does not run in a fresh process(.|\n)*SavedModel file does not exist"):
        verify(tmp_path, encoder, make_images(1, 32, 32))


def test_the_fresh_process_refuses_to_run_where_the_package_can_be_imported(monkeypatch):
    monkeypatch.setattr(fresh_process.importlib, "import_module", lambda name: None)
    monkeypatch.setitem(sys.modules, "tf_simclr", sys.modules["tf_simclr"])
    with pytest.raises(SystemExit, match="tf_simclr can be imported, so the check would prove nothing"):
        fresh_process.hide_package()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "tf_simclr", sys.modules["tf_simclr"])
    fresh_process.hide_package()
    with pytest.raises(ModuleNotFoundError):
        import tf_simclr  # noqa: F401


@pytest.mark.slow
def test_half_precision_under_a_strategy_is_served_in_float32(tmp_path):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        with mirrored(2).scope():
            encoder = make_encoder(synchronized=True)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    directory = export_encoder(encoder, tmp_path / "1")
    images = make_images(2, 32, 32)
    served = tf.saved_model.load(directory).signatures["pixels"](images=tf.constant(images))["embedding"]
    assert served.dtype == tf.float32
    assert verify(directory, encoder, images) < 0.01


def test_a_simclr_model_names_its_encoder_and_its_size(encoder, tmp_path):
    model = keras.Sequential()
    model.encoder, model.image_size = encoder, IMAGE_SIZE
    directory = export_encoder(model, str(tmp_path / "encoder" / "7") + "/")
    assert os.path.basename(directory) == "7"
    assert "encode" in tf.saved_model.load(directory).signatures
    assert os.listdir(tmp_path / "encoder") == ["7"]


@pytest.fixture(scope="module")
def simclr_export(tmp_path_factory):
    """A model that was made on two replicas, and its export."""
    with mirrored(2).scope():
        model = SimCLR(
            resnet(10, 0.05, "cifar", image_size=IMAGE_SIZE, synchronized=True),
            ProjectionHead(2, 4, synchronized=True),
            image_size=IMAGE_SIZE,
            online_classifier=linear_classifier(3),
            classifier_layer=1,
        )
    return model, export_encoder(model, tmp_path_factory.mktemp("simclr") / "1")


def test_the_code_for_exports_of_the_reference_can_call_ours(simclr_export):
    model, directory = simclr_export
    images = tf.image.convert_image_dtype(make_images(4, 32, 32), tf.float32)
    outputs = tf.saved_model.load(directory)(images, trainable=False)
    expected = model.encoder.endpoints(images)
    hidden = model.projection_head.hidden_outputs(expected["final_avg_pool"], training=False)
    expected |= {"proj_head_input": hidden[0], "proj_head_output": hidden[2]}
    expected["logits_sup"] = model.online_classifier(hidden[1])
    assert set(outputs) == set(expected) and len(outputs) == 10
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


_FINETUNE = """
import sys
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
images = tf.random.stateless_uniform([8, 32, 32, 3], [1, 2])
before = model(images)["final_avg_pool"]
with tf.GradientTape() as tape:
    outputs = model(tf.cast(255 * images, tf.uint8), trainable=True)
    outputs = model(images, trainable=True)
    loss = tf.reduce_sum(outputs["proj_head_output"] ** 3) + tf.reduce_sum(outputs["logits_sup"] ** 2)
gradients = tape.gradient(loss, model.trainable_variables_list)
assert len(gradients) > 40 and not any(gradient is None for gradient in gradients)
assert tf.linalg.global_norm(gradients) > 0
assert tf.reduce_any(before != model(images)["final_avg_pool"])  # the moving averages have moved
"""


@pytest.mark.slow
def test_an_export_can_be_fine_tuned_where_it_is_loaded(simclr_export, tmp_path):
    command = [sys.executable, "-c", _FINETUNE, simclr_export[1]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_export_is_whole_or_not_there(encoder, tmp_path, monkeypatch):
    def fill_the_disk(module, directory, signatures):
        os.makedirs(directory)
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tf.saved_model, "save", fill_the_disk)
        with pytest.raises(OSError, match="No space"):
            export_encoder(encoder, tmp_path / "1")
    assert os.listdir(tmp_path) == []
    export_encoder(encoder, tmp_path / "1")
    with pytest.raises(FileExistsError, match="never replaces"):
        export_encoder(encoder, tmp_path / "1")


def test_refuses_an_encoder_that_it_cannot_serve(tmp_path):
    any_size = keras.Sequential([keras.Input([None, None, 3]), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match="Pass image_size"):
        export_encoder(any_size, tmp_path / "1")
    assert export_encoder(any_size, tmp_path / "1", image_size=8)
    feature_maps = keras.Sequential([keras.Input([8, 8, 3]), keras.layers.ReLU()])
    with pytest.raises(ValueError, match=r"\[B, F\]"):
        export_encoder(feature_maps, tmp_path / "2")

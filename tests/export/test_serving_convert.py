"""The encoder in other formats, each run in its own interpreter."""

import os

import numpy as np
import pytest
import tensorflow as tf
from exports import make_encoder, make_images

import run
from tf_simclr.export import convert, export_encoder
from tf_simclr.keras import keras
from tf_simclr.settings import RunConfig, override

FORMATS = [form for form in convert.FORMATS if not (form == "onnx" and tf.__version__.startswith("2.15"))]
TOLERANCE = {"float32": 1e-6, "float16": 2e-3, "int8": 5e-2, "onnx": 1e-6}  # of the largest feature


def test_what_a_format_needs_is_asked_for_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "_ONNX_PACKAGES", ("numpy", "no_such_package"))
    convert.check_formats(["tflite"])
    settings = override(RunConfig(), {"export.formats": "tflite,onnx", "model_dir": str(tmp_path / "run")})
    with pytest.raises(ValueError, match=r"pip install -r requirements-onnx.txt. Received: no no_such_package$"):
        run.run(settings)
    assert not os.listdir(tmp_path)
    with pytest.raises(ValueError, match="export.formats must be any of tflite, onnx, separated by commas"):
        override(RunConfig(), {"export.formats": "onnx;tflite"})


@pytest.mark.slow
def test_a_run_converts_what_it_exports(tmp_path):
    settings = {
        "mode": "train_then_eval", "model_dir": str(tmp_path), "data.dataset": "shapes", "data.image_size": 16,
        "model.resnet_depth": 10, "model.width_multiplier": 0.1, "model.stem": "strided", "optimizer.warmup_epochs": 0,
        "train.global_batch_size": 16, "train.steps": 2, "export.formats": "tflite",
    }  # fmt: skip
    report = run.run(override(RunConfig(), settings))
    assert sorted(os.listdir(tmp_path / "converted" / "2")) == [
        "encoder_float16.tflite",
        "encoder_float32.tflite",
        "encoder_int8.tflite",
    ]
    assert report.count("embeddings of 32 images differ by at most") == 3
    assert os.listdir(tmp_path / "saved_model") == ["2"]


def run_tflite(path, images):
    runner = tf.lite.Interpreter(str(path)).get_signature_runner("encode")
    return runner(images=images)["embedding"]


def run_onnx(path, images):
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(str(path)).run(None, {"images": images})[0]


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("policy", [pytest.param("float32", marks=pytest.mark.slow), "mixed_bfloat16"])
def test_the_interpreters_compute_what_the_encoder_does(policy, tmp_path):
    pytest.importorskip("tf2onnx") if "onnx" in FORMATS else None
    keras.mixed_precision.set_global_policy(policy)
    try:
        encoder = make_encoder()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    saved_model = export_encoder(encoder, tmp_path / "1")
    images = tf.image.convert_image_dtype(make_images(40, 32, 32), tf.float32).numpy()
    lines = convert.convert(saved_model, tmp_path / "converted", FORMATS, images)

    single = make_encoder()
    single.set_weights(encoder.get_weights())
    expected = single(images[:3], training=False).numpy()
    files = sorted(os.listdir(tmp_path / "converted"))
    assert files == sorted(line.split(",")[0] for line in lines)
    assert len(files) == 3 + ("onnx" in FORMATS)
    for file, line in zip(sorted(files), sorted(lines), strict=True):
        path = tmp_path / "converted" / file
        embedding = (run_onnx if file.endswith("onnx") else run_tflite)(path, images[:3])
        tolerance = next(value for part, value in TOLERANCE.items() if part in file)
        np.testing.assert_allclose(embedding, expected, rtol=0, atol=tolerance * np.max(expected), err_msg=file)
        assert embedding.dtype == np.float32
        assert "embeddings of 32 images" in line and "cosine at least 0.99" in line.replace("1.00", "0.99")

"""Exports load without the package, in other releases of TensorFlow and in all the ways that there are."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from exports import make_images
from paths import ROOT, SUPPORT

from tf_simclr.augment.center import preprocess_for_eval
from tf_simclr.export import export_encoder
from tf_simclr.keras import keras
from tf_simclr.models.resnet import resnet

SIZE = 40
OTHERS = [ROOT / name / "bin" / "python" for name in (".venv", ".venv-addons", ".venv-tf220")]
PYTHONS = list(dict.fromkeys([sys.executable, *(str(path) for path in OTHERS if path.exists())]))


def make_resnet(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        return resnet(10, 0.05, "imagenet", sk_ratio=0.0625, image_size=SIZE)
    finally:
        keras.mixed_precision.set_global_policy("float32")


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """(folder, largest relative difference) of an export in each precision, and the embeddings in float32."""
    folder = tmp_path_factory.mktemp("exports")
    images = make_images(3, 50, 70)
    inputs = {
        "files": np.array([tf.io.encode_png(image).numpy() for image in images] + [b"no image"], object),
        "pixels": images,
        "floats": preprocess_for_eval(images, SIZE).numpy(),
    }
    np.savez(folder / "inputs.npz", **inputs)
    single, half = make_resnet("float32"), make_resnet("mixed_bfloat16")
    single(inputs["floats"], training=True)
    half.set_weights(single.get_weights())
    for name, encoder in (("single", single), ("half", half)):
        export_encoder(encoder, folder / name / "1", image_size=SIZE)
    return folder, single(inputs["floats"], training=False).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: pathlib.Path(path).parent.parent.name)
def test_exports_load(exports, python):
    folder, expected = exports
    name = pathlib.Path(python).parent.parent.name
    outputs_file = folder / f"{name}.npz"
    places = [str(folder / name / "1") for name in ("single", "half")]
    command = [python, str(SUPPORT / "load_export.py"), str(folder / "inputs.npz"), str(outputs_file), *places]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(outputs_file) as outputs:
        found = dict(outputs)
    ways = {key.split("/")[1] for key in found if "/" in key}
    assert ways == {"load", "session"} | (set() if str(found["tensorflow"]).startswith("2.15") else {"TFSMLayer"})
    assert found["xla_runs"] != found["xla_is_off"]
    for number, tolerance in enumerate((1e-4, 3e-2)):
        for way in ways:
            prefix = f"{number}/{way}"
            assert found[f"{prefix}/serving_default/valid"].tolist() == [True] * 3 + [False]
            assert not found[f"{prefix}/serving_default/embedding"][3].any()
            for signature in ("serving_default", "pixels", "encode"):
                embedding = found[f"{prefix}/{signature}/embedding"]
                assert embedding.dtype == np.float32
                limit = tolerance * np.max(np.abs(expected))
                np.testing.assert_allclose(embedding[:3], expected, rtol=0, atol=limit, err_msg=f"{prefix}/{signature}")

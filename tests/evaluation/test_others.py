"""Encoders from elsewhere beside the run's own: which are found, what they are fed, and what is said about others."""

import functools
import shutil

import numpy as np
import pytest
import tensorflow as tf
from test_evaluate import TINY, make_source
from tiny import tiny_encoder

from tf_simclr.data import sources
from tf_simclr.evaluation import evaluate, others, table
from tf_simclr.evaluation.cache import CachedFeatures, Images
from tf_simclr.export import export_encoder
from tf_simclr.models.simclr import SimCLR
from tf_simclr.runs import checkpoints, folder, models, saved_models
from tf_simclr.runs.saved_models import CALL
from tf_simclr.runs.saved_outputs import Place
from tf_simclr.settings import RunConfig, override, to_dict

CONFIG = override(RunConfig(), TINY | {"eval.baselines": False, "eval.protocols": ("knn",), "eval.knn_k": 5})
PIXELS = tf.TensorSpec([None, 16, 16, 3], tf.float32, name="pixels")


@pytest.fixture(scope="module")
def model() -> SimCLR:
    """A model whose batch norm has seen images."""
    made = models.initial_model(CONFIG, 90, 6)
    made.encoder(make_source(40, seed=3).images / np.float32(255), training=True)
    return made


@pytest.fixture(scope="module")
def run_folder(model, tmp_path_factory):
    """A run whose newest checkpoint is the model."""
    place = tmp_path_factory.mktemp("run")
    folder.files.write_json(place / folder.FILE, to_dict(CONFIG))
    checkpoint = checkpoints.make_checkpoint(model)
    checkpoint.write(str(place / "checkpoints" / "ckpt-7"))
    (place / "checkpoints" / "checkpoint").write_text('model_checkpoint_path: "ckpt-7"\n')
    return place


def features(encoder, source, place) -> np.ndarray:
    return CachedFeatures(place, encoder, Images("test", source, 6), 32).features.representations


def found_by(text, config=CONFIG):
    """The one encoder that a text stands for."""
    config = override(config, {"eval.compare_encoders": (str(text),)})
    (found,) = others.open_others(config, tf.distribute.get_strategy())
    return found


def own(encoder, image_size=16):
    return evaluate.FrozenEncoder("eval", "this encoder", image_size, {}, lambda: encoder)


def cosines(left, right):
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.sum(left * right, axis=1) / norms


def test_a_run_and_its_checkpoint_give_the_runs_own_representations(model, run_folder, tmp_path):
    source = make_source(40, seed=2)
    expected = features(own(model.encoder), source, tmp_path / "own")
    for name, way in {"run": run_folder, "checkpoint": run_folder / "checkpoints" / "ckpt-7"}.items():
        encoder = found_by(way, override(CONFIG, {"data.image_size": 24}))
        assert (encoder.image_size, encoder.origin) == (16, {"path": str(way)})
        np.testing.assert_array_equal(features(encoder, source, tmp_path / name), expected)


def test_every_way_into_an_export_gives_the_encoders_own_representations_of_photographs_of_any_size(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(saved_models, "_load", functools.cache(saved_models._load))  # Loading takes most of the time.
    encoder = tiny_encoder("float32")
    encoder(np.random.default_rng(0).uniform(size=[8, 48, 48, 3]), training=True)
    export = export_encoder(encoder, tmp_path / "export", image_size=48)
    for index, shape in enumerate([(50, 70), (64, 40), (48, 48)]):
        image = np.random.default_rng(index).integers(0, 256, [*shape, 3], np.uint8)
        tf.io.write_file(str(tmp_path / "photos" / f"{index}.png"), tf.io.encode_png(image))
    source = sources.FileSource(str(tmp_path / "photos"), tuple(f"{i}.png" for i in range(3)), np.array([0, 1, 2]))
    expected = features(own(encoder, 48), source, tmp_path / "own")
    config = override(CONFIG, {"data.image_size": 48})
    ways = {
        "serving_default": (None, "image files, given the pixels as PNG"),
        "pixels": (None, "uint8 images of any size"),
        "encode": (48, "float32 images in [0, 1]"),
        CALL: (48, "float32 images in [0, 1]"),
    }
    for name, (image_size, takes) in ways.items():
        found = found_by(export if name == "serving_default" else f"{export}#{name}", config)
        assert (found.image_size, found.origin["takes"], found.origin["function"]) == (image_size, takes, name)
        assert cosines(features(found, source, tmp_path / name), expected).min() > 0.9999, name


def test_the_references_saved_model_gives_the_representations_that_the_reference_has_computed(
    shared_dir, golden_dir, tmp_path
):
    golden = np.load(golden_dir / "reference_export_outputs.npz")
    source = sources.ArraySource(golden["images_uint8"], np.arange(16) % 6)
    encoder = found_by(shared_dir / "reference_export" / "r18_cifar", override(CONFIG, {"data.image_size": 32}))
    assert encoder.origin["function"] == CALL and encoder.origin["output"] == "final_avg_pool"
    np.testing.assert_allclose(features(encoder, source, tmp_path), golden["out/final_avg_pool"], rtol=1e-3, atol=1e-5)


def save(place, signatures=None, **specs_of_call):
    """A SavedModel of functions; returns its path."""
    module = tf.Module()
    for spec in specs_of_call.values():
        module.__call__ = tf.function(lambda images: tf.reduce_mean(images, [1, 2]), input_signature=[spec])
    made = {name: tf.function(function, [spec]) for name, (function, spec) in (signatures or {}).items()}
    tf.saved_model.save(module, str(place), made or None)
    return str(place)


def mean(images):
    return {"vector": tf.reduce_mean(tf.cast(images, tf.float32), [1, 2]), "count": tf.shape(images)[0]}


def test_a_function_gets_what_its_signature_takes_and_its_representations_are_found(tmp_path):
    source = make_source(5, seed=4)
    levels = source.images.mean(axis=(1, 2))
    halves = tf.TensorSpec([None, 8, 8, 3], tf.float16)
    cases = {
        # One image at a time, of levels, of a size left open.
        "one": ((mean, tf.TensorSpec([1, None, None, 3], tf.uint8)), levels, 1e-6),
        "half": ((mean, halves), levels / 255, 1e-2),
        "file": ((lambda file: mean(tf.io.decode_png(file, 3)[None]), tf.TensorSpec([], tf.string)), levels, 1e-6),
        # The name decides before the shape; the map is averaged.
        "map": ((lambda images: {"features": images, "logits": images[:, 0, 0]}, PIXELS), levels / 255, 1e-5),
    }
    for name, (signature, expected, tolerance) in cases.items():
        encoder = found_by(save(tmp_path / name, {"only": signature}))
        np.testing.assert_allclose(features(encoder, source, tmp_path), expected, rtol=tolerance, err_msg=name)
    assert found_by(tmp_path / "half").image_size == 8


def save_several(place):
    two = {"a": (lambda images: {"x": mean(images)["vector"], "y": images[:, 0, 0]}, PIXELS), "b": (mean, PIXELS)}
    return save(place, two)


def test_several_functions_or_outputs_are_listed_and_one_can_be_named(tmp_path):
    path = save_several(tmp_path / "model")
    with pytest.raises(ValueError, match=rf"several signatures .* as {path}#NAME, of a, b. Received: {path}$"):
        found_by(path)
    with pytest.raises(ValueError, match=rf"no signature c: .* of a, b. Received: {path}$"):
        found_by(f"{path}#c")
    with pytest.raises(ValueError, match=rf"several outputs .* as {path}#a:OUTPUT, of x \[B, 3\], y \[B, 3\]. Rec"):
        found_by(f"{path}#a")
    assert found_by(f"{path}#a:y").origin["output"] == "y"
    assert found_by(f"{path}#b").origin == {
        "path": f"{path}#b", "takes": "float32 images in [0, 1]", "function": "b", "output": "vector"
    }  # fmt: skip
    shutil.copytree(path, tmp_path / "model#a")
    assert Place.parse(str(tmp_path / "model#a")).function is None


def no_image(spec):
    return lambda place: save(place, {"only": (lambda values: tf.zeros([2, 3]), spec)})


def write(content):
    def make(place):
        place.mkdir()
        (place / "saved_model.pb").write_bytes(content)

    return make


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda place: None, "--compare_encoder: eval.compare_encoders: Found no weights"),
        (lambda place: place.write_bytes(b"\xff\xd8\xff"), "--compare_encoder: .* Found no weights"),
        (write(b"no protocol buffer"), "TensorFlow cannot load a SavedModel"),
        (write(b""), "TensorFlow cannot load a SavedModel"),
        (lambda place: save(place), "must have a signature, or be callable"),
        (no_image(tf.TensorSpec([None, 3, 16, 16], tf.float32)), r"must take image files.*float32 \[None, 3, 16, 16\]"),
        (no_image(tf.TensorSpec([8, 16, 16, 3], tf.float32)), r"one at a time. .*float32 \[8, 16, 16, 3\]"),
        (no_image(tf.TensorSpec([None, 16, 8, 3], tf.float32)), r"square images.*float32 \[None, 16, 8, 3\]"),
        (no_image(tf.TensorSpec([None], tf.int64)), r"must take image files.*int64 \[None\]"),
        (
            lambda place: save(place, {"only": (lambda files: tf.io.parse_tensor(files[0], tf.float32), FILES)}),
            "The function only of a SavedModel fails on images",
        ),
        (
            lambda place: save(place, {"only": (lambda images: tf.shape(images), PIXELS)}),
            r"must return floats \[B, F\] .*which returns output_0",
        ),
    ],
)
def test_what_is_no_encoder_ends_in_one_sentence(make, expected, tmp_path):
    make(tmp_path / "it")
    with pytest.raises((ValueError, FileNotFoundError), match=expected) as error:
        found_by(tmp_path / "it")
    assert "\n" not in str(error.value) and str(tmp_path / "it") in str(error.value)


FILES = tf.TensorSpec([None], tf.string)


def test_others_stand_in_the_result_with_their_difference_and_are_not_encoded_again(model, run_folder, tmp_path):
    path = str(tmp_path / ("a\n" + "b" * 40))
    shutil.copytree(run_folder, path)
    config = override(CONFIG, {"eval.compare_encoders": (path, save(tmp_path / "mean", {"only": (mean, PIXELS)}))})
    (tmp_path / "judged").mkdir()
    train, test = make_source(90, seed=1), make_source(40, seed=2)
    result = evaluate.evaluate(config, model, train, test, tmp_path / "judged")
    assert list(result["encoders"]) == ["eval", "eval_other_1", "eval_other_2"]
    assert result["encoders"]["eval_other_1"] == {"title": path, "image_size": 16, "path": path}
    assert result["encoders"]["eval_other_2"]["takes"] == "float32 images in [0, 1]"
    assert result["eval_other_1/knn_top_1_accuracy"] == result["eval/knn_top_1_accuracy"]
    assert result["eval_other_1/knn_top_1_difference"] == result["eval_other_1/knn_top_1_difference_low"] == 0
    assert {f"eval_other_2/knn_top_1_difference{end}" for end in ("", "_low", "_high")} < result.keys()
    text = table.describe(result)
    row = next(line for line in text.splitlines() if line.startswith("  ...b"))
    assert row.startswith(f"  ...{'b' * 30} ") and f"not told apart from ...{'b' * 30}: +0.0" in text

    found = (tmp_path / "judged" / "features").rglob("*.npz")
    kept = {path: path.stat().st_mtime_ns for path in found if path.name != "confusion.npz"}
    assert evaluate.evaluate(config, model, train, test, tmp_path / "judged") == result
    assert kept == {path: path.stat().st_mtime_ns for path in kept}

"""The map of a run: which images are on it, what it says of them, and when it is made again."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_evaluate import TINY, make_source

from tf_simclr import builders
from tf_simclr.data import sources
from tf_simclr.evaluation import atlas, cache, evaluate, layout, tensorboard, thumbnails
from tf_simclr.runs import models
from tf_simclr.runs.predictions import predictions_path, read
from tf_simclr.settings import RunConfig, override

CONFIG = override(RunConfig(), TINY | {"eval.baselines": False, "eval.map_images": 24})
NAMES = ("<script>", "a\udcff", "tab\there", "new\nline", "\u202ertl", "plain")


@pytest.fixture(scope="module")
def model():
    return models.initial_model(CONFIG, 90, 6)


@pytest.fixture(scope="module")
def labelled():
    train, test = (
        sources.ArraySource(one.images, one.labels, NAMES) for one in (make_source(90, 1), make_source(40, 2))
    )
    return builders.Sources(train, train, test)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model, labelled):
    """A run with an evaluation and its map."""
    folder = tmp_path_factory.mktemp("run")
    evaluate.evaluate(CONFIG, model, labelled.probe, labelled.test, folder)
    atlas.write(CONFIG, model, labelled, folder)
    return folder


def test_the_map_shows_test_images_of_every_class_with_what_was_predicted(folder, model, labelled):
    table = pq.read_table(atlas.map_path(folder))
    assert table.column_names == [
        "path", "label", "predicted", "x", "y", "pca_x", "pca_y", "cluster", "neighbors", "part"
    ]  # fmt: skip
    rows = table.to_pylist()
    positions = np.array([int(row["path"]) for row in rows])
    assert len(rows) == 24 and (np.diff(positions) > 0).all()
    labels = labelled.test.labels
    of_classes, there_are = (np.bincount(one, minlength=6) for one in (labels[positions], labels))
    assert (of_classes >= np.minimum(there_are, 4)).all()
    printed = ("<script>", "a\\udcff", "tab\there", "new\nline", "\u202ertl", "plain")
    assert [row["label"] for row in rows] == [printed[label] for label in labels[positions]]
    found = read(predictions_path(folder))["eval/linear"].predicted
    assert [row["predicted"] for row in rows] == [printed[one] for one in found[positions]]
    assert {row["part"] for row in rows} == {"test"}
    about = json.loads(table.schema.metadata[b"map"])
    assert (about["step"], about["images"], about["predicted_by"]) == (0, 40, "linear")
    assert about["sprite"] == {"file": "thumbnails.jpg", "size_px": 48, "columns": 5}


def test_rows_vectors_and_neighbours_belong_together(folder, model, labelled):
    table = pq.read_table(atlas.map_path(folder))
    positions = np.array(table["path"].to_pylist(), int)
    vectors = np.fromfile(folder / "features" / atlas.VECTORS, "<f4").reshape(24, -1)
    expected = model.encoder(labelled.test.images[positions] / np.float32(255), training=False)
    np.testing.assert_allclose(vectors, expected, rtol=1e-3, atol=1e-5)
    arranged = layout.lay_out(vectors, 6)
    np.testing.assert_array_equal(np.array([table["x"], table["y"]]).T, arranged.tsne)
    neighbors = table["neighbors"].to_pylist()
    np.testing.assert_array_equal([one["ids"] for one in neighbors], arranged.neighbors)
    np.testing.assert_array_equal(np.float32([one["distances"] for one in neighbors]), arranged.distances)


def test_nothing_is_made_again_unless_something_has_changed(folder, model, labelled, monkeypatch):
    files = [folder / "features" / name for name in ("map.parquet", atlas.SPRITE, atlas.VECTORS)]
    before = [path.stat().st_mtime_ns for path in files]
    made = []
    arrange = layout.lay_out
    monkeypatch.setattr(layout, "lay_out", lambda *args: made.append(args) or arrange(*args))
    monkeypatch.setattr(cache, "extract", lambda *args: pytest.fail("representations are made again"))
    atlas.write(CONFIG, model, labelled, folder)
    assert [path.stat().st_mtime_ns for path in files] == before and not made

    by_knn = override(CONFIG, {"eval.protocols": ("knn",)})
    evaluate.evaluate(by_knn, model, labelled.probe, labelled.test, folder)
    atlas.write(by_knn, model, labelled, folder)
    assert not made and atlas.read_metadata(pq.read_table(files[0]))["predicted_by"] == "knn"
    evaluate.evaluate(CONFIG, model, labelled.probe, labelled.test, folder)
    atlas.write(override(CONFIG, {"eval.map_images": 12}), model, labelled, folder)
    assert len(made) == 1 and pq.read_table(files[0]).num_rows == 12
    files[1].unlink()
    atlas.write(CONFIG, model, labelled, folder)
    assert len(made) == 2 and files[1].is_file() and pq.read_table(files[0]).num_rows == 24


def test_without_labels_training_images_are_on_the_map_and_no_others_are_read(tmp_path, model):
    source = sources.ArraySource(make_source(90, seed=1).images)
    atlas.write(CONFIG, model, builders.Sources(source, source, source), tmp_path)
    table = pq.read_table(atlas.map_path(tmp_path))
    assert table.num_rows == 24 and set(table["part"].to_pylist()) == {"train"}
    assert table["label"].null_count == table["predicted"].null_count == 24
    assert atlas.read_metadata(table)["images"] == 90
    (place,) = (tmp_path / "features").glob("eval_map_*")
    with np.load(place / "part_00000.npz") as arrays:
        assert len(arrays["positions"]) == 24
    tensorboard.write_projector(tmp_path)
    assert (tmp_path / "features" / tensorboard.METADATA).read_text().startswith("path\tcluster\n")


def test_a_map_can_be_left_out(tmp_path, model, labelled):
    atlas.map_path(tmp_path).parent.mkdir()
    atlas.map_path(tmp_path).write_bytes(b"an older one")
    assert atlas.write(override(CONFIG, {"eval.map_images": None}), model, labelled, tmp_path) is None
    assert not list(tmp_path.rglob("*.*"))


def test_the_projector_gets_the_vectors_in_their_order_and_names_of_any_kind_on_one_line_each(folder, labelled):
    tensorboard.write_projector(folder)
    table = pq.read_table(atlas.map_path(folder))
    lines = (folder / "features" / tensorboard.METADATA).read_text(encoding="utf-8").splitlines()
    shown = ("<script>", "a\\udcff", "tab\\there", "new\\nline", "\\u202ertl", "plain")
    assert lines[0] == "label\tpredicted\tpath\tcluster" and len(lines) == 1 + table.num_rows
    for line, path in zip(lines[1:], table["path"].to_pylist(), strict=True):
        label, _, name, _ = line.split("\t")
        assert (label, name) == (shown[labelled.test.labels[int(path)]], path)
    from google.protobuf import text_format
    from tensorboard.plugins.projector import ProjectorConfig

    config = text_format.Parse((folder / tensorboard.PROJECTOR_CONFIG).read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    size = (folder / embedding.tensor_path).stat().st_size
    assert np.prod(embedding.tensor_shape) * 4 == size and embedding.tensor_shape[0] == table.num_rows
    assert (folder / embedding.metadata_path).is_file() and (folder / embedding.sprite.image_path).is_file()
    assert list(embedding.sprite.single_image_dim) == [thumbnails.SIZE_PX] * 2

    vectors = np.fromfile(folder / embedding.tensor_path, "<f4")
    (vectors * 0).tofile(folder / embedding.tensor_path)  # A collapsed encoder: the plugin would take this for text.
    tensorboard.write_projector(folder)
    assert not (folder / tensorboard.PROJECTOR_CONFIG).exists()
    vectors.tofile(folder / embedding.tensor_path)


def test_hparams_has_the_main_settings_and_those_that_differ(tmp_path):
    import tensorflow as tf
    from tensorboard.plugins.hparams import plugin_data_pb2

    changes = {"model.num_proj_layers": 2, "model.se_ratio": 0.5, "eval.knn_k": 7, "checkpoint": "a\tb"}
    config = override(RunConfig(), changes)
    for _ in range(2):
        tensorboard.write_hparams(config, tmp_path)
    (path,) = tmp_path.glob("events.*")
    contents = [
        plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]
    found = next(one.session_start_info.hparams for one in contents if one.HasField("session_start_info"))
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}
    assert values["model.num_proj_layers"] == 2 and values["model.se_ratio"] == 0.5 and values["checkpoint"] == "a\\tb"
    assert values["model.temperature"] == config.model.temperature and values["train.global_batch_size"] == "none"
    assert "eval.knn_k" not in values and "model.sk_ratio" not in values

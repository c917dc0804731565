"""The layers of the projection head, judged as encoders are: by the same protocols, from the kept representations."""

import numpy as np
import pytest
from head_oracle import draw_weights, transcribed
from test_evaluate import TINY, Reads, make_source

from tf_simclr.evaluation import evaluate, table
from tf_simclr.evaluation.cache import CachedFeatures, Images
from tf_simclr.evaluation.encoders import head_layers, this_encoder
from tf_simclr.evaluation.protocols import PROTOCOLS
from tf_simclr.report import verdict
from tf_simclr.runs import models, predictions
from tf_simclr.settings import RunConfig, override

CONFIG = override(
    RunConfig(),
    TINY
    | {
        "model.num_proj_layers": 3, "model.proj_hidden_dim": 7, "model.proj_out_dim": 4, "eval.baselines": False,
        "eval.head_layers": True, "eval.protocols": ("knn", "linear"), "eval.knn_k": 1,
    },
)  # fmt: skip


@pytest.fixture
def model():
    return models.initial_model(CONFIG, 90, 6)


@pytest.fixture
def watched(monkeypatch):
    """Training and test images of which the number that is read is counted."""
    monkeypatch.setattr(Reads, "read", 0)
    made = (make_source(90, seed=1), make_source(40, seed=2))
    return [Reads(one.images, one.labels, one.class_names) for one in made]


def test_the_layers_are_those_of_the_equations_and_the_encoder_runs_once(model, watched, tmp_path):
    drawn = draw_weights(model.projection_head, np.random.default_rng(0))
    this, images = this_encoder(CONFIG, model), Images("test", watched[1], 6)
    h = CachedFeatures(tmp_path, this, images, 32).features
    expected = transcribed(drawn, h.representations, is_training=False)
    found = list(head_layers(model, this))
    assert [(one.name, one.title) for one in found] == [
        ("eval_head_1", "layer 1 of the head"), ("eval_head_2", "layer 2 of the head"),
        ("eval_head_3", "the projections"),
    ]  # fmt: skip
    for encoder, outputs in zip(found, expected[1:], strict=True):
        layer = CachedFeatures(tmp_path, encoder, images, 32).features
        np.testing.assert_allclose(layer.representations, outputs, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(layer.labels, h.labels)
        np.testing.assert_array_equal(layer.digests, h.digests)
    assert Reads.read == 40


def test_every_protocol_judges_every_layer_and_what_is_known_stays_until_the_head_changes(model, watched, tmp_path):
    result = evaluate.evaluate(CONFIG, model, *watched, tmp_path)
    names = ["eval", "eval_head_1", "eval_head_2", "eval_head_3"]
    assert list(result["encoders"]) == names and Reads.read == 130
    labels = watched[1].labels
    predicted = predictions.read(predictions.predictions_path(tmp_path))
    hits = {place: found.predicted == labels for place, found in predicted.items()}
    for name in names[1:]:
        for protocol in ("knn", "linear"):
            place = f"{name}/{protocol}"
            assert result[f"{place}_top_1_accuracy"] == pytest.approx(hits[place].mean())
            difference = hits[f"eval/{protocol}"].mean() - hits[place].mean()
            assert result[f"{place}_top_1_difference"] == pytest.approx(difference)
    layer = list(head_layers(model, this_encoder(CONFIG, model)))[1]
    train, test = (
        CachedFeatures(tmp_path / "features", layer, Images(part, source, 6), 32).features
        for part, source in zip(("train", "test"), watched, strict=True)
    )
    expected = PROTOCOLS["knn"](CONFIG)(train, test.representations).probabilities
    np.testing.assert_array_equal(predicted["eval_head_2/knn"].predicted, np.argmax(expected, axis=1))

    lines = table.describe(result).splitlines()
    assert [line[2:30].strip() for line in lines if line.startswith("  ")] == [
        "the projections", "layer 2 of the head", "layer 1 of the head", "this encoder", "the online classifier"
    ]  # fmt: skip
    assert sum(line.startswith("This encoder is") for line in lines) == 3
    rows = [title for title, _ in verdict.judge(result).rows]
    assert rows == ["this encoder", "layer 1 of the head", "layer 2 of the head", "the projections"]

    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").rglob("*.npz")}
    assert evaluate.evaluate(CONFIG, model, *watched, tmp_path) == result
    kernel = model.projection_head.kernels[0]
    kernel.assign(-kernel)
    evaluate.evaluate(CONFIG, model, *watched, tmp_path)
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").rglob("*.npz")}
    same = {path.relative_to(tmp_path / "features").parts[0] for path, time in again.items() if kept.get(path) == time}
    changed = {path.relative_to(tmp_path / "features").parts[0] for path in again.keys() - kept.keys()}
    assert Reads.read == 130 and all("head" in name for name in changed) and len(changed) == 3 * (2 + 2)
    assert not any("head" in name for name in same)


@pytest.mark.parametrize("changes", [{"model.num_proj_layers": 0}, {"train_mode": "supervised"}])
def test_without_a_head_that_was_trained_there_are_no_rows(changes, tmp_path):
    config = override(CONFIG, changes | {"eval.protocols": ("knn",)})
    found = evaluate.evaluate(
        config, models.initial_model(config, 90, 6), make_source(90, seed=1), make_source(40, seed=2), tmp_path
    )
    assert not any("head" in name for name in found["encoders"])

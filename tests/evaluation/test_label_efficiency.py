"""Label efficiency: the rows against direct calls of the protocols, what a label is worth, and the picture."""

import shutil

import numpy as np
import pytest
from test_evaluate import TINY, make_source

from tf_simclr.data import batches
from tf_simclr.data.sources.subsets import class_balanced
from tf_simclr.evaluation import KNN, Features, Linear, evaluate, label_efficiency, table
from tf_simclr.evaluation.features import extract
from tf_simclr.evaluation.tuned import finetune
from tf_simclr.runs import models, results
from tf_simclr.settings import RunConfig, override

CONFIG = override(
    RunConfig(),
    TINY | {"eval.baselines": False, "eval.protocols": "knn", "eval.label_efficiency": "frozen", "eval.knn_k": 7},
)
TRAIN, TEST = make_source(300, seed=1), make_source(40, seed=2)


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    """Fewer points, each of which is a classifier to fit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_efficiency, "PERCENTS", (1, 5, 100))
        patch.setattr(label_efficiency, "DRAWS", 2)
        yield


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model = models.initial_model(CONFIG, 300, 6)
    # Another encoder than the untrained one.
    for weight in model.encoder.trainable_weights:
        weight.assign_add(0.1 * np.random.default_rng(1).normal(size=weight.shape))
    return folder, model, evaluate.evaluate(CONFIG, model, TRAIN, TEST, folder)


def encode(encoder, source):
    dataset = batches.eval_dataset(source, image_size=16, batch_size=100)
    found = np.concatenate([batch.representations for batch in extract(encoder, dataset)])
    return Features(found, source.labels, 6, np.array(source.keys, object))


def test_the_rows_are_those_of_the_protocols_on_draws_of_the_labels(evaluated):
    _, model, result = evaluated
    rows = {(row["series"], row["fraction"]): row for row in result["label_efficiency"]}
    untrained = models.initial_model(CONFIG, 300, 6).encoder
    series = {"eval/knn": (model.encoder, KNN(k=7)), "eval/linear": (model.encoder, Linear()),
              "eval_untrained/linear": (untrained, Linear())}  # fmt: skip
    # With 1 % of about 50 images, every class has one label, from which no classifier can choose its penalty.
    assert [key for key in rows if key[0] == "eval/knn"] == [("eval/knn", 0.05), ("eval/knn", 1.0)]
    assert {key for key, _ in rows} == set(series)
    for key, (encoder, protocol) in series.items():
        train, test = encode(encoder, TRAIN), encode(encoder, TEST)
        for fraction, draws in ((0.05, 2), (1.0, 1)):
            accuracies = []
            for draw in range(draws):
                few = train.take(class_balanced(TRAIN.keys, TRAIN.labels, fraction, draw))
                accuracies.append(
                    np.mean(np.argmax(protocol(few, test.representations).probabilities, 1) == test.labels)
                )
            row = rows[key, fraction]
            assert (row["draws"], row["labels"]) == (draws, len(few))
            assert [row["mean"], row["low"], row["high"]] == pytest.approx(
                [np.mean(accuracies), min(accuracies), max(accuracies)]
            )


def test_the_numbers_are_kept_drawn_and_told(evaluated, monkeypatch):
    folder, model, result = evaluated
    picture = folder / "label_efficiency.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
    monkeypatch.setattr(label_efficiency, "rows", lambda *arguments: pytest.fail("computed again"))
    assert evaluate.evaluate(CONFIG, model, TRAIN, TEST, folder) == result
    lines = table.describe(result).splitlines()
    (header,) = [number for number, line in enumerate(lines) if line.startswith("mean accuracy")]
    assert lines[header].split()[-4:] == ["kNN", "linear", "untrained,", "linear"]
    row = result["label_efficiency"][-1]
    assert lines[header + 2].startswith("  100%, 300 labels") and f"{100 * row['mean']:.1f}%" in lines[header + 2]


def make_rows(series, means, labels=(100, 200, 500, 1000, 2500, 10_000)):
    fractions = (0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
    return [
        {"series": series, "fraction": fraction, "labels": count, "mean": mean}
        for fraction, count, mean in zip(fractions, labels, means, strict=True)
    ]


def test_what_labels_are_worth_by_hand():
    linear = make_rows("eval/linear", [0.5, 0.6, 0.7, 0.8, 0.85, 0.9])
    scratch = make_rows("eval/supervised", [0.1, 0.2, 0.3, 0.4, 0.6, 0.95])
    untrained = make_rows("eval_untrained/linear", [0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    # 0.5 lies halfway between 1,000 and 2,500: sqrt(2.5e6) = 1581. 0.8 is 4/7 of the way from 2,500: 2500 * 4 ** (4/7).
    assert results.worth_of_labels(linear + untrained + scratch) == (
        "100 labels with this encoder (linear) are worth about 1,600 from scratch; "
        "1,000 labels with this encoder (linear) are worth about 5,500 from scratch."
    )
    assert results.worth_of_labels(linear + untrained) == (
        "100 labels with this encoder (linear) are worth more than all 10,000 with the untrained encoder (linear); "
        "1,000 labels with this encoder (linear) are worth more than all 10,000 with the untrained encoder (linear)."
    )
    better = make_rows("eval/supervised", [0.55, 0.8, 0.7, 0.8, 0.9, 1.0])
    assert results.worth_of_labels(linear + better) == (
        "100 labels with this encoder (linear) are worth fewer than 100 from scratch; "
        "1,000 labels with this encoder (linear) are worth about 200 from scratch."
    )
    assert results.worth_of_labels(untrained) == ""


def test_with_training_the_same_draws_are_fine_tuned_and_trained_from_scratch(evaluated, tmp_path, monkeypatch):
    folder, model, _ = evaluated
    folder = shutil.copytree(folder, tmp_path / "run")
    trained = []

    def call(self, material):
        source = self.labelled(material.train.source)
        trained.append((self.name, source.images.tobytes()))
        probabilities = np.full([40, 6], 0.1) + 0.4 * (np.arange(6) == self.draw)
        return finetune.Scores(probabilities.__getitem__, probabilities.shape, {"labels": source.num_examples})

    monkeypatch.setattr(finetune.Finetune, "__call__", call)
    config = override(CONFIG, {"eval.label_efficiency": "trained"})
    rows = evaluate.evaluate(config, model, TRAIN, TEST, folder)["label_efficiency"]
    names = ["_5", "_5_draw_1", "_100"]
    assert [one[0] for one in trained] == [
        f"{kind}{name}" for kind in ("semi_supervised", "supervised") for name in names
    ]
    images = [one[-1] for one in trained]
    assert images[:3] == images[3:] and len(set(images)) == 3 and images[2] == TRAIN.images.tobytes()
    chances = [np.mean(TEST.labels == label) for label in (0, 1)]
    found = {(row["series"], row["fraction"]): row for row in rows}
    row = found["eval/supervised", 0.05]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((np.mean(chances), min(chances), max(chances)))
    assert evaluate.evaluate(config, model, TRAIN, TEST, folder)["label_efficiency"] == rows and len(trained) == 6

"""The evaluation program: what it writes about whom."""

import json

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import confusion_matrix

from tf_simclr import builders
from tf_simclr.data import sources
from tf_simclr.evaluation import cache, confusions, evaluate, table
from tf_simclr.evaluation.probe import LinearProbe
from tf_simclr.export import classifier
from tf_simclr.export.served import to_served
from tf_simclr.runs import lock, models, predictions
from tf_simclr.settings import RunConfig, override

TINY = {
    "data.image_size": 16,
    "model.resnet_depth": 10,
    "model.width_multiplier": 0.1,
    "model.num_groups": 1,
    "train.global_batch_size": 8,
    "train.steps": 1,
    "optimizer.warmup_epochs": 0,
    "train.precision": "float32",
    "eval.baselines": True,
}
MEASURED = {
    f"{name}{end}"
    for name in ("top_1_accuracy", "top_5_accuracy", "mean_per_class_accuracy", "expected_calibration_error")
    for end in ("", "_low", "_high")
} | {"mean_confidence"}
SETTINGS = {
    "knn": {"k", "temperature"},
    "linear": {
        "regularization_c", "regularization_candidates", "regularization_least_c", "regularization_most_c",
        "regularization_at_end", "converged", "held_out_fraction", "held_out_parts", "max_iterations", "seed",
        "temperature",
    },
}  # fmt: skip
METRICS = {f"{protocol}_{name}" for protocol, settings in SETTINGS.items() for name in MEASURED | settings}
DIFFERENCES = {f"{name}_top_1_difference{end}" for name in SETTINGS for end in ("", "_low", "_high")}
OF_CLASSIFIER = {f"eval/label_{name}" for name in MEASURED} | {"eval/regularization_loss"}
ALWAYS = {"global_step", "eval/num_test_images", "protocols", "encoders", "confusions"}
BASELINES = ("eval_untrained", "eval_raw_pixels")


def make_source(num_examples, seed):
    """Noise that is the brighter the higher the class."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 6, num_examples)
    images = generator.integers(0, 100, [num_examples, 16, 16, 3]) + 25 * labels[:, None, None, None]
    return sources.ArraySource(images.astype(np.uint8), labels, tuple("abcdef"))


def judge(folder, changes):
    config = override(RunConfig(), TINY | changes)
    train, test = make_source(90, seed=1), make_source(40, seed=2)
    model = models.initial_model(config, 90, 6)
    result = evaluate.evaluate(config, model, train, test, folder)
    for name in ("result.json", "result_0.json"):
        assert json.loads((folder / name).read_text()) == result
    return result, predictions.read(predictions.predictions_path(folder)), test.labels


def test_a_pretrained_encoder_and_the_baselines_are_judged_by_every_protocol(tmp_path):
    result, predicted, labels = judge(tmp_path, {"seed": 5})
    encoders = ("eval", *BASELINES)
    judged = {f"{encoder}/{name}" for encoder in encoders for name in METRICS}
    judged |= {f"{encoder}/{name}" for encoder in BASELINES for name in DIFFERENCES}
    assert result.keys() == ALWAYS | OF_CLASSIFIER | judged | {"eval/num_test_images_in_train"}
    assert result["protocols"]["knn"] == {"title": "kNN (k=90)", "k": 90, "temperature": 0.1, "chosen": {}}
    assert result["protocols"].keys() == {"knn", "linear", "label"} and tuple(result["encoders"]) == encoders
    assert result["eval/num_test_images"] == 40
    assert (result["eval/knn_k"], result["eval/knn_temperature"], result["eval/linear_seed"]) == (90, 0.1, 5)
    assert result["eval_raw_pixels/linear_top_1_accuracy"] > 0.9
    # The model has not been trained: of one seed, the two are the same.
    for name in METRICS:
        assert result[f"eval/{name}"] == result[f"eval_untrained/{name}"]
    assert result["eval_untrained/linear_top_1_difference"] == 0
    pixels = result["eval_raw_pixels/linear_top_1_accuracy"]
    assert result["eval_raw_pixels/knn_top_1_difference"] == pytest.approx(
        result["eval/knn_top_1_accuracy"] - result["eval_raw_pixels/knn_top_1_accuracy"]
    )

    assert list(predicted) == [f"{encoder}/{p}" for encoder in encoders for p in ("knn", "linear")] + ["eval/label"]
    for place, found in predicted.items():
        np.testing.assert_array_equal(found.labels, labels)
        assert found.examples.tolist() == [str(i) for i in range(40)]
        assert np.mean(found.predicted == labels) == pytest.approx(result[f"{place}_top_1_accuracy"])
        assert found.scores.mean() == pytest.approx(result[f"{place}_mean_confidence"], abs=1e-6)
    lines = table.describe(result).splitlines()
    assert lines[0].split("  ")[0] == "top-1 accuracy on 40 test images" and "kNN (k=90)" in lines[0]
    assert [line[2:30].strip() for line in lines if line.startswith("  ")] == [
        "raw pixels", "the untrained encoder", "this encoder", "the online classifier"
    ]  # fmt: skip
    low, high = (result[f"eval_raw_pixels/linear_top_1_accuracy_{end}"] for end in ("low", "high"))
    assert lines[1].endswith(f"{100 * pixels:.1f}% [{100 * low:.1f}, {100 * high:.1f}]")
    assert "This encoder is not told apart from the untrained encoder: +0.0 points [+0.0, +0.0], linear" in lines

    with np.load(tmp_path / "features" / "confusion.npz") as matrices:
        assert matrices.files == ["knn", "linear", "label"]
        for name in matrices.files:
            expected = confusion_matrix(labels, predicted[f"eval/{name}"].predicted, labels=range(6))
            np.testing.assert_array_equal(matrices[name], expected)
    of_linear = {"linear": predicted["eval/linear"].predicted}
    assert result["confusions"] == confusions.describe(labels, of_linear, 6, "abcdef", of=["knn", "linear"])

    probe = LinearProbe.load(tmp_path / "features" / "linear_0.npz")
    assert probe.class_names == tuple("abcdef") and probe.weights.shape[1] == 6
    assert (probe.temperature, probe.regularization_c) == (
        result["eval/linear_temperature"], result["eval/linear_regularization_c"]
    )  # fmt: skip


def scalars(folder):
    """The scalars in the TensorBoard files of a folder: (step, name, value)."""
    for path in folder.glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                yield event.step, value.tag, float(tf.make_ndarray(value.tensor))


def add_unlabelled(source, count):
    """The source with images of unknown label before and behind its own."""
    black = np.zeros([count, 16, 16, 3], np.uint8)
    labels = np.concatenate([np.full(count, -1), source.labels, np.full(count, -1)])
    return sources.ArraySource(np.concatenate([black, source.images, black]), labels, source.class_names)


def test_images_of_unknown_label_are_left_out_and_tensorboard_gets_the_accuracies_once(tmp_path):
    config = override(RunConfig(), TINY | {"eval.knn_k": 1, "eval.baselines": False})
    model = models.initial_model(config, 90, 6)
    train, test = make_source(90, seed=1), make_source(40, seed=2)
    result = evaluate.evaluate(config, model, train, test, tmp_path)
    assert result["eval/knn_k"] == 1 and "kNN (k=1)" in table.describe(result)
    again = evaluate.evaluate(config, model, add_unlabelled(train, 5), add_unlabelled(test, 300), tmp_path)
    assert again == result and again["eval/num_test_images"] == 40

    accuracies = {name: value for name, value in result.items() if name.endswith("accuracy")}
    written = list(scalars(tmp_path))
    assert len(written) == len(accuracies) == 9
    assert {name: value for _, name, value in written} == pytest.approx(accuracies)


def test_a_model_trained_on_labels_is_judged_by_its_classifier(tmp_path):
    result, predicted, labels = judge(tmp_path, {"train_mode": "supervised", "eval.steps": 2, "eval.batch_size": 16})
    assert result.keys() == ALWAYS | OF_CLASSIFIER | {f"{name}/{metric}" for name in BASELINES for metric in METRICS}
    assert result["eval/num_test_images"] == 32
    assert predicted.keys() == {"eval/label"} | {f"{name}/{p}" for name in BASELINES for p in ("knn", "linear")}
    assert not list((tmp_path / "features").glob("linear_*"))
    found = predicted["eval/label"]
    np.testing.assert_array_equal(found.labels, labels[:32])  # The first two batches.
    assert np.mean(found.predicted == found.labels) == result["eval/label_top_1_accuracy"]
    text = table.describe(result)
    assert [line[2:30].strip() for line in text.splitlines() if line.startswith("  ")] == [
        "raw pixels", "the untrained encoder", "the classifier"
    ]  # fmt: skip
    assert text.startswith("top-1 accuracy on 32 test images")
    result, _, _ = judge(tmp_path, {"train_mode": "supervised", "eval.baselines": False})
    assert result.keys() == ALWAYS | OF_CLASSIFIER and "raw pixels" not in table.describe(result)


def test_without_labels_there_is_nothing_to_judge(tmp_path):
    config = override(RunConfig(), TINY)
    unlabelled = sources.ArraySource(make_source(4, seed=1).images, None, None)
    result = evaluate.evaluate(config, builders.build_model(config, 90, None), unlabelled, unlabelled, tmp_path)
    assert result == {"global_step": 0}
    assert {path.name for path in tmp_path.iterdir()} == {"result.json", "result_0.json"}
    assert table.describe(result) == "No accuracies: the images have no labels."


def test_mistakes_name_classes_of_any_name_and_only_where_there_are_more_than_two():
    labels, predicted = np.array([0, 0, 1, 2]), {"knn": np.array([0, 0, 1, 2]), "linear": np.array([1, 1, 0, 2])}
    names = ("a\udcff", "b\n\x1b[2J", "é")
    trained = {"supervised": np.array([2, 2, 2, 0])}  # From random weights: no mistakes of this encoder.
    found = confusions.describe(labels, predicted | trained, 3, names, of=["knn", "linear"])
    assert found["protocol"] == "linear" and [one["count"] for one in found["most_frequent"]] == [2, 1]
    assert (
        table.describe(
            {
                "eval/num_test_images": 4,
                "encoders": {},
                "confusions": found,
                "protocols": {"linear": {"title": "linear"}},
            }
        ).splitlines()[0]
        == "Most often mistaken, linear: a\\udcff for b\\n\\x1b[2J (2), b\\n\\x1b[2J for a\\udcff (1)"
    )
    assert confusions.describe(labels % 2, {"knn": labels % 2}, 2, None, of=["knn"]) == {}
    assert confusions.describe(labels, trained, 3, None, of=[]) == {}
    assert confusions.describe(labels, {"label": labels}, 3, None, of=[]) == {"protocol": "label", "most_frequent": []}


class Reads(sources.ArraySource):
    """Counts the images that are read of it; `stop_at` ends the reading there, as a kill would."""

    read = 0
    stop_at = None

    def eval_examples(self, start=0):
        def count(position, *example):
            Reads.read += 1
            if Reads.stop_at is not None and position >= Reads.stop_at:
                raise InterruptedError("killed")
            return position

        def watch(position, *example):
            seen = tf.py_function(count, [position], tf.int64)
            return tf.ensure_shape(seen, []), *example

        return super().eval_examples(start).map(watch)


def test_what_is_found_is_not_found_again_and_what_changed_is(tmp_path, monkeypatch):
    monkeypatch.setattr(Reads, "read", 0)
    train, test = (
        Reads(*(getattr(made, name) for name in ("images", "labels", "class_names")))
        for made in (make_source(90, seed=1), make_source(40, seed=2))
    )
    config = override(RunConfig(), TINY | {"eval.protocols": ("knn",), "eval.knn_k": 5})
    model = models.initial_model(config, 90, 6)

    def reads(**changes):
        before = Reads.read
        evaluate.evaluate(
            override(config, {name.replace("__", "."): value for name, value in changes.items()}),
            model,
            train,
            test,
            tmp_path,
        )
        return Reads.read - before

    assert reads() == 3 * 130  # Three encoders.
    found = set((tmp_path / "features").rglob("*.npz")) - {tmp_path / "features" / "confusion.npz"}
    kept = {path: path.stat().st_mtime_ns for path in found}
    assert reads() == 0
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert reads(eval__knn_k=3) == 0 and reads(eval__protocols=("knn", "linear")) == 0
    assert reads(eval__steps=9) == 0 and reads(eval__steps=1) == 0  # All of them, still.
    assert reads(eval__steps=1, eval__batch_size=30) == 3 * 31  # Other test images: 30, and a look at one more.
    model.encoder.trainable_weights[0].assign_add(tf.ones_like(model.encoder.trainable_weights[0]))
    assert reads(eval__steps=1, eval__batch_size=30) == 121  # The baselines are what they were.
    test.labels[0] = (test.labels[0] + 1) % 6
    assert reads() == 3 * 40
    assert len(list((tmp_path / "features").glob("eval_train_*"))) == 1  # What is outdated goes.


def test_a_killed_extraction_continues_and_ends_as_if_nothing_had_happened(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_PART_ELEMENTS", 100)
    monkeypatch.setattr(Reads, "read", 0)
    config = override(RunConfig(), TINY | {"eval.batch_size": 8})
    model = models.initial_model(config, 90, 6)
    made = make_source(90, seed=1)
    images = cache.Images("train", Reads(made.images, made.labels, made.class_names), 6)

    def extract(folder):
        encoder = cache.FrozenEncoder("eval", "this encoder", 16, {}, lambda: model.encoder)
        return cache.CachedFeatures(tmp_path / folder, encoder, images, 8).features

    whole = extract("whole")
    monkeypatch.setattr(Reads, "stop_at", 40)
    with pytest.raises(tf.errors.OpError, match="killed"):
        extract("killed")
    monkeypatch.setattr(Reads, "stop_at", None)
    before = Reads.read
    again = extract("killed")
    assert 50 <= Reads.read - before < 90
    np.testing.assert_array_equal(again.representations, whole.representations)
    np.testing.assert_array_equal(again.labels, made.labels)
    assert again.keys.tolist() == [str(i) for i in range(90)]


def test_the_labels_of_the_test_images_decide_nothing_but_the_numbers(tmp_path):
    """Whatever they are, the same is chosen, fitted and predicted; and the model stays as it was, bit by bit."""
    config = override(RunConfig(), TINY | {"eval.baselines": False})
    model = models.initial_model(config, 90, 6)
    before = [weight.tobytes() for weight in model.get_weights()]
    train, test = make_source(90, seed=1), make_source(40, seed=2)
    evaluate.evaluate(config, model, train, test, tmp_path)
    found = predictions.read(predictions.predictions_path(tmp_path))
    result = json.loads((tmp_path / "result.json").read_text())
    settings, accuracy = result["protocols"], result["eval/linear_top_1_accuracy"]
    test.labels[:] = np.random.default_rng(0).permutation(test.labels)
    poisoned = evaluate.evaluate(config, model, train, test, tmp_path)
    for place, again in predictions.read(predictions.predictions_path(tmp_path)).items():
        np.testing.assert_array_equal(again.predicted, found[place].predicted)
        np.testing.assert_array_equal(again.scores, found[place].scores)
    assert poisoned["protocols"] == settings and poisoned["eval/linear_top_1_accuracy"] != accuracy
    assert [weight.tobytes() for weight in model.get_weights()] == before


def test_test_images_among_the_training_images_are_said(tmp_path):
    config = override(RunConfig(), TINY | {"eval.baselines": False, "eval.protocols": ("knn",)})
    train, test = make_source(90, seed=1), make_source(40, seed=2)
    test.images[3:5] = train.images[50:52]
    result = evaluate.evaluate(config, models.initial_model(config, 90, 6), train, test, tmp_path)
    assert result["eval/num_test_images_in_train"] == 2
    assert "Caution: 2 of the 40 test images are, pixel by pixel, among the training images" in table.describe(result)


def test_the_classifier_that_is_kept_is_the_one_that_the_result_is_about(tmp_path):
    config = override(RunConfig(), TINY | {"eval.baselines": False, "eval.protocols": ("linear", "linear_45")})
    model, kept = models.initial_model(config, 90, 6), tmp_path / "features" / "linear_0.npz"
    train, test = make_source(90, seed=1), make_source(40, seed=2)
    for protocols, about in (
        (("linear", "linear_45"), "linear"),
        (("knn", "linear_45"), "linear_45"),
        (("knn",), None),
    ):
        result = evaluate.evaluate(override(config, {"eval.protocols": protocols}), model, train, test, tmp_path)
        assert kept.is_file() == (about is not None)
        if about is not None:
            assert LinearProbe.load(kept).regularization_c == result[f"eval/{about}_regularization_c"]
            chosen = classifier.choose_classifier(to_served(model), tmp_path, 0, is_pretrained=True, is_own=True)
            assert chosen.card["top_1_accuracy"] == result[f"eval/{about}_top_1_accuracy"] is not None


def test_two_evaluations_do_not_write_the_same_representations(tmp_path):
    made = make_source(9, seed=1)
    images, encoder = cache.Images("train", made, 6), cache.FrozenEncoder("eval", "", 16, {}, lambda: tf.reshape)
    cached = cache.CachedFeatures(tmp_path, encoder, images, 8)
    place = tmp_path / f"eval_train_{cached.key}"
    place.mkdir()
    with lock.hold(place), pytest.raises(ValueError, match="is in use by process"):
        cached.digests()

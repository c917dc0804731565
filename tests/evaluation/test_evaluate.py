"""The evaluation program: what it writes about whom."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr import builders
from tf_simclr.data import sources
from tf_simclr.evaluation import evaluate
from tf_simclr.evaluation.probe import LinearProbe
from tf_simclr.runs import models
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
METRICS = {f"knn_{name}" for name in ("top_1_accuracy", "k", "temperature")} | {
    "linear_top_1_accuracy", "linear_top_5_accuracy", "linear_regularization_c", "linear_regularization_candidates",
    "linear_held_out_fraction", "linear_held_out_parts", "linear_max_iterations", "linear_seed", "linear_temperature",
    "linear_mean_confidence",
}  # fmt: skip
OF_CLASSIFIER = {"eval/label_top_1_accuracy", "eval/label_top_5_accuracy", "eval/regularization_loss"}
ALWAYS = {"global_step", "eval/num_test_images"}


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
    return result, dict(np.load(folder / "features" / "predictions_0.npz")), test.labels


def test_a_pretrained_encoder_and_the_baselines_are_judged_by_every_protocol(tmp_path):
    result, predictions, labels = judge(tmp_path, {"seed": 5})
    subjects = ("eval", "eval_untrained", "eval_raw_pixels")
    judged = {f"{subject}/{name}" for subject in subjects for name in METRICS}
    assert result.keys() == ALWAYS | OF_CLASSIFIER | judged
    assert result["eval/num_test_images"] == 40
    assert (result["eval/knn_k"], result["eval/knn_temperature"], result["eval/linear_seed"]) == (90, 0.1, 5)
    assert result["eval_raw_pixels/linear_top_1_accuracy"] > 0.9
    # The model has not been trained: of one seed, the two are the same.
    for name in METRICS:
        assert result[f"eval/{name}"] == result[f"eval_untrained/{name}"]

    np.testing.assert_array_equal(predictions.pop("labels"), labels)
    assert predictions.keys() == {f"{subject}/{p}" for subject in subjects for p in ("knn", "linear")} | {"eval/label"}
    for place, predicted in predictions.items():
        assert predicted.dtype == np.int64
        assert np.mean(predicted == labels) == result[f"{place}_top_1_accuracy"]
    table = evaluate.describe(result)
    assert "kNN (k=90)" in table and f"{result['eval/linear_top_1_accuracy']:.1%}" in table
    assert [line[2:36].strip() for line in table.splitlines() if line.startswith("  ")] == [
        "raw pixels", "the untrained encoder", "this encoder", "the online classifier"
    ]  # fmt: skip
    assert f"the online classifier {result['eval/label_top_1_accuracy']:>21.1%}" in table
    assert "40 test images: the 95 % interval of " in table

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
    assert result["eval/knn_k"] == 1 and "kNN (k=1)" in evaluate.describe(result)
    again = evaluate.evaluate(config, model, add_unlabelled(train, 5), add_unlabelled(test, 300), tmp_path)
    assert again == pytest.approx(result, rel=1e-3) and again["eval/num_test_images"] == 40
    with pytest.raises(ValueError, match="needs images with labels"):  # The first batch has none.
        changed = override(config, {"eval.steps": 1})
        evaluate.evaluate(changed, model, train, add_unlabelled(test, 300), tmp_path)

    accuracies = {name: value for name, value in result.items() if name.endswith("accuracy")}
    written = list(scalars(tmp_path))
    assert len(written) == len(accuracies) == 5
    assert {name: value for _, name, value in written} == pytest.approx(accuracies)


def test_a_model_trained_on_labels_is_judged_by_its_classifier(tmp_path):
    result, predictions, labels = judge(tmp_path, {"train_mode": "supervised", "eval.steps": 2, "eval.batch_size": 16})
    baselines = ("eval_untrained", "eval_raw_pixels")
    assert result.keys() == ALWAYS | OF_CLASSIFIER | {f"{name}/{metric}" for name in baselines for metric in METRICS}
    assert result["eval/num_test_images"] == 32
    assert predictions.keys() == {"labels", "eval/label"} | {
        f"{name}/{p}" for name in baselines for p in ("knn", "linear")
    }
    assert not list((tmp_path / "features").glob("linear_*"))
    np.testing.assert_array_equal(predictions["labels"], labels[:32])  # The first two batches.
    assert np.mean(predictions["eval/label"] == labels[:32]) == result["eval/label_top_1_accuracy"]
    table = evaluate.describe(result)
    assert [line[2:36].strip() for line in table.splitlines() if line.startswith("  ")] == [
        "raw pixels", "the untrained encoder", "the classifier"
    ]  # fmt: skip
    assert f"32 test images: the 95 % interval of {result['eval/label_top_1_accuracy']:.1%} is " in table
    result, _, _ = judge(tmp_path, {"train_mode": "supervised", "eval.baselines": False})
    assert result.keys() == ALWAYS | OF_CLASSIFIER and "raw pixels" not in evaluate.describe(result)


def test_without_labels_there_is_nothing_to_judge(tmp_path):
    config = override(RunConfig(), TINY)
    unlabelled = sources.ArraySource(make_source(4, seed=1).images, None, None)
    result = evaluate.evaluate(config, builders.build_model(config, 90, None), unlabelled, unlabelled, tmp_path)
    assert result == {"global_step": 0}
    assert {path.name for path in tmp_path.iterdir()} == {"result.json", "result_0.json"}
    assert evaluate.describe(result) == "No accuracies: the images have no labels."

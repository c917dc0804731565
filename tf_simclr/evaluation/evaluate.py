"""The evaluation program: runs protocols on the model of a run, and writes `result.json`."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tf_simclr import files
from tf_simclr.data import batches, sources
from tf_simclr.evaluation.features import Features, extract
from tf_simclr.evaluation.probe import probe_path
from tf_simclr.evaluation.protocols.knn import KNN
from tf_simclr.evaluation.protocols.linear import Linear
from tf_simclr.evaluation.scores import Protocol, Scores
from tf_simclr.keras import keras
from tf_simclr.metrics.classification import accuracy_interval, top_k_accuracy
from tf_simclr.models.classifier import Classifier
from tf_simclr.models.simclr import SimCLR
from tf_simclr.runs import models, writers
from tf_simclr.settings import RunConfig

_CLASSIFIER_BATCH = 4096

# What is judged: prefix of the keys in result.json, and its name in reports.
SUBJECTS = {"eval": "this encoder", "eval_untrained": "the untrained encoder", "eval_raw_pixels": "raw pixels"}


def _protocols(config: RunConfig) -> tuple[Protocol, ...]:
    """The protocols that judge the subjects."""
    return KNN(k=config.eval.knn_k), Linear(seed=config.seed)


def _subjects(
    config: RunConfig, model: SimCLR | Classifier, train: sources.Source
) -> Iterator[tuple[str, keras.Model]]:
    """Keys of SUBJECTS with their encoders: this one if it is pretrained, and the baselines if the config asks."""
    if isinstance(model, SimCLR):
        yield "eval", model.encoder
    if config.eval.baselines:
        yield "eval_untrained", models.initial_model(config, train.num_examples, train.num_classes).encoder
        yield "eval_raw_pixels", keras.Sequential([keras.layers.Flatten()])


def evaluate(
    config: RunConfig, model: SimCLR | Classifier, train: sources.Source, test: sources.Source, folder: pathlib.Path
) -> dict[str, Any]:
    """Judges a run's model and writes the result and the predictions.

    The protocols judge a pretrained encoder, frozen; its online classifier is judged as well. A model trained on labels
    is judged by its classifier. Images whose label is unknown (-1) are left out.

    Args:
      config: The run; `eval.baselines` asks the protocols to judge raw pixels and the untrained encoder as well.
      model: The run's model, restored or just trained; it is not changed.
      train: Labelled images that the evaluation learns from.
      test: Labelled images to test on.
      folder: The run's folder. Gets `result.json`, `result_<step>.json`, the accuracies for TensorBoard and, if there
        are labels, `features/predictions_<step>.npz`: the labels of the test images, int64 [M], and under
        "SUBJECT/PROTOCOL" the classes predicted for them, int64 [M]; those of the classifier under "eval/label". After
        a pretraining it also gets `features/linear_<step>.npz`, the linear classifier that was evaluated, a
        `LinearProbe`.

    Returns:
      The result: `global_step` and, if there are labels, `eval/num_test_images`, each metric of a protocol as
      "SUBJECT/PROTOCOL_METRIC", such as `eval/knn_top_1_accuracy`, and the metrics of the classifier and the penalty on
      the weights under the reference's names.

    Raises:
      ValueError: If a label is out of range or the training labels do not allow an evaluation.
    """
    step = int(model.optimizer.iterations.numpy())
    result: dict[str, Any] = {"global_step": step}
    if train.num_classes is None or test.num_classes is None:
        logging.warning("Nothing to evaluate: the images have no labels")
    else:
        logging.info("Evaluating this encoder on %d images", test.num_examples)
        encoded_test = _encode(config, model.encoder, test, train.num_classes, config.eval.steps)
        result["eval/num_test_images"] = len(encoded_test.labels)
        scores = _judge_frozen(config, model, train, test, encoded_test)
        if model.classifier is not None:
            scores["eval/label"] = _judge_classifier(model, encoded_test)
            result["eval/regularization_loss"] = float(sum(model.losses))
        result |= {
            f"{place}_{name}": value for place, judged in scores.items() for name, value in judged.metrics.items()
        }
        _write_predictions(folder / "features" / f"predictions_{step}.npz", encoded_test.labels, scores)
        if "eval/linear" in scores and (probe := scores["eval/linear"].probe) is not None:
            dataclasses.replace(probe, class_names=train.class_names).save(probe_path(folder, step))
        accuracies = {name: value for name, value in result.items() if name.endswith("accuracy")}
        writers.write_result(folder, step, accuracies)
    for name in ("result.json", f"result_{step}.json"):
        files.write_json(folder / name, result)
    return result


def _judge_frozen(
    config: RunConfig, model: SimCLR | Classifier, train: sources.Source, test: sources.Source, encoded_test: Features
) -> dict[str, Scores]:
    """Scores by "SUBJECT/PROTOCOL"; `encoded_test` holds the test images under this encoder."""
    scores = {}
    for subject, encoder in _subjects(config, model, train):
        if subject != "eval":
            logging.info("Evaluating %s", SUBJECTS[subject])
            encoded_test = _encode(config, encoder, test, encoded_test.num_classes, config.eval.steps)
        encoded_train = _encode(config, encoder, train, encoded_test.num_classes)
        for protocol in _protocols(config):
            scores[f"{subject}/{protocol.name}"] = protocol(encoded_train, encoded_test)
    return scores


def _judge_classifier(model: SimCLR | Classifier, test: Features) -> Scores:
    """Scores of the classifier that was trained with the model."""
    dataset = tf.data.Dataset.from_tensor_slices(test.representations).batch(_CLASSIFIER_BATCH)
    logits = np.concatenate([np.asarray(model.classify(batch, training=False)) for batch in dataset])
    metrics = {f"top_{k}_accuracy": top_k_accuracy(logits, test.labels, k) for k in (1, 5)}
    return Scores(metrics, np.argmax(logits, axis=1))


def _encode(
    config: RunConfig,
    encoder: keras.Model,
    source: sources.Source,
    num_classes: int,
    num_batches: int | None = None,
) -> Features:
    """Representations of the labelled images of a source, or of its first batches."""
    dataset = batches.eval_dataset(source, image_size=config.data.image_size, batch_size=config.eval.batch_size)
    representations, labels = extract(encoder, dataset.take(num_batches or -1))
    if labels is None or (labels < 0).all():
        raise ValueError("Evaluation needs images with labels. Received: images without labels")
    is_labelled = labels >= 0
    return Features(representations[is_labelled], labels[is_labelled], num_classes)


def _write_predictions(path: pathlib.Path, labels: np.ndarray, scores: dict[str, Scores]) -> None:
    arrays: dict[str, Any] = {place: judged.predictions for place, judged in scores.items()}
    path.parent.mkdir(exist_ok=True)
    with files.replacing(path) as beside:
        np.savez_compressed(beside, labels=labels, **arrays)


def describe(result: dict[str, Any]) -> str:
    """Formats the result as a table for the terminal, or as one line if it has no accuracies."""
    if "eval/num_test_images" not in result:
        return "No accuracies: the images have no labels."
    lines = []
    rows = [subject for subject in reversed(SUBJECTS) if f"{subject}/linear_top_1_accuracy" in result]
    if rows:
        knn_title = f"kNN (k={result[f'{rows[0]}/knn_k']})"
        lines.append(f"{'top-1 accuracy on the test images':36}{'linear':>9}{knn_title:>14}")
    for subject in rows:
        linear, knn = (result[f"{subject}/{kind}_top_1_accuracy"] for kind in ("linear", "knn"))
        lines.append(f"  {SUBJECTS[subject]:34}{linear:>9.1%}{knn:>14.1%}")
    is_pretrained = "eval" in rows
    if "eval/label_top_1_accuracy" in result:
        top_1, top_5 = (result[f"eval/label_top_{k}_accuracy"] for k in (1, 5))
        lines.append(f"{'accuracy on the test images':36}{'top-1':>9}{'top-5':>14}")
        lines.append(
            f"  {'the online classifier' if is_pretrained else 'the classifier':34}{top_1:>9.1%}{top_5:>14.1%}"
        )
    accuracy = result["eval/linear_top_1_accuracy" if is_pretrained else "eval/label_top_1_accuracy"]
    count = result["eval/num_test_images"]
    low, high = accuracy_interval(accuracy, count)
    return "\n".join([*lines, f"{count:,} test images: the 95 % interval of {accuracy:.1%} is {low:.1%} to {high:.1%}"])

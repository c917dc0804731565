"""Evaluation of a run's encoder, from a model to `result.json`."""

import pathlib
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tf_simclr.data import batches, sources
from tf_simclr.evaluation import evaluate_features
from tf_simclr.evaluation.features import extract
from tf_simclr.evaluation.knn import top_k_accuracy
from tf_simclr.files import write_json
from tf_simclr.keras import keras
from tf_simclr.models.classifier import Classifier
from tf_simclr.models.simclr import SimCLR
from tf_simclr.runs import models
from tf_simclr.settings import RunConfig

_CLASSIFIER_BATCH = 4096

# What is judged: prefix of the keys in result.json, and how people call it.
SUBJECTS = {"eval": "this encoder", "eval_untrained": "the untrained encoder", "eval_raw_pixels": "raw pixels"}


def evaluate(
    config: RunConfig, model: SimCLR | Classifier, train: sources.Source, test: sources.Source, folder: pathlib.Path
) -> dict[str, Any]:
    """Judges a run's model and writes the result.

    A pretrained encoder is frozen and judged by kNN and linear evaluation, and its online classifier on the side; a
    model that was trained on labels is judged by its classifier.

    Args:
      config: The run; `eval.baselines` asks for raw pixels and the untrained encoder beside it.
      model: The run's model, restored or just trained; it is not changed.
      train: Labelled images that the evaluation learns from.
      test: Labelled images that it is tested on.
      folder: The run's folder, which gets `result.json` and `result_<step>.json`.

    Returns:
      The result: `global_step` and, unless there are no labels, accuracies in [0, 1] (see `evaluate_features`), under
      the reference's names those of the classifier and the penalty on the weights.
    """
    result: dict[str, Any] = {"global_step": int(model.optimizer.iterations.numpy())}
    if train.num_classes is None or test.num_classes is None:
        logging.warning("There is nothing to evaluate: the images have no labels")
    else:
        logging.info("Evaluating this encoder on %d images", test.num_examples)
        test_features, test_labels = _encode(config, model.encoder, test, config.eval.steps)
        if isinstance(model, SimCLR):
            result |= _judge_pretrained(config, model, train, test, (test_features, test_labels))
        if model.classifier is not None:
            result |= _judge_classifier(model, test_features, test_labels)
    for name in ("result.json", f"result_{result['global_step']}.json"):
        write_json(folder / name, result)
    return result


def _judge_classifier(model: SimCLR | Classifier, features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracies of the classifier that was trained with the model, under the reference's names."""
    batches = tf.data.Dataset.from_tensor_slices(features).batch(_CLASSIFIER_BATCH)
    logits = np.concatenate([np.asarray(model.classify(batch, training=False)) for batch in batches])
    return {
        "eval/label_top_1_accuracy": top_k_accuracy(logits, labels),
        "eval/label_top_5_accuracy": top_k_accuracy(logits, labels, 5),
        "eval/regularization_loss": float(sum(model.losses)),
    }


def _judge_pretrained(
    config: RunConfig,
    model: SimCLR,
    train: sources.Source,
    test: sources.Source,
    encoded_test: tuple[np.ndarray, np.ndarray],
) -> dict[str, Any]:
    """KNN and linear evaluation of the encoder, and of the baselines if the config asks for them."""
    encoders = {"eval": model.encoder}
    if config.eval.baselines:
        encoders["eval_untrained"] = models.initial_model(config, train.num_examples, train.num_classes).encoder
        encoders["eval_raw_pixels"] = keras.Sequential([keras.layers.Flatten()])
    result: dict[str, Any] = {}
    for subject, encoder in encoders.items():
        if subject != "eval":
            logging.info("Evaluating %s", SUBJECTS[subject])
            encoded_test = _encode(config, encoder, test, config.eval.steps)
        judged = evaluate_features(
            *_encode(config, encoder, train), *encoded_test, num_classes=train.num_classes or 0, seed=config.seed
        )
        result |= {name.replace("eval/", f"{subject}/", 1): value for name, value in judged.items()}
    return result


def _encode(
    config: RunConfig, encoder: keras.Model, source: sources.Source, num_batches: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Representations and labels of a source, or of its first batches."""
    dataset = batches.eval_dataset(source, image_size=config.data.image_size, batch_size=config.eval.batch_size)
    features, labels = extract(encoder, dataset.take(num_batches or -1))
    if labels is None:
        raise ValueError("Evaluation needs images with labels. Received: images alone")
    return features, labels


def describe(result: dict[str, Any]) -> str:
    """The result as a table for the terminal; without accuracies, a line that says so."""
    rows = [subject for subject in reversed(SUBJECTS) if f"{subject}/linear_top_1_accuracy" in result]
    lines = []
    if rows:
        knn_title = f"kNN (k={result['eval/knn_k']})"
        lines.append(f"{'top-1 accuracy on the test images':36}{'linear':>9}{knn_title:>14}")
    for subject in rows:
        linear, knn = (result[f"{subject}/{kind}_top_1_accuracy"] for kind in ("linear", "knn"))
        lines.append(f"  {SUBJECTS[subject]:34}{linear:>9.1%}{knn:>14.1%}")
    if not rows and "eval/label_top_1_accuracy" in result:
        top_1, top_5 = (result[f"eval/label_top_{k}_accuracy"] for k in (1, 5))
        lines.append(f"{'accuracy on the test images':36}{'top-1':>9}{'top-5':>14}")
        lines.append(f"  {'the classifier':34}{top_1:>9.1%}{top_5:>14.1%}")
    return "\n".join(lines) or "No accuracies: the images have no labels."

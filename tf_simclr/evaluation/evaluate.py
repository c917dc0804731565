"""Evaluation of a run's encoder, from a model to `result.json`."""

import pathlib
from typing import Any

import numpy as np
from absl import logging

from tf_simclr import builders
from tf_simclr.config import RunConfig
from tf_simclr.data import pipeline, sources
from tf_simclr.evaluation import evaluate_features
from tf_simclr.evaluation.features import extract
from tf_simclr.evaluation.knn import top_k_accuracy
from tf_simclr.keras import keras
from tf_simclr.models.simclr import SimCLR
from tf_simclr.training.checkpoints import write_json

# What is judged: prefix of the keys in result.json, and how people call it.
SUBJECTS = {"eval": "this encoder", "eval_untrained": "the untrained encoder", "eval_raw_pixels": "raw pixels"}


def evaluate(
    config: RunConfig, model: SimCLR, train: sources.Source, test: sources.Source, folder: pathlib.Path
) -> dict[str, Any]:
    """Judges the frozen encoder by kNN and linear evaluation and writes the result.

    Args:
      config: The run; `eval.baselines` asks for raw pixels and the untrained encoder beside it.
      model: The run's model, restored or just trained; it is not changed.
      train: Labelled images that the evaluation learns from.
      test: Labelled images that it is tested on.
      folder: The run's folder, which gets `result.json` and `result_<step>.json`.

    Returns:
      The result: `global_step` and, unless there are no labels, accuracies in [0, 1] (see `evaluate_features`).
    """
    result: dict[str, Any] = {"global_step": int(model.optimizer.iterations)}
    if train.num_classes is None or test.num_classes is None:
        logging.warning("There is nothing to evaluate: the images have no labels")
    else:
        encoders = {"eval": model.encoder}
        if config.eval.baselines:
            encoders["eval_untrained"] = builders.build_model(config, train.num_examples, train.num_classes).encoder
            encoders["eval_raw_pixels"] = keras.Sequential([keras.layers.Flatten()])
        for subject, encoder in encoders.items():
            logging.info("Evaluating %s on %d images", SUBJECTS[subject], test.num_examples)
            classifier = model.online_classifier if subject == "eval" else None
            judged = _evaluate_encoder(config, encoder, classifier, train, test)
            result |= {name.replace("eval/", f"{subject}/", 1): value for name, value in judged.items()}
    for name in ("result.json", f"result_{result['global_step']}.json"):
        write_json(folder / name, result)
    return result


def _evaluate_encoder(
    config: RunConfig,
    encoder: keras.Model,
    classifier: keras.layers.Layer | None,
    train: sources.Source,
    test: sources.Source,
) -> dict[str, float]:
    train_features, train_labels = _encode(config, encoder, train)
    test_features, test_labels = _encode(config, encoder, test)
    result = evaluate_features(
        train_features,
        train_labels,
        test_features,
        test_labels,
        num_classes=train.num_classes or 0,
        seed=config.seed,
    )
    if classifier is not None:
        logits = np.asarray(classifier(test_features))
        # The reference's names for the classifier that is trained on the side.
        result["eval/label_top_1_accuracy"] = top_k_accuracy(logits, test_labels)
        result["eval/label_top_5_accuracy"] = top_k_accuracy(logits, test_labels, 5)
    return result


def _encode(config: RunConfig, encoder: keras.Model, source: sources.Source) -> tuple[np.ndarray, np.ndarray]:
    dataset = pipeline.eval_dataset(source, image_size=config.data.image_size, batch_size=config.eval.batch_size)
    features, labels = extract(encoder, dataset)
    if labels is None:
        raise ValueError("Evaluation needs images with labels. Received: images alone")
    return features, labels


def describe(result: dict[str, Any]) -> str:
    """The result as a table for the terminal; without accuracies, a line that says so."""
    rows = [subject for subject in reversed(SUBJECTS) if f"{subject}/linear_top_1_accuracy" in result]
    if not rows:
        return "No accuracies: the images have no labels."
    knn_title = f"kNN (k={result['eval/knn_k']})"
    lines = [f"{'top-1 accuracy on the test images':36}{'linear':>9}{knn_title:>14}"]
    for subject in rows:
        linear, knn = (result[f"{subject}/{kind}_top_1_accuracy"] for kind in ("linear", "knn"))
        lines.append(f"  {SUBJECTS[subject]:34}{linear:>9.1%}{knn:>14.1%}")
    return "\n".join(lines)

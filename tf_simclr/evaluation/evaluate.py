"""The evaluation program: runs protocols on the model of a run and on encoders beside it, and writes `result.json`."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from scipy.special import softmax

from tf_simclr import builders, files
from tf_simclr.data import sources
from tf_simclr.evaluation import cache, confusions, feasibility, label_efficiency, predictions
from tf_simclr.evaluation.cache import CachedFeatures, Images
from tf_simclr.evaluation.encoders import (
    FrozenEncoder,
    head_layers,
    raw_pixels,
    start_encoder,
    this_encoder,
    untrained_encoder,
)
from tf_simclr.evaluation.others import open_others
from tf_simclr.evaluation.probe import probe_path
from tf_simclr.evaluation.protocols import PROTOCOLS
from tf_simclr.evaluation.scores import Protocol, Scores, settings_of
from tf_simclr.evaluation.transfer import suite
from tf_simclr.evaluation.tuned import TUNED, Finetune, Material, few_labels
from tf_simclr.evaluation.verdict import Verdict, judge, keep_verdict
from tf_simclr.metrics import paired
from tf_simclr.models.trainer import EncoderTrainer
from tf_simclr.runs import writers
from tf_simclr.runs.predictions import predictions_path
from tf_simclr.runs.results import FINETUNED, KNN, LABEL, LINEAR, OWN_ROW, PROBED, SCRATCH, THIS, UNTRAINED
from tf_simclr.settings import RunConfig

_CLASSIFIER_BATCH = 4096


def evaluate(
    config: RunConfig, model: EncoderTrainer, train: sources.Source, test: sources.Source, folder: pathlib.Path
) -> dict[str, Any]:
    """Judges a run's model and writes the result and the predictions.

    The protocols judge a pretrained encoder, frozen; its online classifier is judged as well. A model trained on labels
    is judged by its classifier. Images whose label is unknown (-1) are left out. What an earlier evaluation has found
    from the same weights, images, settings and code is not made again. Protocols that train start from the pretrained
    encoder, or from random weights, in runs of their own below `features/`.

    Args:
      config: The run; `eval.protocols` names the protocols. `eval.baselines` asks them to judge raw pixels and the
        untrained encoder as well, `eval.head_layers` the layers of the projection head, `eval.compare_encoders` any
        others, and a run that has started from a checkpoint is compared with that.
      model: The run's model, restored or just trained; it is not changed.
      train: Labelled images that the evaluation learns from.
      test: Labelled images to test on.
      folder: The run's folder. Gets `result.json`, `result_<step>.json`, the accuracies for TensorBoard and, if there
        are labels, `features/`: representations, `predictions.parquet`, `confusion.npz` and, after a pretraining, the
        linear classifier that was evaluated as `linear_<step>.npz`, a `LinearProbe`.

    Returns:
      The result: `global_step` and, if there are labels, `eval/num_test_images`, each metric and setting of a protocol
      as "ENCODER/PROTOCOL_NAME", such as `eval/knn_top_1_accuracy`, an interval beside its number as `<name>_low` and
      `<name>_high`; how much better this encoder is than another as "OTHER/PROTOCOL_top_1_difference"; the metrics of
      the classifier and the penalty on the weights under the reference's names; the settings of the protocols under
      `protocols`, the encoders under `encoders` (title, image size and, unless they are the run's, path) and the most
      frequent mistakes under `confusions`; what `eval.suite` found under its name. With `eval.label_efficiency`, the
      rows of that table under `label_efficiency`, which `label_efficiency.png` shows.

    Raises:
      FileNotFoundError: If an encoder to compare with does not exist.
      ValueError: If one is of no use, a label is out of range, or the evaluation is not feasible (see `feasibility`).
    """
    images = builders.Sources(train, train, test)
    feasibility.check(config, images, model.distribute_strategy, width=model.encoder.output_shape[-1])
    step = int(model.optimizer.iterations.numpy())
    result: dict[str, Any] = {"global_step": step}
    if train.num_classes is None or test.num_classes is None:
        logging.warning("Nothing to evaluate: the images have no labels")
    else:
        bench = _Bench(config, model, train, test, folder / "features")
        verdicts = bench.verdicts()
        result |= bench.describe(verdicts)
        if rows := bench.label_efficiency():
            result["label_efficiency"] = rows
            label_efficiency.draw(rows, folder / label_efficiency.PICTURE)
        predictions.write(predictions_path(folder), bench.test_features, verdicts, test.identity())
        prefix = f"{THIS}/"
        judged = {place.removeprefix(prefix): found for place, found in verdicts.items() if place.startswith(prefix)}
        predicted = {name: found.predicted for name, found in judged.items()}
        of_test = bench.test_features.labels, predicted, train.num_classes
        _keep_probe(judged, train.class_names, probe_path(folder, step))
        confusions.write(folder, *of_test)
        result["confusions"] = confusions.describe(*of_test, train.class_names, of=bench.names_of_frozen())
        accuracies = {name: value for name, value in result.items() if name.endswith("accuracy")}
        writers.write_result(folder, step, accuracies)
    _write_result(folder, step, result)  # Should the suite fail, it is there.
    if config.eval.suite == "transfer":
        result["transfer"] = suite.run(config, this_encoder(config, model), folder / "features")
        _write_result(folder, step, result)
    return result


def _write_result(folder: pathlib.Path, step: int, result: dict[str, Any]) -> None:
    for name in ("result.json", f"result_{step}.json"):
        files.write_json(folder / name, result)


def _keep_probe(judged: dict[str, Verdict], class_names: tuple[str, ...] | None, path: pathlib.Path) -> None:
    """Keeps the linear classifier that the result is about, if there is one, and none that it is not about."""
    probe = next((judged[name].probe for name in PROBED if name in judged), None)
    if probe is None:
        path.unlink(missing_ok=True)
    else:
        dataclasses.replace(probe, class_names=class_names).save(path)


class _Bench:
    """The encoders, protocols and images of an evaluation."""

    def __init__(
        self,
        config: RunConfig,
        model: EncoderTrainer,
        train: sources.Source,
        test: sources.Source,
        folder: pathlib.Path,
    ):
        self._config, self._model, self._folder = config, model, folder
        folder.mkdir(exist_ok=True)
        num_classes = train.num_classes or 0
        self._train = cache.labelled("train", train, num_classes)
        self._test = cache.test_images(config, test, num_classes)
        names = config.eval.protocols
        self._protocols = [PROTOCOLS[name](config) for name in names if name in PROTOCOLS]
        self._tuned = [TUNED[name](config) for name in names if name in TUNED]
        if not model.is_pretrained and (self._tuned or config.eval.label_efficiency != "off"):
            logging.warning("Protocols that train, and label efficiency, judge pretrained encoders alone: left out")
        self._encoders = list(self._find_encoders())

    def _find_encoders(self) -> Iterator[FrozenEncoder]:
        """This one if it is pretrained, and those that the config asks to compare it with."""
        config, model, num_examples = self._config, self._model, self._train.source.num_examples
        if model.is_pretrained:
            yield self._this
            if config.eval.head_layers:
                yield from head_layers(model, self._this)
            if (start := start_encoder(config, model, num_examples)) is not None:
                yield start
        yield from open_others(config, model.distribute_strategy)
        if config.eval.baselines:
            yield untrained_encoder(config, model, num_examples)
            yield raw_pixels(config)

    @functools.cached_property
    def _this(self) -> FrozenEncoder:
        return this_encoder(self._config, self._model)

    def _features(self, encoder: FrozenEncoder, images: Images) -> CachedFeatures:
        return CachedFeatures(self._folder, encoder, images, self._config.eval.batch_size)

    @functools.cached_property
    def test_features(self) -> Any:
        """The representations of the test images under this encoder."""
        return self._features(self._this, self._test).features

    def verdicts(self) -> dict[str, Verdict]:
        """The verdicts by "ENCODER/PROTOCOL"; that of the model's own classifier is "eval/label"."""
        verdicts = {}
        for encoder in self._encoders:
            train, test = (self._features(encoder, images) for images in (self._train, self._test))
            for protocol in self._protocols:
                verdicts[f"{encoder.name}/{protocol.name}"] = self._verdict(protocol, train, test)
        if self._model.classifier is not None:
            verdicts[f"{THIS}/{LABEL}"] = self._verdict_of_classifier()
        if self._model.is_pretrained:
            verdicts |= {f"{THIS}/{protocol.name}": self._verdict_of_training(protocol) for protocol in self._tuned}
        return verdicts

    def _verdict_of_training(self, protocol: Finetune) -> Verdict:
        """What a protocol that trains finds, or has found before."""
        material = Material(self._config, self._model, self._this, self._train, self._test, self._folder)
        test = self._features(self._this, self._test)
        origin = {"weights": protocol.key(material), "test": test.images.fingerprint}
        return keep_verdict(
            self._folder / f"{THIS}_{protocol.name}", origin, lambda: judge(protocol(material), test.features.labels)
        )

    def label_efficiency(self) -> list[dict[str, Any]]:
        """The rows of the series that the config asks for; none for a model that was trained on labels."""
        extent = self._config.eval.label_efficiency
        if extent == "off" or not self._model.is_pretrained:
            return []
        untrained = untrained_encoder(self._config, self._model, self._train.source.num_examples)
        frozen = {
            KNN: (self._this, "knn"),
            LINEAR: (self._this, "linear"),
            UNTRAINED: (untrained, "linear"),
        }
        table = []
        for series, (encoder, name) in frozen.items():
            train, test = (self._features(encoder, images) for images in (self._train, self._test))
            protocol = PROTOCOLS[name](self._config)
            table += label_efficiency.rows_of_frozen(series, protocol, train, test, self._folder)
        if extent == "trained":
            percents = label_efficiency.percents_of(self._features(self._this, self._train).features)
            for series, is_pretrained in ((FINETUNED, True), (SCRATCH, False)):
                accuracy = functools.partial(self._accuracy_of_training, is_pretrained)
                table += label_efficiency.rows(series, percents, accuracy)
        return table

    def _accuracy_of_training(self, is_pretrained: bool, percent: int, draw: int) -> tuple[float, int]:
        verdict = self._verdict_of_training(few_labels(self._config, percent, draw, is_pretrained=is_pretrained))
        return verdict.metrics["top_1_accuracy"], verdict.settings["labels"]

    def _verdict(self, protocol: Protocol, train: CachedFeatures, test: CachedFeatures) -> Verdict:
        """What a protocol finds, or has found before."""
        origin = {"train": train.key, "test": test.key, "settings": settings_of(protocol)}

        def find() -> Verdict:
            logging.info("Evaluating %s: %s", train.encoder.title, protocol.name)
            return judge(protocol(train.features, test.features.representations), test.features.labels)

        return keep_verdict(self._folder / f"{train.encoder.name}_{protocol.name}", origin, find)

    def _verdict_of_classifier(self) -> Verdict:
        """That of the classifier that was trained with the model, with the reference's top-5 accuracy in any case."""
        test = self.test_features

        def probabilities(rows: slice) -> np.ndarray:
            dataset = tf.data.Dataset.from_tensor_slices(test.representations[rows]).batch(_CLASSIFIER_BATCH)
            logits = np.concatenate([np.asarray(self._model.classify(batch, training=False)) for batch in dataset])
            return softmax(logits.astype(np.float64), axis=1)

        verdict = judge(Scores(probabilities, (len(test), self._train.num_classes)), test.labels)
        # Of at most five classes, it is 1.
        return dataclasses.replace(verdict, metrics={"top_5_accuracy": 1.0} | dict(verdict.metrics))

    def describe(self, verdicts: dict[str, Verdict]) -> dict[str, Any]:
        """The entries of result.json."""
        test = self.test_features
        labels = test.labels
        result: dict[str, Any] = {f"{THIS}/num_test_images": len(labels)}
        if self._model.is_pretrained:
            of_test, of_train = (self._features(self._this, images).digests() for images in (self._test, self._train))
            result[f"{THIS}/num_test_images_in_train"] = int(np.isin(of_test, of_train).sum())
        for place, verdict in verdicts.items():
            values = {**verdict.metrics, **verdict.settings, **verdict.chosen}
            result |= {f"{place}_{name}": value for name, value in values.items()}
            result |= {f"{place}_{name}": value for name, value in _difference(place, verdicts, labels).items()}
        if self._model.classifier is not None:
            result[f"{THIS}/regularization_loss"] = float(sum(self._model.losses))
        result["protocols"] = self._settings(verdicts)
        result["encoders"] = {encoder.name: encoder.describe() for encoder in self._encoders}
        return result

    def names_of_frozen(self) -> list[str]:
        """The protocols that judge this encoder, frozen."""
        return [protocol.name for protocol in self._protocols] if self._model.is_pretrained else []

    def _settings(self, verdicts: dict[str, Verdict]) -> dict[str, Any]:
        """The protocols by name: title, the settings that decide the number, and what was chosen for this encoder."""
        found: dict[str, Any] = {}
        protocols: tuple[Protocol | Finetune, ...] = (*self._protocols, *self._tuned)
        for protocol in protocols:
            for place, verdict in verdicts.items():
                if place.endswith(f"/{protocol.name}") and protocol.name not in found:
                    title = protocol.title.format(**verdict.settings)
                    found[protocol.name] = {"title": title, **verdict.settings, "chosen": dict(verdict.chosen)}
                    if isinstance(protocol, Finetune):
                        found[protocol.name][OWN_ROW] = True
        if f"{THIS}/{LABEL}" in verdicts:
            kind = "online classifier" if self._model.is_pretrained else "classifier"
            found[LABEL] = {"title": f"the {kind}"}
        return found


def _difference(place: str, verdicts: dict[str, Verdict], labels: np.ndarray) -> dict[str, float]:
    """How much more often this encoder is right than the one of `place`, by the same protocol; empty if it is this."""
    encoder, _, protocol = place.partition("/")
    this = verdicts.get(f"{THIS}/{protocol}")
    if encoder == THIS or this is None:
        return {}
    hits, others = this.predicted == labels, verdicts[place].predicted == labels
    low, high = paired.difference_interval(hits, others)
    name = "top_1_difference"
    return {name: float(hits.mean() - others.mean()), f"{name}_low": low, f"{name}_high": high}

"""Judges an encoder on the data sets of the transfer suite that are there."""

import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from absl import logging

from tf_simclr import files
from tf_simclr.data import sources
from tf_simclr.evaluation import predictions
from tf_simclr.evaluation.cache import CachedFeatures, Images
from tf_simclr.evaluation.encoders import FrozenEncoder
from tf_simclr.evaluation.features import Features
from tf_simclr.evaluation.protocols.linear import Linear45
from tf_simclr.evaluation.scores import Protocol, settings_of
from tf_simclr.evaluation.transfer.sets import METRICS, SETS, TEST, TRAIN, VALIDATION, TransferSet, open_set
from tf_simclr.evaluation.verdict import Verdict, judge, keep_verdict
from tf_simclr.settings import RunConfig


class Judged(NamedTuple):
    """What was found on one data set.

    Attributes:
      train: The images that were learnt from, those of a validation split among them.
      test: The images that were tested on.
      verdict: The numbers.
    """

    train: Features
    test: Features
    verdict: Verdict


def protocol_of(config: RunConfig) -> Protocol:
    """The paper's linear evaluation (appendix B.8)."""
    return Linear45(seed=config.seed)


def place_of(config: RunConfig) -> str:
    """The folder that holds the suite: `eval.suite_dir`, or else TFDS's, which is `data_dir` if the run reads TFDS."""
    in_tfds = None if config.data.dataset in ("folder", "shapes") else config.data.data_dir
    by_default = os.environ.get("TFDS_DATA_DIR", os.path.join("~", "tensorflow_datasets"))
    return config.eval.suite_dir or in_tfds or os.path.expanduser(by_default)


def run(config: RunConfig, encoder: FrozenEncoder, folder: pathlib.Path) -> dict[str, Any]:
    """Judges a frozen encoder by linear evaluation on every data set of the suite that is there.

    Representations and verdicts are kept, as those of an evaluation are, and not made again. Nothing is downloaded.

    Args:
      config: The run.
      encoder: The encoder.
      folder: The run's `features/`. Gets the predictions for the test images as `transfer_predictions.parquet`, see
        `predictions`, with "ENCODER/transfer_NAME" as the protocol.

    Returns:
      The entry `transfer` of result.json: `encoder`, `data_dir`, `protocol` (title), `sets`: by name, what `_describe`
      gives, and `missing`: by name, how to get it.

    Raises:
      ValueError: If a data set is damaged.
    """
    folder.mkdir(exist_ok=True)
    protocol, data_dir = protocol_of(config), place_of(config)
    found: dict[TransferSet, Judged] = {}
    missing: dict[str, str] = {}
    for one in SETS:
        try:
            opened = open_set(one, data_dir, max_pixels=config.data.max_pixels)
        except FileNotFoundError as error:
            missing[one.name] = str(error)
            continue
        cached = {
            part: CachedFeatures(folder, encoder, _images(one, part, source), config.eval.batch_size)
            for part, source in opened.items()
        }
        found[one] = _judge(one, protocol, encoder, cached, folder)
    _write_predictions(folder / "transfer_predictions.parquet", encoder, found)
    return {
        "encoder": encoder.title,
        "data_dir": data_dir,
        "protocol": protocol.title,
        "sets": {one.name: _describe(one, judged) for one, judged in found.items()},
        "missing": missing,
    }


def _images(one: TransferSet, part: str, source: sources.Source) -> Images:
    if source.num_classes is None:
        raise ValueError(f"{one.title} needs images with labels. Received: images without labels in its part {part!r}")
    return Images(f"transfer_{one.name}_{part}", source, source.num_classes)


def _judge(
    one: TransferSet, protocol: Any, encoder: FrozenEncoder, cached: dict[str, CachedFeatures], folder: pathlib.Path
) -> Judged:
    """What the protocol finds on a data set, or has found before."""
    train, test = split(one, {part: features.features for part, features in cached.items()})
    origin = {
        "features": {part: features.key for part, features in cached.items()},
        "train_per_class": one.train_per_class,
        "settings": settings_of(protocol),
    }

    def find() -> Verdict:
        logging.info("Evaluating %s on %s: %s", encoder.title, one.title, protocol.title)
        return judge(protocol(train, test.representations), test.labels)

    return Judged(train, test, keep_verdict(folder / f"{encoder.name}_transfer_{one.name}", origin, find))


def split(one: TransferSet, parts: dict[str, Features]) -> tuple[Features, Features]:
    """The images to learn from and those to test on, from the parts that a data set is stored in.

    A validation split is joined to the training images, and marked in `is_validation`. If a number of training images a
    class is given, those with the smallest digests of their names are taken: the choice is the same in every run, and
    as random.
    """
    train = parts[TRAIN]
    if one.train_per_class is not None:
        names = train.keys if train.keys is not None else ()
        digests = np.array([files.digest(os.fsencode(key)) for key in names])
        order = np.argsort(digests, kind="stable")
        of_classes = [order[train.labels[order] == label] for label in np.unique(train.labels)]
        chosen = np.sort(np.concatenate([members[: one.train_per_class] for members in of_classes]))
        return train.take(chosen), train.take(np.setdiff1d(np.arange(len(train)), chosen))
    if one.has_validation:
        train = _join(train, parts[VALIDATION])
    return train, parts[TEST]


def _join(train: Features, validation: Features) -> Features:
    """Both, the second of them to choose hyper-parameters on."""
    columns = (
        np.concatenate([getattr(features, name) for features in (train, validation)])
        for name in ("representations", "labels", "keys", "digests")
    )
    representations, labels, keys, digests = columns
    is_validation = np.repeat([False, True], [len(train), len(validation)])
    return Features(representations, labels, train.num_classes, keys, digests, is_validation)


def _describe(one: TransferSet, judged: Judged) -> dict[str, Any]:
    """The entry of a data set in result.json: sizes, metrics, settings, and what the paper reports."""
    train, test, verdict = judged
    num_validation = 0 if train.is_validation is None else int(np.sum(train.is_validation))
    return {
        "title": one.title,
        "metric": one.metric,
        "metric_title": METRICS[one.metric],
        "num_classes": train.num_classes,
        "num_train_images": len(train),
        "num_validation_images": num_validation,
        "num_test_images": len(test),
        "num_test_images_in_train": test.count_in(train),
        "protocol_sizes": one.sizes._asdict(),
        **verdict.metrics,
        "settings": dict(verdict.settings),
        "chosen": dict(verdict.chosen),
        "paper": one.paper._asdict(),
    }


def _write_predictions(path: pathlib.Path, encoder: FrozenEncoder, found: dict[TransferSet, Judged]) -> None:
    """Writes what was predicted for the test images of every data set.

    Where an image has several classes, its label is the predicted one if that is among them, else the first of them, or
    -1 if it has none: so it tells whether the prediction is right.
    """
    tables = []
    for one, (_, test, verdict) in found.items():
        labels = test.labels
        if test.is_multi_label:
            is_right = test.labels[np.arange(len(test)), verdict.predicted]
            first = np.where(test.labels.any(axis=1), np.argmax(test.labels, axis=1), -1)
            labels = np.where(is_right, verdict.predicted, first)
        tables.append(predictions.to_table(test, {f"{encoder.name}/transfer_{one.name}": verdict}, labels))
    if tables:
        predictions.write_table(path, pa.concat_tables(tables))

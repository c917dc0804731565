"""The images of a run, from its settings."""

import itertools
import pathlib
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from tf_simclr.data import sources
from tf_simclr.data.files.broken import BrokenFiles
from tf_simclr.data.files.names import in_print
from tf_simclr.data.files.walk import RUN_REPORT
from tf_simclr.data.quality import classes
from tf_simclr.data.sources import cache, shapes, tfds
from tf_simclr.settings import DataConfig, RunConfig

_NAMED_UNLABELLED = 20


class Sources(NamedTuple):
    """The images of a run.

    Attributes:
      train: Images to train on, some of which may have no label.
      probe: Labelled images that the evaluation learns from: `train`, if that has labels.
      test: Labelled images to test on; `train` if there are no labels.
    """

    train: sources.Source
    probe: sources.Source
    test: sources.Source


def build_sources(config: RunConfig, folder: pathlib.Path) -> Sources:
    """Opens the images of a run.

    Args:
      config: The run.
      folder: The run's folder, which holds the list of broken files, `data_report.json`, and the cache on the disk.

    Raises:
      FileNotFoundError: If the folder does not exist.
      ValueError: If it holds no images or too many broken ones, its subfolders are almost a split, the TFDS data set
        does not exist, or the cache does not fit.
    """
    data = config.data
    broken = BrokenFiles(folder / RUN_REPORT, data.max_broken_fraction, max_pixels=data.max_pixels)
    broken.write()  # It marks the folder, so that the run does not take what it wrote there for images.
    opened = _open_sources(data, broken)
    broken.write()
    broken.check()
    opened = _settle_labels(config, opened)
    kept = {id(source): cache.keep(source, data.cache, folder / "decoded_images") for source in opened}
    return Sources(*(kept[id(source)] for source in opened))


def build_archive(data: DataConfig) -> list[sources.Source]:
    """Opens all images that `data` names, without looking for broken ones, as one source for each part of a data set.

    A TFDS data set gives its training split, the embedded one its training images.

    Raises:
      FileNotFoundError: If there is no such place.
      ValueError: If it holds no images, or there is no such data set.
    """
    options: dict[str, Any] = {**_options(data), "broken": BrokenFiles(are_expected=True)}
    if data.dataset != "folder":
        return [_open_split(data, False, options)]
    if data.data_dir is None:
        raise ValueError("--dataset=folder needs --data_dir, the folder of images. Received: none")
    split = sources.split_folders(data.data_dir)
    options["max_cached_bytes"] = 0
    opened = [sources.open_images(split.train, unlabelled=split.unlabelled, **options)]
    for place in split.evaluation:
        opened.append(sources.open_images(place, **{**options, "broken": BrokenFiles(are_expected=True)}))
    return opened if data.use_labels else [source.unlabelled() for source in opened]


def _open_sources(data: DataConfig, broken: BrokenFiles) -> Sources:
    options: dict[str, Any] = {**_options(data), "broken": broken}
    if data.dataset == "folder":
        return _open_images(data, options)
    train, test = (_open_split(data, is_test, options) for is_test in (False, True))
    if data.eval_data_dir is not None:
        return _with_test_images(train, data.eval_data_dir, options)
    return Sources(train, train, test)


def _options(data: DataConfig) -> dict[str, Any]:
    return {
        "image_feature": data.image_feature,
        "label_feature": data.label_feature,
        "max_pixels": data.max_pixels,
    }


def _open_split(data: DataConfig, is_test: bool, options: dict[str, Any]) -> sources.Source:
    """Opens a part of the embedded or a TFDS data set."""
    if data.dataset == "shapes":
        return sources.ArraySource(*shapes.load("test" if is_test else "train"), shapes.CLASS_NAMES)
    return tfds.from_tfds(data.dataset, data.eval_split if is_test else data.train_split, data.data_dir, **options)


def _open_images(data: DataConfig, options: dict[str, Any]) -> Sources:
    """Opens the user's own images."""
    if data.data_dir is None:
        raise ValueError("--dataset=folder needs --data_dir, the folder of images. Received: none")
    if data.eval_data_dir is not None or not data.use_labels:
        split = sources.split_folders(data.data_dir)
        train = sources.open_images(split.train, unlabelled=split.unlabelled, **options)
        train = train if data.use_labels else train.unlabelled()
        if data.eval_data_dir is None:
            return Sources(train, train, train)
        return _with_test_images(train, data.eval_data_dir, options)
    train, test = sources.open_train_and_eval(data.data_dir, **options)
    if train.num_classes is None and test.num_classes is not None:
        return Sources(train, *sources.holdout(test))
    return Sources(train, train, test)


def _with_test_images(train: sources.Source, place: str, options: dict[str, Any]) -> Sources:
    """Images to test on from elsewhere; if there are no others, the evaluation also learns from a part of them."""
    if train.num_classes is None:
        return Sources(train, *sources.open_train_and_eval(place, **options))
    return Sources(train, train, sources.open_images(place, class_names=train.class_names, **options))


def _settle_labels(config: RunConfig, opened: Sources) -> Sources:
    """Logs the labels, and decides what is done without them."""
    train, probe, test = opened
    _log_classes(probe)
    _log_unlabelled(train, "have no label, so they are trained on but no part of the evaluation")
    if test is not train:
        _log_unlabelled(test, "to test on have no label and are left out")
    percent = config.data.label_percent
    if config.train_mode in ("finetune", "supervised"):
        if percent < 100 and train.num_classes is not None:
            train = train.few_labels(percent)
            logging.info("Training on %d %% of the labels: %d images", percent, train.num_examples)
        elif train.labels is not None and train.num_classes is not None and not train.is_labelled.all():
            train = train.subset(np.flatnonzero(train.is_labelled))
        return Sources(train, train if probe is opened.train else probe, test)
    if probe.labels is not None and not sources.can_be_learnt(probe.labels):
        logging.warning("There are too few labelled images for an evaluation: the images count as unlabelled")
        return Sources(*[train.unlabelled()] * 3)
    if percent < 100 and train.num_classes is not None:
        train = _with_few_labels(config, train)
    return Sources(train, probe, test)


def _with_few_labels(config: RunConfig, train: sources.Source) -> sources.Source:
    """Images to train on, of which only a share has a label."""
    if train.labels is None and config.distill.label_weight is None and config.train_mode == "distill":
        return train  # Nothing is learnt from labels, which are known only as the images are read.
    train = train.with_few_labels(config.data.label_percent)
    logging.info("%d %% of the labels are left: %d", config.data.label_percent, np.count_nonzero(train.is_labelled))
    return train


def _log_classes(source: sources.Source) -> None:
    """Names all classes, and what is odd about them."""
    names, labels = source.class_names, source.labels
    if source.num_classes is None:
        logging.info("The images have no labels")
        return
    shown = list(names or ())
    if labels is not None:
        shown = [f"{name} ({number:,})" for name, number in classes.count(labels, names).items()]
    logging.info("%d classes: %s", source.num_classes, in_print(classes.listed(shown)))
    for text in itertools.chain(*classes.doubts(names or (), labels, () if labels is None else source.keys)):
        logging.warning("%s", in_print(text))


def _log_unlabelled(source: sources.Source, use: str) -> None:
    """Names the images without a label, if others have one."""
    if source.labels is None or source.is_labelled.all():
        return
    without = np.flatnonzero(~source.is_labelled)
    named = ", ".join(source.keys[i] for i in without[:_NAMED_UNLABELLED])
    more = f" and {without.size - _NAMED_UNLABELLED:,} more" if without.size > _NAMED_UNLABELLED else ""
    logging.warning("%d of %d images %s: %s%s", without.size, source.num_examples, use, in_print(named), more)

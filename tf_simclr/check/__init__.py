"""Checks a run before it starts: its images, what its settings imply, its machine, and a picture of its views."""

import dataclasses
import json
import pathlib

import tensorflow as tf
from absl import logging
from tqdm import tqdm

from tf_simclr import builders, files
from tf_simclr.augment import crop_and_flip
from tf_simclr.check import duplicates, images, machine, settings
from tf_simclr.check.findings import Finding, by_severity, describe, has_failed
from tf_simclr.check.sheet import write_sheet
from tf_simclr.data.quality.survey import Survey, survey
from tf_simclr.runs.folder import make_folder
from tf_simclr.settings import RunConfig, override

__all__ = ["Finding", "check", "describe", "has_failed"]

_SHEET_IMAGES = 8


def check(config: RunConfig, strategy: tf.distribute.Strategy) -> tuple[list[Finding], pathlib.Path]:
    """Examines everything that a run with this config would use, and tries the strategy's devices and the disk.

    The run's folder gets `check.json`, `check_views.png`, `check_duplicates.png` if there are near duplicates, and
    `data_report.json`, which saves the run the search for broken files, but no config, so a run with other settings may
    start there afterwards.

    Returns:
      The findings, worst first, and the run's folder.

    Raises:
      FileNotFoundError: If the images do not exist.
      ValueError: If no image can be decoded, or the folder cannot be written.
    """
    folder = make_folder(config)
    # What would stop the run becomes a finding instead of stopping the check; and nothing is cached.
    lenient = override(config, {"data.max_broken_fraction": 1.0, "data.cache": "none"})
    sources = builders.build_sources(lenient, folder)._asdict()
    unique = {id(source): part for part, source in reversed(sources.items())}
    parts = {part: source for part, source in sources.items() if unique[id(source)] == part}
    surveys: dict[str, Survey] = {}
    for part, source in parts.items():
        logging.info("Looking at %d images %s", source.num_examples, images.PARTS[part])
        with tqdm(total=source.num_examples, unit="image", disable=None) as bar:
            surveys[part] = survey(source, bar.update)
    report = json.loads((folder / "data_report.json").read_text(encoding="utf-8"))
    train = parts["train"]
    findings = images.examine(surveys, config.view_size, report, config.data.max_broken_fraction)
    findings += duplicates.examine(surveys, folder / "check_duplicates.png")
    one_by_one = override(config, {"train.steps_per_execution": 1})  # to time single steps
    with strategy.scope():
        found, model = settings.examine(one_by_one, train.num_examples, train.num_classes)
        found += settings.evaluation(config, builders.Sources(**sources))
    findings += [*found, *machine.examine(config, strategy, model, train, folder)]
    findings = by_severity(findings)
    statistics = {part: images.statistics(found) for part, found in surveys.items()}
    entries = [dataclasses.asdict(finding) for finding in findings]
    files.write_json(folder / "check.json", {"findings": entries, "images": statistics})
    augmentation, small_views = builders.build_augmentation(config), builders.build_small_views(config)
    if config.train_mode != "pretrain":
        augmentation = crop_and_flip(augmentation)
    picture = folder / "check_views.png"
    write_sheet(train.sample(_SHEET_IMAGES), augmentation, train.has_one_size, picture, small_views)
    return findings, folder

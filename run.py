"""Command line of tf_simclr: pretrain, evaluate and export an encoder.

python run.py --mode=train_then_eval                      # the main job on the embedded data
python run.py --mode=train_then_eval --data_dir=PHOTOS    # on your own folder of images
python run.py --mode=check --data_dir=PHOTOS              # checks images, settings and machine first
"""

import os
import pathlib
import sys
from logging import ERROR, Formatter, getLogger
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from absl import app, flags, logging

from tf_simclr import builders, distribute
from tf_simclr.check import check, describe, has_failed
from tf_simclr.evaluation import evaluate
from tf_simclr.export import convert, publish
from tf_simclr.runs import models
from tf_simclr.runs.folder import open_run
from tf_simclr.runs.saved_settings import settings_of_checkpoint, settings_of_run
from tf_simclr.settings import RunConfig, command_line, document
from tf_simclr.training import stopping, train

ROOT = pathlib.Path(__file__).resolve().parent


def run(config: RunConfig) -> str:
    """Trains, evaluates and exports as the config asks; returns the report for the terminal."""
    convert.check_formats(config.export.formats)
    strategy = _start(config)
    is_chief = distribute.is_chief(strategy)
    with open_run(config, is_chief=is_chief) as folder:
        images = builders.build_sources(config, folder)
        model = None
        if config.trains:
            with strategy.scope():
                model = train.train(config, images.train, folder)
        if distribute.has_workers(strategy):
            if not is_chief:
                return "The chief continues alone; this worker is done"
            # The chief continues alone, so nothing may wait for the other workers.
            model, strategy = None, tf.distribute.get_strategy()
        if model is None:
            with strategy.scope():
                model = models.load_trained_model(config, images.train)
        return _finish(config, model, images, folder)


def _finish(config: RunConfig, model: Any, images: builders.Sources, folder: pathlib.Path) -> str:
    """Evaluates and exports the model as the config asks."""
    report = []
    if config.mode in ("eval", "train_then_eval"):
        report.append(evaluate.describe(evaluate.evaluate(config, model, images.probe, images.test, folder)))
    if config.mode != "eval":
        report.append(publish.publish(config, model, images, folder))
    files = {"result": "result.json", "metrics": "metrics.jsonl", "checkpoints": "checkpoints"}
    places = [f"{name + ':':14}{folder / path}" for name, path in files.items() if (folder / path).exists()]
    if any(folder.glob("events.*")):
        places.append(f"{'TensorBoard:':14}{folder}")
    return "\n\n".join([*report, "\n".join(places)])


def look(config: RunConfig) -> tuple[str, int]:
    """Checks a run before it starts; returns the report for the terminal and the exit status."""
    findings, folder = check(config, _start(config))
    places = [f"{'views:':14}{folder / 'check_views.png'}", f"{'findings:':14}{folder / 'check.json'}"]
    return "\n".join([describe(findings, config.data.data_dir), "", *places]), int(has_failed(findings))


def _start(config: RunConfig) -> tf.distribute.Strategy:
    """Configures TensorFlow and makes the run's strategy."""
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    return distribute.make_strategy(
        config.strategy, tpu_address=config.tpu_name, tpu_zone=config.tpu_zone, gcp_project=config.gcp_project
    )


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; --help prints them and exits with status 0, anything that is not a flag exits with status 2."""
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(document.help_text(builders.NAMES))
        sys.exit(0)
    try:
        words = flags.FLAGS(argv)
        if words[1:]:
            raise flags.Error(f"A flag is written --name=value. Received: {words[1]}")
        return words
    except flags.Error as error:
        sys.exit(_complain(error))


def main(_: list[str]) -> None:
    """Runs what the command line asks for; bad input ends in one sentence and exit status 2."""
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler().python_handler
    handler.setFormatter(Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    # TensorFlow, too, logs to absl, and logs every function that it saves.
    ours = str(ROOT / "tf_simclr") + os.sep
    handler.addFilter(lambda record: record.pathname.startswith(ours) or record.levelno >= ERROR)
    getLogger("tensorflow").setLevel(ERROR)
    try:
        config = command_line.to_config(
            flags.FLAGS, ROOT, names=builders.NAMES, read_run=settings_of_run, read_checkpoint=settings_of_checkpoint
        )
        report, status = look(config) if config.mode == "check" else (run(config), 0)
        print(f"\n{report}")
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(_complain(error))
    except stopping.Stopped as stop:
        print(f"\nrun.py: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        print("\nrun.py: interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    sys.exit(status)


def _complain(error: Exception) -> int:
    print(f"run.py: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    command_line.define()
    app.run(main, flags_parser=parse)

"""Command line of tf_simclr: pretrain, evaluate and export an encoder.

python run.py --mode=train_then_eval                      # the main job on the embedded data
python run.py --mode=train_then_eval --data_dir=PHOTOS    # on your own folder of images
python run.py --mode=check --data_dir=PHOTOS              # checks images, settings and machine first
python run.py --mode=report --model_dir=RUN               # writes RUN/report.html, also while the run trains
python run.py --mode=embed --model_dir=RUN --data_dir=PHOTOS --output_dir=FOLDER  # writes embeddings of all images
"""

import contextlib
import functools
import os
import pathlib
import re
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from logging import ERROR, Formatter, getLogger
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Kernels that TensorFlow takes by itself only on processors with AVX512-VNNI or newer: twice as fast on older ones.
if __name__ == "__main__":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
if os.path.expanduser("~") == "~":  # The user has no home, and Keras would make a folder of that name here.
    os.environ.setdefault("KERAS_HOME", os.path.join(tempfile.gettempdir(), f"keras-{os.getuid()}"))

import quiet

with quiet.without_remarks():
    import tensorflow as tf
from absl import app, flags, logging

from tf_simclr import builders, distribute, evaluation, stages
from tf_simclr.check import check, describe, has_failed
from tf_simclr.evaluation import atlas, embed, evaluate, feasibility, others, table, tensorboard
from tf_simclr.export import convert, preconditions, publish
from tf_simclr.report import write_report
from tf_simclr.runs import export_inputs, models, workers
from tf_simclr.runs.checkpoint_list import list_checkpoints
from tf_simclr.runs.folder import open_run
from tf_simclr.runs.saved_settings import settings_of_checkpoint, settings_of_run
from tf_simclr.settings import RunConfig, command_line, document
from tf_simclr.training import stopping, train

ROOT = pathlib.Path(__file__).resolve().parent
NAMES = builders.NAMES | evaluation.NAMES
# What bad input, a full disk or a lost machine raises. Anything else is a bug, which its traceback helps to find.
EXPECTED = (ValueError, OSError, FloatingPointError)
_DONE = "The chief continues alone; this worker is done"


class Unfinished(Exception):
    """What comes after the training has failed; the weights are saved. The cause is its `__cause__`."""


def run(config: RunConfig) -> str:
    """Trains, evaluates and exports as the config asks; returns the report for the terminal."""
    convert.check_formats(config.export.formats)
    is_alone = _starts_alone(config)
    if is_alone and not distribute.is_first_worker():
        return _DONE
    strategy = _start(config, is_alone)
    is_chief = distribute.is_chief(strategy)
    if config.mode in ("eval", "train_then_eval"):
        others.check(config, strategy)  # Before the run's settings are written, or a wrong path would stay in them.
    with open_run(config, is_chief=is_chief) as folder:
        open_images = functools.cache(lambda: builders.build_sources(config, folder))
        kept = export_inputs.load(folder) if config.mode == "export" else None
        model = None
        if config.trains:
            preconditions.check(config, open_images().train, folder)
            if config.mode == "train_then_eval":
                feasibility.check(config, open_images(), strategy)
            with strategy.scope():
                model = train.train(config, open_images(), folder)
        if distribute.has_workers(strategy):
            if not is_chief:
                return _DONE
            # The chief continues alone, so nothing may wait for the other workers.
            model, strategy = None, tf.distribute.get_strategy()
        with _naming_the_weights(config, folder):
            if model is None:
                with strategy.scope():
                    model = models.load_trained_model(config, kept or open_images().train)
            return _finish(config, model, open_images, folder)


@contextlib.contextmanager
def _naming_the_weights(config: RunConfig, folder: pathlib.Path) -> Iterator[None]:
    """Turns an error after the training into one that says where the weights are and how to export them."""
    try:
        yield
    except stopping.Stopped:  # An evaluation that trains has saved its state, and says so.
        raise
    except Exception as error:
        newest = next(reversed(list_checkpoints(folder).values()), None)
        if not config.trains or newest is None:
            raise
        command = f"python run.py --mode=export --model_dir={shlex.quote(str(folder))}"
        raise Unfinished(
            f"{_sentence(error)}. The training is done and its weights are saved as {newest}; once the cause is gone, "
            f"this makes the export: {command}"
        ) from error


def _sentence(error: Exception) -> str:
    """What an error says, on one line if it is TensorFlow's, with its kind if that is unexpected."""
    if isinstance(error, tf.errors.OpError):
        return error.message.partition("\n")[0]
    return str(error).rstrip(".") if isinstance(error, EXPECTED) else f"{type(error).__name__}: {error}"


def _finish(config: RunConfig, model: Any, open_images: Callable[[], builders.Sources], folder: pathlib.Path) -> str:
    """Evaluates and exports the model as the config asks."""
    report = []
    if config.mode in ("eval", "train_then_eval"):
        images = open_images()
        result = evaluate.evaluate(config, model, images.probe, images.test, folder)
        report.append(table.describe(result))
    if config.mode != "eval":
        inputs = export_inputs.load(folder) or export_inputs.of_sources(config, open_images())
        report.append(publish.publish(config, model, inputs, open_images, folder))
    if config.mode in ("eval", "train_then_eval"):  # Last: should it fail, the encoder is exported.
        atlas.write(config, model, images, folder)
        tensorboard.write_projector(folder)
        tensorboard.write_hparams(config, folder)
    outputs = {
        "result": "result.json",
        "metrics": "metrics.jsonl",
        "map": "features/map.parquet",
        "checkpoints": "checkpoints",
    }
    places = [f"{name + ':':14}{folder / path}" for name, path in outputs.items() if (folder / path).exists()]
    if any(folder.glob("events.*")):
        places.append(f"{'TensorBoard:':14}{folder}")
    return "\n\n".join([*report, "\n".join([*places, _place_of_report(folder)])])


def _place_of_report(folder: pathlib.Path) -> str:
    """Writes the report of the run, and says where; what goes wrong there costs no run its result."""
    try:
        return f"{'report:':14}{write_report(folder)}"
    except Exception as error:
        return f"{'report:':14}not written ({_sentence(error)}); nothing else is affected"


def look(config: RunConfig) -> tuple[str, int]:
    """Checks a run before it starts; returns the report for the terminal and the exit status."""
    findings, folder = check(config, _start(config))
    places = [f"{'views:':14}{folder / 'check_views.png'}", f"{'findings:':14}{folder / 'check.json'}"]
    return "\n".join([describe(findings, config.data.data_dir), "", *places]), int(has_failed(findings))


def show(config: RunConfig) -> tuple[str, int]:
    """Writes the report of a run, of any version, from its folder alone; returns its place and the exit status."""
    if config.model_dir is None:
        raise ValueError("--mode=report needs the folder of a run, such as --model_dir=runs/shapes. Received: none")
    return f"{'report:':14}{write_report(pathlib.Path(config.folder))}", 0


def embed_all(config: RunConfig) -> tuple[str, int]:
    """Embeds an archive; returns the report for the terminal and the exit status. The run's folder stays as it is."""
    is_alone = _starts_alone(config)
    if is_alone and config.embed.part[1] == 1 and not distribute.is_first_worker():  # Parts are a worker's own.
        return _DONE, 0
    return embed.embed(config, _start(config, is_alone)), 0


def _starts_alone(config: RunConfig) -> bool:
    """Whether the first of several machines is enough: it does not train, or all have trained the run to its end.

    Those that have gone since do not come back.
    """
    if config.strategy != "multi_worker":
        return False
    if config.mode in ("eval", "export", "embed"):
        return True
    return config.trains and workers.have_trained(pathlib.Path(config.folder))


def _start(config: RunConfig, is_alone: bool = False) -> tf.distribute.Strategy:
    """Configures TensorFlow and makes the run's strategy, for one of several machines perhaps as if there were one."""
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    # As after a training: what it has evaluated on one device is not evaluated again on several.
    alone = "default" if config.trains else "auto"
    return distribute.make_strategy(
        alone if is_alone else config.strategy,
        tpu_address=config.tpu_name,
        tpu_zone=config.tpu_zone,
        gcp_project=config.gcp_project,
    )


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; --help prints them and exits with status 0, anything that is not a flag exits with status 2."""
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(document.help_text(NAMES))
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
    for stream in filter(None, (sys.stdout, sys.stderr)):  # A console may know fewer characters than names have.
        stream.reconfigure(errors="backslashreplace")
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler().python_handler
    handler.setFormatter(Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    # TensorFlow, too, logs to absl, and logs every function that it saves.
    ours = str(ROOT / "tf_simclr") + os.sep
    handler.addFilter(lambda record: record.pathname.startswith(ours) or record.levelno >= ERROR)
    getLogger("tensorflow").setLevel(ERROR)
    try:
        _check_working_directory()
        report, status = _do(_settings())
    except EXPECTED as error:
        sys.exit(_complain(error))
    except Unfinished as error:
        if not isinstance(error.__cause__, (*EXPECTED, tf.errors.OpError, MemoryError)):
            traceback.print_exception(error.__cause__)
        sys.exit(_complain(error))
    except tf.errors.ResourceExhaustedError as error:
        sys.exit(_complain(MemoryError(_too_little_memory(error.message))))
    except stopping.Stopped as stop:
        print(f"\nrun.py: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        print("\nrun.py: interrupted; the same command continues from what is saved", file=sys.stderr)
        sys.exit(130)
    _show(report)
    sys.exit(status)


def _do(config: RunConfig | dict[str, RunConfig]) -> tuple[str, int]:
    """Does what the command line asks for, in one run or several stages; returns the report and the exit status."""
    if isinstance(config, dict):
        return stages.run_all(config, run), 0
    programs = {"check": look, "embed": embed_all, "report": show}
    return programs[config.mode](config) if config.mode in programs else (run(config), 0)


def _settings() -> RunConfig | dict[str, RunConfig]:
    """The settings that the command line asks for; a report needs none of the run's, which may be of any version."""
    if flags.FLAGS.mode == "report":
        return RunConfig(mode="report", model_dir=flags.FLAGS.model_dir)
    return command_line.to_stages(flags.FLAGS, names=NAMES) or command_line.to_config(
        flags.FLAGS, ROOT, names=NAMES, read_run=settings_of_run, read_checkpoint=settings_of_checkpoint
    )


def _too_little_memory(message: str) -> str:
    """A sentence in place of TensorFlow's message, which has the lines of a traceback."""
    shape = re.search(r"shape\[[\d,]+\]", message)
    return (
        f"There is too little memory for {f'a tensor of {shape[0]}' if shape else 'this run'}: lower "
        "--train_batch_size or --image_size, take a smaller network, or set --microbatch_size in pretraining"
    )


def _check_working_directory() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ValueError(
            "The working directory must exist: change into one that does. Received: a removed one"
        ) from None


def _show(report: str) -> None:
    """Prints the report; whoever reads it may have gone."""
    try:
        print(f"\n{report}", flush=True)
    except BrokenPipeError:
        # Python would try again when it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(error: Exception) -> int:
    print(f"run.py: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    command_line.define()
    with quiet.without_remarks():
        tf.config.list_physical_devices()  # The first look at the devices is when TensorFlow remarks on them.
    app.run(main, flags_parser=parse)

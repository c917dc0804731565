"""Which of the numbers that need no labels predict linear accuracy: their rank correlations over short runs.

    python benchmarks/health.py --data_dir=cifar10
    python benchmarks/health.py --steps=20 --runs=3 --model_dir=runs/try

Takes configs/cifar10_lars.py, without --data_dir on the embedded data, and trains once with every change of RUNS, for
--steps of 256 images each, or as many images with other batches. Measures each encoder at the end as training does, and
by the protocol `linear`. Prints a table of the runs, and Spearman's rank correlation of every number with the linear
accuracy, with its 95 % bootstrap interval over the runs: for all of them, and for those that are not sick. A second
start of the same command goes on where the first one stopped. With 200 steps on CIFAR-10, a run takes two to three
minutes on two CPU cores.
"""

import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from scipy import stats

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.arguments import at_least_1  # noqa: E402
from benchmarks.ledger import Ledger  # noqa: E402
from tf_simclr import builders  # noqa: E402
from tf_simclr.evaluation.evaluate import evaluate  # noqa: E402
from tf_simclr.keras import keras  # noqa: E402
from tf_simclr.runs.folder import open_run  # noqa: E402
from tf_simclr.settings import RunConfig, override, to_dict  # noqa: E402
from tf_simclr.settings.command_line import load_config  # noqa: E402
from tf_simclr.training import held_out  # noqa: E402
from tf_simclr.training.meter import Meter  # noqa: E402
from tf_simclr.training.train import train  # noqa: E402

BATCH = 256
TEMPERATURE, RATE, SIZE = "model.temperature", "optimizer.base_learning_rate", "train.global_batch_size"
CROP, GREY = "augmentation.crop_min_area", "augmentation.grayscale_probability"
JITTER = "augmentation.color_jitter_strength"
WIDTH = "model.width_multiplier"
# What a run changes, and whether it is sick: its encoder learns little or the wrong thing by design.
RUNS: dict[str, tuple[dict[str, Any], bool]] = {
    "base": ({}, False),
    "temperature 0.01": ({TEMPERATURE: 0.01}, True),
    "temperature 10": ({TEMPERATURE: 10.0}, True),
    "no colour": ({JITTER: 0.0, GREY: 0.0}, True),
    "rate 100": ({RATE: 100.0}, True),
    "rate 0.01": ({RATE: 0.01}, True),
    "4 projections": ({"model.proj_out_dim": 4}, True),
    "temperature 0.05": ({TEMPERATURE: 0.05}, False),
    "temperature 0.1": ({TEMPERATURE: 0.1}, False),
    "temperature 0.5": ({TEMPERATURE: 0.5}, False),
    "temperature 1": ({TEMPERATURE: 1.0}, False),
    "crop 0.08": ({CROP: 0.08}, False),
    "crop 0.5": ({CROP: 0.5}, False),
    "crop 0.9, no colour": ({CROP: 0.9, JITTER: 0.0, GREY: 0.0}, True),
    "jitter 0.2": ({JITTER: 0.2}, False),
    "jitter 1": ({JITTER: 1.0}, False),
    "grey 0.5": ({GREY: 0.5}, False),
    "blur": ({"augmentation.blur_probability": 0.5}, False),
    "rate 0.3": ({RATE: 0.3}, False),
    "rate 1": ({RATE: 1.0}, False),
    "rate 10": ({RATE: 10.0}, False),
    "batch 32": ({SIZE: 32}, False),
    "batch 128": ({SIZE: 128}, False),
    "batch 1024": ({SIZE: 1024}, False),
    "width 0.25": ({WIDTH: 0.25}, False),
    "width 0.5": ({WIDTH: 0.5}, False),
    "width 1.5": ({WIDTH: 1.5}, False),
    "no head": ({"model.num_proj_layers": 0}, False),
    "decoupled loss": ({"model.loss": "dcl"}, False),
    "seed 1": ({"seed": 1}, False),
    "seed 2": ({"seed": 2}, False),
}
WARMUP_SHARE = 0.1
NUM_RESAMPLES = 2000
LINEAR = "linear accuracy"
# What the run wrote to metrics.jsonl at its end.
OF_TRAINING = ("loss", "contrastive_top_1_accuracy", "contrastive_entropy")


def config_of(name: str, options: argparse.Namespace, num_examples: int) -> RunConfig:
    """The settings of a run, which sees as many images as all others."""
    changes, _ = RUNS[name]
    num_images = options.steps * BATCH
    size = changes.get(SIZE, BATCH)
    length = {
        "train.steps": max(1, num_images // size),
        "optimizer.warmup_epochs": WARMUP_SHARE * num_images / num_examples,
        "train.checkpoint_epochs": 1000,
        "train.health": False,
        "eval.protocols": ("linear",),
        "eval.baselines": False,
    }
    folder = {"model_dir": os.path.join(options.model_dir, name.replace(" ", "_").replace(",", ""))}
    return override(base_config(options), length | folder | changes)


def base_config(options: argparse.Namespace) -> RunConfig:
    """The settings without a change."""
    place = {"data.dataset": "folder" if options.data_dir else "shapes", "data.data_dir": options.data_dir}
    return override(load_config(ROOT / "configs" / "cifar10_lars.py"), place)


def run_case(config: RunConfig, images: builders.Sources) -> dict[str, float]:
    """Trains, measures and evaluates; returns the numbers."""
    keras.backend.clear_session()
    with open_run(config) as folder:
        model = train(config, images, folder)
        sample = held_out.draw(images.test, model.augmentation, config.data.image_size)
        # As in a batch of 256, whatever the run's is.
        measure = Meter(model, sample, global_batch_size=BATCH, encoded_at_once=BATCH)
        values = measure(with_knn=True)
        if values is None:
            raise ValueError(f"The features of {folder} must be finite")
        result = evaluate(config, model, images.probe, images.test, folder)
        last = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    numbers = {name: value for name, value in values.items() if not isinstance(value, list)}
    for name in ("contrastive_candidates", "collapse_loss", "entropy_candidates"):  # of the settings
        numbers.pop(name, None)
    for name in ("representation", "projection"):
        dimensions = numbers.pop(f"{name}_dimensions")
        numbers[f"{name}_dead_share"] = numbers.pop(f"{name}_dead_dimensions") / dimensions
        numbers[f"{name}_rank_share"] = values[f"{name}_effective_rank"] / dimensions
    numbers |= {f"training: {name}": last[name] for name in OF_TRAINING}
    return numbers | {LINEAR: result["eval/linear_top_1_accuracy"]}


def rank_correlation(numbers: np.ndarray, accuracies: np.ndarray) -> str:
    """Spearman's rank correlation and its interval, over runs."""
    if len(numbers) < 3 or np.ptp(numbers) == 0:
        return "-"

    def of_runs(one: np.ndarray, other: np.ndarray) -> float:
        # A resample in which all runs have the same number tells nothing of an order.
        return stats.spearmanr(one, other).statistic if np.ptp(one) > 0 and np.ptp(other) > 0 else 0.0

    low, high = stats.bootstrap(
        (numbers, accuracies),
        of_runs,
        paired=True,
        vectorized=False,
        n_resamples=NUM_RESAMPLES,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return f"{of_runs(numbers, accuracies):+.2f} [{low:+.2f}, {high:+.2f}]"


def report(found: dict[str, dict[str, float]]) -> None:
    """Prints both tables."""
    names = [name for name in next(iter(found.values())) if name != LINEAR]
    shown = ("alignment", "uniformity", "representation_rankme", "projection_rankme", "knn_top_1_accuracy")
    print(f"\n| run | sick | {LINEAR} | " + " | ".join(shown) + " |")
    print("| --- " * (len(shown) + 3) + "|")
    for run, numbers in found.items():
        cells = [f"{numbers[name]:.3g}" if name in numbers else "-" for name in shown]
        print(
            f"| {run} | {'yes' if RUNS[run][1] else ''} | {100 * numbers[LINEAR]:.1f} % | " + " | ".join(cells) + " |"
        )
    healthy = [run for run in found if not RUNS[run][1]]
    print(f"\n| number | over all {len(found)} runs | over the {len(healthy)} that are not sick |\n| --- | --- | --- |")
    for name in names:
        columns = []
        for runs in (list(found), healthy):
            pairs = np.array([(found[run].get(name, np.nan), found[run][LINEAR]) for run in runs])
            columns.append(rank_correlation(*pairs.T))
        print(f"| {name} | {columns[0]} | {columns[1]} |")


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data_dir", help="the images, with labels; by default the embedded ones")
    parser.add_argument("--steps", type=at_least_1, default=200, help="steps of 256 images of every run")
    parser.add_argument("--runs", type=at_least_1, default=len(RUNS), help="how many of RUNS, from the first")
    parser.add_argument("--model_dir", default="runs/health")
    options = parser.parse_args()
    path = pathlib.Path(options.model_dir) / "ledger.json"
    ledger = Ledger(path, settings=to_dict(base_config(options)), runs=RUNS, steps=options.steps)
    found: dict[str, dict[str, float]] = ledger.values
    images = builders.build_sources(base_config(options), pathlib.Path(tempfile.mkdtemp()))
    tf.get_logger().setLevel("ERROR")  # Every model is traced, and TensorFlow takes them for one.
    print(f"{options.steps} steps of {BATCH} images, TensorFlow {tf.__version__}", flush=True)
    for name in list(RUNS)[: options.runs]:
        if name not in found:
            config = config_of(name, options, images.train.num_examples)
            ledger.write(**{name: run_case(config, images)})
            for part in ("features", "checkpoints"):  # They would take 100 MB for each run.
                shutil.rmtree(pathlib.Path(config.folder, part), ignore_errors=True)
        print(f"{name:24}{100 * found[name][LINEAR]:8.1f} %", flush=True)
    report({name: found[name] for name in list(RUNS)[: options.runs]})


if __name__ == "__main__":
    main()

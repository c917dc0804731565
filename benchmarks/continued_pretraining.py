"""Continued pretraining against pretraining from scratch and against the frozen start, at equal processor time.

    python benchmarks/continued_pretraining.py --checkpoint=runs/cifar10_lars --data_dir=flowers --seconds=2400
    python benchmarks/continued_pretraining.py --checkpoint=runs/shapes --seconds=60 --model_dir=runs/try

Takes the settings of configs/continue_photos_cpu.py, without --data_dir on the embedded data. Measures first what a
step costs, then gives both ways to start as many steps as fit into --seconds of processor time, for every seed. From
scratch, the learning rate is that of configs/cifar10_lars.py. Prints the accuracies on the test images, the difference
of the continued encoder to both others with its interval, and the processor time that the trainings took in fact. A
second start of the same command goes on where the first one stopped; what the second finds, it does not compute again.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.arguments import at_least_1  # noqa: E402
from benchmarks.ledger import Ledger  # noqa: E402
from tf_simclr import builders  # noqa: E402
from tf_simclr.evaluation.evaluate import evaluate  # noqa: E402
from tf_simclr.metrics import paired  # noqa: E402
from tf_simclr.runs import predictions  # noqa: E402
from tf_simclr.runs.folder import open_run  # noqa: E402
from tf_simclr.settings import RunConfig, override, to_dict  # noqa: E402
from tf_simclr.settings.command_line import load_config  # noqa: E402
from tf_simclr.training.train import train  # noqa: E402

WAYS = ("continued", "scratch")
# Steps of two trainings whose difference is free of what a start costs.
SHORT, LONG = 8, 24


def config_of(way: str, seed: int, options: argparse.Namespace) -> RunConfig:
    """The settings of a training; the number of steps is still open."""
    changes: dict[str, Any] = {"name": f"{way}_{seed}", "seed": seed, "model_dir": f"{options.model_dir}/{way}_{seed}"}
    changes["checkpoint"] = options.checkpoint if way == "continued" else None
    if options.data_dir is None:
        changes["data.dataset"] = "shapes"
    else:
        changes["data.data_dir"] = options.data_dir
    if way == "scratch":
        rate = load_config(ROOT / "configs" / "cifar10_lars.py").optimizer.base_learning_rate
        changes["optimizer.base_learning_rate"] = rate
    return override(load_config(ROOT / "configs" / "continue_photos_cpu.py"), changes)


def with_steps(config: RunConfig, steps: int) -> RunConfig:
    """The config with so many steps, of which the warm-up is at most a tenth."""
    images = builders.build_sources(config, pathlib.Path(tempfile.mkdtemp())).train.num_examples
    epochs = steps * config.global_batch_size(images) / images
    warmup = min(config.optimizer.warmup_epochs, epochs / 10)
    return override(config, {"train.steps": steps, "optimizer.warmup_epochs": warmup})


def seconds_of_training(config: RunConfig) -> float:
    """Trains to the end of the run; returns the processor time."""
    start = time.process_time()
    with open_run(config) as folder:
        train(config, builders.build_sources(config, folder), folder)
    return time.process_time() - start


def measure_step(options: argparse.Namespace) -> float:
    """Processor seconds of a step."""
    taken = []
    for steps in (SHORT, LONG):
        with tempfile.TemporaryDirectory() as folder:
            config = override(config_of("scratch", 0, options), {"model_dir": folder})
            taken.append(seconds_of_training(with_steps(config, steps)))
    return (taken[1] - taken[0]) / (LONG - SHORT)


def run_case(way: str, seed: int, options: argparse.Namespace, ledger: Ledger) -> dict[str, Any]:
    """Trains and evaluates; returns the result."""
    config = with_steps(config_of(way, seed, options), ledger.values["steps"])
    name, start = f"{way}_{seed}", time.process_time()
    try:
        with open_run(config) as folder:
            images = builders.build_sources(config, folder)
            model = train(config, images, folder)
    finally:  # A training that is stopped goes on later; its time counts in all.
        if not ledger.values.get(f"{name} is done"):
            ledger.write(**{name: ledger.values.get(name, 0.0) + time.process_time() - start})
    ledger.write(**{f"{name} is done": True})
    return evaluate(config, model, images.probe, images.test, folder)


def difference(seed: int, protocol: str, options: argparse.Namespace) -> str:
    """How much better the continued encoder is than the one from scratch, with the interval."""
    hits = []
    for way in WAYS:
        found = predictions.read(predictions.predictions_path(pathlib.Path(options.model_dir, f"{way}_{seed}")))
        hits.append(found[f"eval/{protocol}"].predicted == found[f"eval/{protocol}"].labels)
    low, high = paired.difference_interval(*hits)
    return f"{100 * (np.mean(hits[0]) - np.mean(hits[1])):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def report(seed: int, results: dict[str, dict[str, Any]], options: argparse.Namespace, ledger: Ledger) -> None:
    """Prints the rows of a seed."""
    continued, scratch = (results[way] for way in WAYS)
    for protocol in ("linear", "knn"):
        name = f"{protocol}_top_1"
        low, value, high = (100 * continued[f"eval_start/{name}_difference{end}"] for end in ("_low", "", "_high"))
        accuracies = (continued[f"eval_start/{name}_accuracy"], scratch[f"eval/{name}_accuracy"],
                      continued[f"eval/{name}_accuracy"])  # fmt: skip
        print(
            f"{seed:4}  {protocol:8}" + "".join(f"{100 * one:11.1f}" for one in accuracies)
            + f"{f'{value:+.1f} [{low:+.1f}, {high:+.1f}]':>24}{difference(seed, protocol, options):>24}",
            flush=True,
        )  # fmt: skip
    took = ", ".join(f"{way} {ledger.values[f'{way}_{seed}']:,.0f} s" for way in WAYS)
    print(f"      processor time of the trainings: {took}", flush=True)


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="the weights to start from, of the config's architecture")
    parser.add_argument("--data_dir", help="the images; by default the embedded ones")
    parser.add_argument("--seconds", type=at_least_1, required=True, help="processor time of each training")
    parser.add_argument("--seeds", type=at_least_1, default=2)
    parser.add_argument("--model_dir", default="runs/continued_pretraining")
    options = parser.parse_args()
    settings = [to_dict(config_of(way, 0, options)) for way in WAYS]
    ledger = Ledger(pathlib.Path(options.model_dir) / "ledger.json", settings=settings, seconds=options.seconds)
    if "steps" not in ledger.values:
        seconds = measure_step(options)
        ledger.write(steps=max(2, int(options.seconds / seconds)), **{"seconds of a step": seconds})
    print(
        f"{ledger.values['steps']} steps of {ledger.values['seconds of a step']:.3f} s of processor time, "
        f"TensorFlow {tf.__version__}\n"
        f"{'seed':>4}  {'top-1, %':8}{'the start':>11}{'scratch':>11}{'continued':>11}{'over the start':>24}"
        f"{'over scratch':>24}",
        flush=True,
    )
    for seed in range(options.seeds):
        report(seed, {way: run_case(way, seed, options, ledger) for way in WAYS}, options, ledger)


if __name__ == "__main__":
    main()

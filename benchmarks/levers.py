"""What a setting is worth, at equal processor time: linear and kNN accuracy of short runs, several seeds.

    python benchmarks/levers.py --data_dir=cifar10 --seconds=240 --cases=as_it_is,views_4,views_8
    python benchmarks/levers.py --seconds=20 --seeds=1 --model_dir=runs/try

Takes the settings of configs/cifar10_lars.py, without --data_dir on the embedded data, and changes one thing a case;
CASES says what. --set=optimizer.name=muon, as of run.py, changes a setting in all cases, unless this program sets it.
The peak learning rate is that of the config whatever the batch, unless the case changes it.

First, steps of all cases take turns, and the processor time of each is measured. Then every case is trained for as many
steps as take --seconds of processor time, with a warm-up of a tenth of them and a cosine schedule that ends with them.
Building the graph takes more, as the table shows. Each encoder is evaluated by kNN and linearly. A second start of the
same command goes on with the first run that is not finished, from its beginning.
"""

import argparse
import itertools
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.arguments import at_least_1, names  # noqa: E402
from benchmarks.ledger import Ledger  # noqa: E402
from tf_simclr import builders  # noqa: E402
from tf_simclr.data import batches  # noqa: E402
from tf_simclr.evaluation.evaluate import evaluate  # noqa: E402
from tf_simclr.keras import keras  # noqa: E402
from tf_simclr.runs import models  # noqa: E402
from tf_simclr.runs.folder import open_run  # noqa: E402
from tf_simclr.settings import RunConfig, override, to_dict  # noqa: E402
from tf_simclr.settings.command_line import load_config, parse_assignments  # noqa: E402
from tf_simclr.training.train import train  # noqa: E402

SIZE = "train.global_batch_size"
VIEWS, SMALL, SMALL_PX = "augmentation.num_views", "augmentation.num_small_views", "augmentation.small_view_size"
RATE, OPTIMIZER, DECAY = "optimizer.base_learning_rate", "optimizer.name", "optimizer.weight_decay"
# What a case changes. The batch of the small embedded data is a quarter of these.
CASES: dict[str, dict[str, Any]] = {
    "as_it_is": {},
    # As many views a step as before: the more of an image, the fewer images.
    "views_4": {VIEWS: 4, SIZE: 128},
    "views_8": {VIEWS: 8, SIZE: 64},
    "small_views_4": {SMALL: 4, SMALL_PX: 16, SIZE: 128},
    # As many images a step as before.
    "views_4_batch_256": {VIEWS: 4},
    "small_views_4_batch_256": {SMALL: 4, SMALL_PX: 16},
    "batch_512": {SIZE: 512},
    "batch_128": {SIZE: 128},
    "temperature_0.5": {"model.temperature": 0.5},
    "temperature_0.1": {"model.temperature": 0.1},
    "rate_6": {RATE: 6.0},
    "rate_1.5": {RATE: 1.5},
    "adamw": {OPTIMIZER: "adamw", RATE: 2e-3, DECAY: 1e-2},
    "muon": {OPTIMIZER: "muon", RATE: 2.4e-2, DECAY: 1e-2},
    "momentum": {OPTIMIZER: "momentum", RATE: 0.1},
    "decay_0.05": {DECAY: 0.05},
    "decay_0.15": {DECAY: 0.15},
    "decay_0.4": {DECAY: 0.4},
    "view_16": {"augmentation.view_size": 16},
    "view_20": {"augmentation.view_size": 20},
    "view_32": {"augmentation.view_size": 32},
    "crop_0.08": {"augmentation.crop_min_area": 0.08},
    "grayscale_0.1": {"augmentation.grayscale_probability": 0.1},
    "jitter_1": {"augmentation.color_jitter_strength": 1.0},
    "jitter_0.25": {"augmentation.color_jitter_strength": 0.25},
    "blur_0.5": {"augmentation.blur_probability": 0.5},
    "width_1.5": {"model.width_multiplier": 1.5},
    "width_2": {"model.width_multiplier": 2.0},
    "depth_18": {"model.resnet_depth": 18},
    "groups_4": {"model.num_groups": 4},
    "stem_cifar": {"model.stem": "cifar"},
    # Otherwise, the head would be as wide inside.
    "final_1024": {"model.final_width": 1024, "model.proj_hidden_dim": 256},
    "squeeze": {"model.se_ratio": 0.0625},
    "head_3": {"model.num_proj_layers": 3},
    "hidden_1024": {"model.proj_hidden_dim": 1024},
    "memory_4096": {"model.memory_size": 4096},
}
# What all runs have in common.
FIXED = {
    "optimizer.learning_rate_scaling": "none",
    "train.checkpoint_epochs": 1000,
    "train.health": False,
    "eval.protocols": ("knn", "linear"),
    "eval.baselines": False,
}
OWN = {*FIXED, "seed", "model_dir", "data.dataset", "data.data_dir", "optimizer.warmup_epochs", "train.steps"}
OWN |= {"train.steps_per_execution"}  # Callbacks are called after every one of these.
WARMUP_SHARE = 0.1
ROUNDS, STEPS_PER_ROUND = 3, 8


def config_of(case: str, options: argparse.Namespace, num_examples: int, steps: int = 1, seed: int = 0) -> RunConfig:
    """The settings of a run."""
    base = base_config(options)
    changes = {SIZE: base.train.global_batch_size} | CASES[case]
    changes[SIZE] //= 1 if options.data_dir else 4
    changes |= FIXED | {
        "seed": seed,
        "model_dir": os.path.join(options.model_dir, f"{case}_{seed}"),
        "optimizer.warmup_epochs": WARMUP_SHARE * steps * changes[SIZE] / num_examples,
        "train.steps": steps,
    }
    return override(base, changes)


def base_config(options: argparse.Namespace) -> RunConfig:
    """The settings without a change."""
    place = {"data.dataset": "folder" if options.data_dir else "shapes", "data.data_dir": options.data_dir}
    return override(load_config(ROOT / "configs" / "cifar10_lars.py"), place | options.set)


class ProcessorClock(keras.callbacks.Callback):
    """Takes the processor time of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._start = time.process_time()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.seconds.append(time.process_time() - self._start)


def measure_steps(cases: list[str], options: argparse.Namespace, source: Any) -> dict[str, float]:
    """Seconds of processor time of a step of every case: the median over rounds in which the cases take turns."""
    trained = {}
    for case in cases:
        config = config_of(case, options, source.num_examples)
        model = models.initial_model(config, source.num_examples, source.num_classes)
        dataset = batches.train_dataset(
            source,
            global_batch_size=config.global_batch_size(source.num_examples),
            seed=config.seed,
            total_steps=1 << 20,
            augmentation=model.augmentation,
            small_views=model.small_views,
        )
        model.fit(dataset, steps_per_epoch=2, verbose=0)  # The first step builds the graph.
        trained[case] = (model, dataset, ProcessorClock())
    for _ in range(ROUNDS):
        for model, dataset, clock in trained.values():
            model.fit(dataset, steps_per_epoch=STEPS_PER_ROUND, verbose=0, callbacks=[clock])
    return {case: statistics.median(clock.seconds) for case, (_, _, clock) in trained.items()}


def run_case(config: RunConfig, images: builders.Sources) -> dict[str, float]:
    """Trains and evaluates; returns the numbers."""
    keras.backend.clear_session()
    shutil.rmtree(config.folder, ignore_errors=True)  # Of a run that was stopped, whose time is not known.
    with open_run(config) as folder:
        start = time.process_time()
        model = train(config, images, folder)
        seconds = time.process_time() - start
        result = evaluate(config, model, images.probe, images.test, folder)
    for part in ("features", "checkpoints"):  # They would take 100 MB for each run.
        shutil.rmtree(folder / part, ignore_errors=True)
    names = [f"eval/{protocol}_top_1_accuracy" for protocol in ("linear", "knn")]
    return {"seconds": seconds} | {
        f"{name}{end}": result[f"{name}{end}"] for name in names for end in ("", "_low", "_high")
    }


def report(
    values: dict[str, Any], cases: list[str], seeds: int, options: argparse.Namespace, num_examples: int
) -> None:
    """Prints the table of the runs that are finished."""
    print("\n| case | batch | steps | images seen | epochs | processor time, graph included | linear | kNN |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |")
    for case in cases:
        found = [values[key] for seed in range(seeds) if (key := f"{case}, seed {seed}") in values]
        if not found:
            continue
        config = config_of(case, options, num_examples)
        steps, size = steps_of(values["seconds per step"][case], options), config.global_batch_size(num_examples)
        seconds = ", ".join(f"{one['seconds']:.0f}" for one in found)
        cells = [
            ", ".join(
                f"{100 * one[name]:.1f} [{100 * one[f'{name}_low']:.1f}, {100 * one[f'{name}_high']:.1f}]"
                for one in found
            )
            for name in ("eval/linear_top_1_accuracy", "eval/knn_top_1_accuracy")
        ]
        print(
            f"| {case} | {size} | {steps} | {steps * size:,} | {steps * size / num_examples:.1f} | {seconds} s | "
            f"{cells[0]} % | {cells[1]} % |",
            flush=True,
        )


def steps_of(seconds_per_step: float, options: argparse.Namespace) -> int:
    """The steps that fit into the time."""
    return max(10, int(options.seconds / seconds_per_step))


def parse_set(parser: argparse.ArgumentParser, assignments: list[str], own: set[str]) -> dict[str, Any]:
    """The settings of --set, which must be none of the program's own."""
    try:
        found = parse_assignments(assignments)
    except ValueError as error:
        parser.error(str(error))
    if fixed := sorted(own & found.keys()):
        parser.error(f"--set: this program sets it itself. Received: {', '.join(fixed)}")
    return found


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data_dir", help="the images, with labels; by default the embedded ones")
    parser.add_argument("--seconds", type=at_least_1, default=240, help="processor time of the training steps of a run")
    parser.add_argument("--seeds", type=at_least_1, default=2)
    parser.add_argument("--cases", default=",".join(list(CASES)[:4]), help=f"of {', '.join(CASES)}")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of all cases")
    parser.add_argument("--model_dir", default="runs/levers", help="one for each --set; it keeps what was measured")
    options = parser.parse_args()
    options.set = parse_set(parser, options.set, OWN)
    cases = names(parser, options.cases, CASES)
    path = pathlib.Path(options.model_dir) / f"ledger_{options.seconds}.json"
    ledger = Ledger(path, settings=to_dict(base_config(options)))
    changes = ledger.values.get("changes", {})
    if stale := [case for case, change in changes.items() if change != CASES.get(case)]:
        parser.error(f"{path} is of other cases of these names: use another --model_dir. Received: {', '.join(stale)}")
    images = builders.build_sources(base_config(options), pathlib.Path(tempfile.mkdtemp()))
    tf.get_logger().setLevel("ERROR")  # Every model is traced, and TensorFlow takes them for one.
    num_examples = images.train.num_examples
    print(f"{num_examples:,} images, {options.seconds} s of processor time, TensorFlow {tf.__version__}", flush=True)
    known: dict[str, float] = ledger.values.get("seconds per step", {})
    if unmeasured := [case for case in cases if case not in known]:
        # Beside one that is known, for the machine may be slower or faster now.
        shared = list(known)[:1]
        measured = measure_steps([*shared, *unmeasured], options, images.train)
        ratio = known[shared[0]] / measured[shared[0]] if shared else 1.0
        known |= {case: ratio * measured[case] for case in unmeasured}
        ledger.write(**{"seconds per step": known, "changes": {case: CASES[case] for case in known}})
    for case in cases:
        seconds = known[case]
        print(f"{case:24}{seconds:8.3f} s per step, {steps_of(seconds, options):6,} steps", flush=True)
    for case, seed in itertools.product(cases, range(options.seeds)):
        key = f"{case}, seed {seed}"
        if key not in ledger.values:
            steps = steps_of(known[case], options)
            ledger.write(**{key: run_case(config_of(case, options, num_examples, steps, seed), images)})
        numbers = ledger.values[key]
        print(f"{key:34}{100 * numbers['eval/linear_top_1_accuracy']:6.1f} % {numbers['seconds']:6.0f} s", flush=True)
    report(ledger.values, cases, options.seeds, options, num_examples)


if __name__ == "__main__":
    main()

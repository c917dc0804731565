"""What tricks from fast training recipes are worth that are no settings: linear and kNN accuracy, for equal work.

    python benchmarks/tricks.py --data_dir=cifar10 --tricks=none,frozen_whitening,views_16_24
    python benchmarks/tricks.py --steps=20 --tricks=none,whitening

The settings are those of configs/cifar10_lars.py with Muon, as in levers.py; --set changes one. A trick is a function
below, which changes the model before it is trained, or is called after every step.

All are trained for the same number of steps, except those that change the size of the views: they get the processor
time of the others, by a few steps of each size that are measured first. The learning rate warms up for a tenth of the
steps.
"""

import argparse
import dataclasses
import itertools
import math
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.arguments import at_least_1, names  # noqa: E402
from benchmarks.levers import OWN, base_config, config_of, measure_steps, parse_set  # noqa: E402
from benchmarks.time_to_accuracy import accuracies  # noqa: E402
from tf_simclr import builders  # noqa: E402
from tf_simclr.augment import Augmentation, RandomFlip  # noqa: E402
from tf_simclr.data import batches  # noqa: E402
from tf_simclr.evaluation.evaluate import evaluate  # noqa: E402
from tf_simclr.keras import keras  # noqa: E402
from tf_simclr.models.simclr import SimCLR  # noqa: E402
from tf_simclr.runs import models  # noqa: E402
from tf_simclr.runs.folder import open_run  # noqa: E402
from tf_simclr.schedules import WarmupCosine  # noqa: E402
from tf_simclr.settings import RunConfig  # noqa: E402

MUON = {"optimizer.name": "muon", "optimizer.base_learning_rate": 0.024, "optimizer.weight_decay": 0.15}
# Not to be set, besides levers.OWN: the sizes, since tricks change them, and the number of the views.
VIEWS = {"data.image_size", "augmentation.view_size", "augmentation.num_views", "augmentation.num_small_views"}


@dataclasses.dataclass
class Trial:
    """What a trick may change.

    Attributes:
      model: The model, built, not yet trained.
      batch: Images to train on.
      steps: How many it is trained for.
      callbacks: Are called after every step.
      averages: More weights of the encoder to judge, by name.
    """

    model: SimCLR
    batch: dict[str, tf.Tensor]
    steps: int
    callbacks: list[keras.callbacks.Callback] = dataclasses.field(default_factory=list)
    averages: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)


class AfterStep(keras.callbacks.Callback):
    """Calls a function after every step, with the number of steps so far."""

    def __init__(self, function: Callable[[int], None]):
        super().__init__()
        self._function = function

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._function(int(self.model.optimizer.iterations.numpy()))


class WarmupLinear(WarmupCosine):
    """Falls along a line."""

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        rest = (self.total_steps - step) / (self.total_steps - self.warmup_steps)
        return self.peak_learning_rate * tf.clip_by_value(tf.minimum(step / max(self.warmup_steps, 1), rest), 0.0, 1.0)


def nothing(trial: Trial) -> None:
    """The settings as they are."""


def whitening(trial: Trial) -> None:
    """The first convolution starts at the whitened principal components of the views' patches, of both signs.

    Source: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024), where they stay there; the same for
    `identity`, `fast_offsets`, `lookahead` and `flips_in_turn`.
    """
    kernel = kernels(trial.model)[0]
    height, width, channels, filters = kernel.shape
    ones = [1, 1, 1, 1]
    patches = tf.image.extract_patches(trial.model.make_views(trial.batch), [1, height, width, 1], ones, ones, "VALID")
    values, vectors = np.linalg.eigh(np.cov(tf.reshape(patches, [-1, height * width * channels]).numpy().T))
    components = (vectors / np.sqrt(values + 5e-4))[:, ::-1][:, : filters // 2]
    start = kernel.numpy().reshape(-1, filters)  # Filters that are left over stay random.
    start[:, : 2 * components.shape[1]] = np.concatenate([components, -components], axis=1)
    kernel.assign(start.reshape(kernel.shape))


def frozen_whitening(trial: Trial) -> None:
    """The same, and it stays there."""
    whitening(trial)
    scale_steps(trial, kernels(trial.model)[:1], 0.0)


def identity(trial: Trial) -> None:
    """The first filters of every 3x3 convolution but the first start at the identity."""
    for kernel in kernels(trial.model)[1:]:
        if kernel.shape[0] == 3:
            start, count = kernel.numpy(), min(kernel.shape[2:])
            start[..., :count] = 0
            start[1, 1, range(count), range(count)] = 1
            kernel.assign(start)


def fast_offsets(trial: Trial) -> None:
    """The offsets of batch norm make steps eight times as long."""
    scale_steps(trial, [one for one in trial.model.encoder.trainable_variables if "beta" in one.name], 8.0)


def lookahead(trial: Trial) -> None:
    """Every fifth step, all weights go back to an average, which is close to them at first and moves ever less."""
    variables = trial.model.trainable_variables
    slow = [variable.numpy() for variable in variables]

    def update(step: int) -> None:
        if step % 5 == 0:
            kept = 0.95**5 * (step / trial.steps) ** 3
            for i, variable in enumerate(variables):
                slow[i] = kept * slow[i] + (1 - kept) * variable.numpy()
                variable.assign(slow[i])

    trial.callbacks.append(AfterStep(update))


def averages(trial: Trial) -> None:
    """Exponential moving averages of the encoder's weights are judged as well."""
    variables = trial.model.encoder.variables

    def update(step: int) -> None:
        del step
        now = [variable.numpy() for variable in variables]
        for decay in (0.99, 0.998):
            kept = trial.averages.get(f"average of {decay}", now)
            trial.averages[f"average of {decay}"] = [
                decay * old + (1 - decay) * new for old, new in zip(kept, now, strict=True)
            ]

    trial.callbacks.append(AfterStep(update))


def flips_in_turn(trial: Trial) -> None:
    """The two views of an image are mirrored in turn: in four epochs, each of the four ways once."""
    augmentation = trial.model.augmentation
    branches = tuple(tuple(one for one in chain if not isinstance(one, RandomFlip)) for chain in augmentation.branches)
    trial.model.augmentation = FlipsInTurn(augmentation.image_size, branches, augmentation.seed)


class FlipsInTurn(Augmentation):
    """Two views of every image, and which of them are mirrored, by the epoch and a start of each image's own."""

    def __call__(self, images: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        views = super().__call__(images, keys)
        start = tf.bitwise.right_shift(keys[:, 1] * 2654435761, 16)
        turn = tf.math.floormod(keys[:, 0] + start, 4)
        flips = tf.concat([turn % 2, turn // 2], axis=0) == 1
        return tf.where(flips[:, tf.newaxis, tf.newaxis, tf.newaxis], tf.reverse(views, [2]), views)


def straight_decay(trial: Trial) -> None:
    """The learning rate falls along a line in place of a cosine."""
    optimizer = trial.model.optimizer
    optimizer.learning_rate = WarmupLinear(**optimizer.get_config()["learning_rate"]["config"])


def of_size(*phases: tuple[int, float]) -> "Trick":
    return Trick(nothing, phases)


@dataclasses.dataclass(frozen=True)
class Trick:
    """A trick.

    Attributes:
      apply: Changes a trial.
      phases: Sides of the views in pixels, and the share of the time that is trained with them.
    """

    apply: Callable[[Trial], None]
    phases: tuple[tuple[int, float], ...] = ((24, 1.0),)


TRICKS = {
    "none": Trick(nothing),
    "whitening": Trick(whitening),
    "frozen_whitening": Trick(frozen_whitening),
    "identity": Trick(identity),
    "fast_offsets": Trick(fast_offsets),
    "lookahead": Trick(lookahead),
    "averages": Trick(averages),
    "flips_in_turn": Trick(flips_in_turn),
    "straight_decay": Trick(straight_decay),
    "views_16": of_size((16, 1.0)),
    "views_16_24": of_size((16, 0.4), (24, 0.6)),
    "views_20_32": of_size((20, 0.7), (32, 0.3)),
    "views_24_32": of_size((24, 0.8), (32, 0.2)),
}


def kernels(model: SimCLR) -> list[tf.Variable]:
    """The kernels of the encoder's convolutions."""
    return [variable for variable in model.encoder.trainable_variables if variable.shape.rank == 4]


def scale_steps(trial: Trial, variables: list[tf.Variable], factor: float) -> None:
    """Makes the steps of some variables longer or shorter."""
    before = [variable.numpy() for variable in variables]

    def update(step: int) -> None:
        del step
        for i, variable in enumerate(variables):
            before[i] = before[i] + factor * (variable.numpy() - before[i])
            variable.assign(before[i])

    trial.callbacks.append(AfterStep(update))


def batches_of(model: SimCLR, config: RunConfig, source: Any, side: int, start_step: int = 0) -> tf.data.Dataset:
    """Batches to train on from a step on, with views of this side."""
    model.augmentation = dataclasses.replace(model.augmentation, image_size=side)
    model.train_function = None  # It was traced for another side.
    return batches.train_dataset(
        source,
        global_batch_size=config.global_batch_size(source.num_examples),
        seed=config.seed,
        start_step=start_step,
        total_steps=1 << 20,
        augmentation=model.augmentation,
    )


def steps_of(trick: Trick, options: argparse.Namespace, seconds: dict[int, float]) -> list[tuple[int, int]]:
    """Sides of the views, and how many steps are trained with them."""
    return [(side, math.ceil(options.steps * share * seconds[24] / seconds[side])) for side, share in trick.phases]


def run(name: str, seed: int, options: argparse.Namespace, images: Any, seconds: dict[int, float]) -> None:
    """Trains and evaluates, and prints what was reached."""
    keras.backend.clear_session()
    source, trick = images.train, TRICKS[name]
    phases = steps_of(trick, options, seconds)
    total = sum(steps for _, steps in phases)
    config = config_of("as_it_is", options, source.num_examples, total, seed)
    with open_run(config) as folder:
        start = time.process_time()
        model = models.initial_model(config, source.num_examples, source.num_classes)
        batch, *_ = next(iter(batches_of(model, config, source, phases[0][0])))  # The images have labels.
        trial = Trial(model, batch, total)
        trick.apply(trial)
        done = 0
        for side, steps in phases:
            dataset = batches_of(model, config, source, side, done)
            model.fit(dataset, steps_per_epoch=steps, verbose=0, callbacks=trial.callbacks)
            done += steps
        taken = time.process_time() - start
        result = evaluate(config, model, images.probe, images.test, folder)
        print(f"{name}, seed {seed}: {accuracies(result)} after {total:,} steps, {taken:,.0f} s", flush=True)
        for title, weights in trial.averages.items():
            for variable, value in zip(model.encoder.variables, weights, strict=True):
                variable.assign(value)
            result = evaluate(config, model, images.probe, images.test, folder)
            print(f"{name}, seed {seed}, {title}: {accuracies(result)}", flush=True)
    shutil.rmtree(folder)


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data_dir", help="the images, with labels; by default the embedded ones")
    parser.add_argument("--steps", type=at_least_1, default=1790, help="training steps, with views of 24 px")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--tricks", default="none,whitening", help=f"of {', '.join(TRICKS)}")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of all")
    options = parser.parse_args()
    options.set = MUON | parse_set(parser, options.set, OWN | VIEWS)
    options.tricks = names(parser, options.tricks, TRICKS)
    return options


def main() -> None:
    """Runs the tricks one after the other."""
    options, seconds = parse(), {24: 1.0}
    with tempfile.TemporaryDirectory() as options.model_dir:
        images = builders.build_sources(base_config(options), pathlib.Path(options.model_dir))
        tf.get_logger().setLevel("ERROR")  # Every model is traced, and TensorFlow takes them for one.
        sides = {side for name in options.tricks for side, _ in TRICKS[name].phases}
        if sides != {24}:
            cases = {side: "as_it_is" if side == 24 else f"view_{side}" for side in sorted(sides | {24})}
            measured = measure_steps(list(cases.values()), options, images.train)
            seconds = {side: measured[case] for side, case in cases.items()}
            for side, value in seconds.items():
                print(f"views of {side} px: {value:.3f} s per step", flush=True)
        for name, seed in itertools.product(options.tricks, map(int, options.seeds.split(","))):
            run(name, seed, options, images, seconds)


if __name__ == "__main__":
    main()

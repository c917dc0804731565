"""Speed of the full train step against the bare encoder, and what the augmentation costs.

    python benchmarks/step_time.py --precision=float32
    python benchmarks/step_time.py --precision=mixed_bfloat16

Times, taking turns so that a busy machine slows all alike:
  bare step      forward and backward pass of the encoder on 2N random views: mean of squares, all gradients;
  full step      `SimCLR.train_step` as `fit` compiles it, on N uint8 images in memory: augmentation, encoder,
                 projection head, NT-Xent, LARS update, metrics;
  augmentation   the views of that step alone, with every operator on (blur as well).
Prints views per second and, round by round, the full step's share of the bare speed and the augmentation's
share of the full step's time.
"""

import argparse
import os
import pathlib
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from tf_simclr import LARS, ProjectionHead, SimCLR, resnet  # noqa: E402
from tf_simclr.keras import keras  # noqa: E402

NUM_WARMUP_ROUNDS = 2
# The augmentation is so much shorter than a step that one call of it would be timed badly.
CALLS_PER_ROUND = {"bare step": 1, "full step": 1, "augmentation": 5}


def make_bare_step(options: argparse.Namespace) -> Callable[[], object]:
    """Forward and backward pass of the encoder alone."""
    encoder = make_encoder(options)
    shape = (2 * options.batch, options.image_size, options.image_size, 3)
    views = tf.random.stateless_uniform(shape, seed=(0, 1))

    @tf.function
    def bare_step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(encoder(views, training=True)))
        # All are returned, because TensorFlow leaves out what no output needs.
        return tape.gradient(loss, encoder.trainable_variables)

    # The stem's gradient is the last of the backward pass: reading it waits for all, on accelerators too.
    return lambda: bare_step()[0].numpy()


def make_full_step(options: argparse.Namespace) -> tuple[Callable[[], object], Callable[[], object]]:
    """The train step as `fit` runs it, and its augmentation alone."""
    shape = (options.batch, options.image_size, options.image_size, 3)
    images = tf.constant(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    model = SimCLR(make_encoder(options), ProjectionHead(), image_size=options.image_size)
    model.compile(optimizer=LARS(0.1, weight_decay=1e-4))
    train_function = model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors(images).repeat())
    make_views = tf.function(model.make_views)
    return (
        lambda: train_function(batches)["loss"].numpy(),
        lambda: make_views(images)[0, 0, 0, 0].numpy(),
    )


def make_encoder(options: argparse.Namespace) -> keras.Model:
    """The encoder that both steps run."""
    return resnet(options.depth, options.width, options.stem, image_size=options.image_size, dtype=options.precision)


def measure(candidates: dict[str, Callable[[], object]], num_rounds: int) -> dict[str, np.ndarray]:
    """Seconds per call of every candidate, one number for each round."""
    seconds = np.empty((NUM_WARMUP_ROUNDS + num_rounds, len(candidates)))
    for row in seconds:
        for column, (name, run) in enumerate(candidates.items()):
            start = time.perf_counter()
            for _ in range(CALLS_PER_ROUND[name]):
                run()
            row[column] = (time.perf_counter() - start) / CALLS_PER_ROUND[name]
    return dict(zip(candidates, seconds[NUM_WARMUP_ROUNDS:].T, strict=True))


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--depth", type=int, default=18)
    parser.add_argument("--stem", default="cifar", help="cifar, strided or imagenet")
    parser.add_argument("--width", type=float, default=1.0, help="multiplier of the encoder's channels")
    parser.add_argument("--batch", type=int, default=64, help="images per step, N; there are 2N views")
    parser.add_argument("--image_size", type=int, default=32, help="pixels of images and views")
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()

    full_step, augmentation = make_full_step(options)
    candidates = {"bare step": make_bare_step(options), "full step": full_step, "augmentation": augmentation}
    seconds = measure(candidates, options.rounds)

    columns = {name: 2 * options.batch / values for name, values in seconds.items()}
    columns["full / bare"] = seconds["bare step"] / seconds["full step"]
    columns["augmentation / full"] = seconds["augmentation"] / seconds["full step"]
    print(
        f"ResNet-{options.depth}, width {options.width:g}, {options.stem} stem, {options.image_size} px, "
        f"{2 * options.batch} views, {options.precision}, TensorFlow {tf.__version__}"
    )
    print("views/s ", *(f"{name:>12}" for name in columns), sep="  ")
    rounds = [f"round {number}" for number in range(1, options.rounds + 1)]
    for label, *row in zip(rounds, *columns.values(), strict=True):
        print_row(label, row)
    print_row("median", [float(np.median(values)) for values in columns.values()])


def print_row(label: str, values: list[float]) -> None:
    """A line of the table: three speeds, two shares."""
    speeds, (share, cost) = values[:3], values[3:]
    print(f"{label:8}", *(f"{speed:12,.0f}" for speed in speeds), f"{share:12.1%}", f"{cost:19.1%}", sep="  ")


if __name__ == "__main__":
    main()

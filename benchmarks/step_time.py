"""Training speed against the bare encoder, and against training as the reference implementation does it.

    python benchmarks/step_time.py --precision=float32
    python benchmarks/step_time.py --precision=mixed_bfloat16
    python benchmarks/step_time.py --precision=mixed_bfloat16 --depth=50 --image_size=224 --stem=imagenet --batch=16

Times, taking turns so that a busy machine slows all alike:
  bare step      forward and backward pass of the encoder on 2N random views: mean of squares, all gradients;
  full step      `SimCLR.train_step` as `fit` compiles it, on N uint8 images in memory: augmentation, encoder,
                 projection head, NT-Xent, LARS update, metrics;
  fit loop       `fit` with the callbacks of a run, on batches of `train_dataset`, 4 steps at a time;
  reference      the reference's way: float32, every view made by tf.image in tf.data, one image at a time (on all
                 cores, but not while another candidate is timed), then a loop of 4 steps in one tf.function;
  augmentation   the views of the full step alone.
Prints views per second and, round by round, the ratios.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.arguments import at_least_1  # noqa: E402
from benchmarks.input_pipeline import plain_input  # noqa: E402
from tf_simclr import LARS, NTXent, ProjectionHead, SimCLR, resnet  # noqa: E402
from tf_simclr.augment import Augmentation, simclr_chain  # noqa: E402
from tf_simclr.data import sources  # noqa: E402
from tf_simclr.data.batches import train_dataset  # noqa: E402
from tf_simclr.data.batches.waiting import WaitClock  # noqa: E402
from tf_simclr.keras import keras  # noqa: E402
from tf_simclr.models.resnet import DEPTHS, STEM_STRIDES  # noqa: E402
from tf_simclr.runs.cadence import Cadence  # noqa: E402
from tf_simclr.training.callbacks import StopOnNaN  # noqa: E402
from tf_simclr.training.progress import Progress  # noqa: E402

NUM_WARMUP_ROUNDS = 2
NUM_BATCHES = 8
STEPS_PER_LOOP = 4
# Steps per call. The augmentation is so much shorter than a step that timing a single call would be inaccurate.
STEPS = {"bare step": 1, "full step": 1, "fit loop": STEPS_PER_LOOP, "reference": STEPS_PER_LOOP, "augmentation": 1}
CALLS_PER_ROUND = {"augmentation": 5}


def make_bare_step(options: argparse.Namespace) -> Callable[[], object]:
    """Forward and backward pass of the encoder alone."""
    encoder = make_encoder(options, options.precision)
    shape = (2 * options.batch, options.image_size, options.image_size, 3)
    views = tf.random.stateless_uniform(shape, seed=(0, 1))

    @tf.function
    def bare_step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(encoder(views, training=True)))
        # Returns all gradients, because TensorFlow prunes what no output needs.
        return tape.gradient(loss, encoder.trainable_variables)

    # The stem's gradient is the last in the backward pass: reading it waits for all others, on accelerators too.
    return lambda: bare_step()[0].numpy()


def make_full_step(options: argparse.Namespace) -> tuple[Callable[[], object], Callable[[], object]]:
    """The train step as `fit` runs it, and its augmentation alone."""
    images = tf.constant(make_images(options)[: options.batch])
    model = make_model(options)
    train_function = model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors(images).repeat())
    make_views = tf.function(model.make_views)
    return (
        lambda: train_function(batches)["loss"].numpy(),
        lambda: make_views(images)[0, 0, 0, 0].numpy(),
    )


class Turns(keras.callbacks.Callback):
    """Lets `fit`, which runs in a thread, make some steps at a time."""

    def __init__(self):
        super().__init__()
        self._may_go, self._is_done = threading.Semaphore(0), threading.Semaphore(0)

    def on_train_batch_begin(self, batch, logs=None):
        if batch % STEPS_PER_LOOP == 0:
            self._may_go.acquire()

    def on_train_batch_end(self, batch, logs=None):
        if (batch + 1) % STEPS_PER_LOOP == 0:
            self._is_done.release()

    def take(self):
        self._may_go.release()
        self._is_done.acquire()


def make_fit_loop(options: argparse.Namespace, folder: pathlib.Path) -> Callable[[], object]:
    """`fit` as a run calls it, paused between the calls."""
    model = make_model(options)
    wait_clock = WaitClock()
    steps = (NUM_WARMUP_ROUNDS + options.rounds) * STEPS_PER_LOOP
    dataset = train_dataset(
        sources.ArraySource(make_images(options)),
        global_batch_size=options.batch,
        seed=0,
        total_steps=steps,
        augmentation=model.augmentation,
    )
    cadence = Cadence(every=10, total=steps)
    progress = Progress(
        folder,
        start_step=0,
        cadence=cadence,
        steps_per_epoch=NUM_BATCHES,
        global_batch_size=options.batch,
        every_seconds=10.0,
        wait_clock=wait_clock,
    )
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(model=model), str(folder), max_to_keep=1)
    turns = Turns()
    arguments = {
        "steps_per_epoch": steps,
        "verbose": 0,
        "callbacks": [turns, StopOnNaN(manager, start_step=0, cadence=cadence), progress],
    }
    threading.Thread(target=model.fit, args=(wait_clock.watch(dataset),), kwargs=arguments, daemon=True).start()
    return turns.take


def make_reference_loop(options: argparse.Namespace) -> Callable[[], object]:
    """Training as the reference implementation does it: float32, views made one by one in the input pipeline."""
    encoder, head = make_encoder(options, "float32"), ProjectionHead()
    source = sources.ArraySource(make_images(options))
    batches, finish_views = plain_input(source, options.image_size, options.batch, works_ahead=False)
    iterator = iter(batches)
    optimizer, compare = LARS(0.1, weight_decay=1e-4), NTXent()
    loss_mean = keras.metrics.Mean()

    def step(views: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss, _ = compare(head(encoder(views, training=True), training=True))
        variables = encoder.trainable_variables + head.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        loss_mean.update_state(loss)

    @tf.function
    def steps() -> None:
        for _ in tf.range(STEPS_PER_LOOP):
            views = finish_views(*next(iterator))
            step(tf.ensure_shape(views, (2 * options.batch, options.image_size, options.image_size, 3)))

    head(encoder(tf.zeros((2, options.image_size, options.image_size, 3))))
    optimizer.build(encoder.trainable_variables + head.trainable_variables)

    def run() -> float:
        steps()
        return loss_mean.result().numpy()

    return run


def make_model(options: argparse.Namespace) -> SimCLR:
    """The compiled model; small images are not blurred, as in the recipe for CIFAR-10."""
    size = options.image_size
    chain = simclr_chain(blur_probability=0.5 if size > 32 else 0.0)
    augmentation = Augmentation(size, branches=(chain, chain))
    encoder = make_encoder(options, options.precision)
    model = SimCLR(encoder, ProjectionHead(), image_size=size, augmentation=augmentation)
    model.compile(optimizer=LARS(0.1, weight_decay=1e-4))
    return model


def make_images(options: argparse.Namespace) -> np.ndarray:
    """Images for several batches; their content does not affect the time."""
    shape = (NUM_BATCHES * options.batch, options.image_size, options.image_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def make_encoder(options: argparse.Namespace, precision: str) -> keras.Model:
    """The encoder that all candidates run."""
    return resnet(options.depth, options.width, options.stem, image_size=options.image_size, dtype=precision)


def measure(candidates: dict[str, Callable[[], object]], num_rounds: int) -> dict[str, np.ndarray]:
    """Seconds per step of every candidate, one number for each round."""
    seconds = np.empty((NUM_WARMUP_ROUNDS + num_rounds, len(candidates)))
    for row in seconds:
        for column, (name, run) in enumerate(candidates.items()):
            start = time.perf_counter()
            num_calls = CALLS_PER_ROUND.get(name, 1)
            for _ in range(num_calls):
                run()
            row[column] = (time.perf_counter() - start) / num_calls / STEPS[name]
    return dict(zip(candidates, seconds[NUM_WARMUP_ROUNDS:].T, strict=True))


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--depth", type=at_least_1, choices=DEPTHS, default=18)
    parser.add_argument("--stem", choices=STEM_STRIDES, default="cifar")
    parser.add_argument("--width", type=float, default=1.0, help="multiplier of the encoder's channels")
    parser.add_argument("--batch", type=at_least_1, default=64, help="images per step, N; there are 2N views")
    parser.add_argument("--image_size", type=at_least_1, default=32, help="pixels of images and views")
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--rounds", type=at_least_1, default=7)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        full_step, augmentation = make_full_step(options)
        candidates = {
            "bare step": make_bare_step(options),
            "full step": full_step,
            "fit loop": make_fit_loop(options, pathlib.Path(folder)),
            "reference": make_reference_loop(options),
            "augmentation": augmentation,
        }
        seconds = measure(candidates, options.rounds)

    print(
        f"ResNet-{options.depth}, width {options.width:g}, {options.stem} stem, {options.image_size} px, "
        f"{2 * options.batch} views, {options.precision}, TensorFlow {tf.__version__}"
    )
    speeds = {name: 2 * options.batch / values for name, values in seconds.items()}
    ratios = {
        "full / bare": seconds["bare step"] / seconds["full step"],
        "fit / bare": seconds["bare step"] / seconds["fit loop"],
        "fit / reference": seconds["reference"] / seconds["fit loop"],
        "augmentation / full": seconds["augmentation"] / seconds["full step"],
    }
    print_table("views/s", speeds, "{:,.1f}")
    print_table("ratio", ratios, "{:.3f}")


def print_table(title: str, columns: dict[str, np.ndarray], style: str) -> None:
    """Prints a row for every round, and their medians."""
    rows = [(f"round {number}", row) for number, row in enumerate(zip(*columns.values(), strict=True), 1)]
    rows.append(("median", tuple(np.median(values) for values in columns.values())))
    print(f"{title:8}", *(f"{name:>19}" for name in columns))
    for label, row in rows:
        print(f"{label:8}", *(f"{style.format(value):>19}" for value in row))


if __name__ == "__main__":
    main()

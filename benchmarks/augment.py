"""Throughput of the augmentation, against the same operators applied to one image at a time in tf.data.

    python benchmarks/augment.py --image_size=32 --batch_size=256
    python benchmarks/augment.py --image_size=32 --batch_size=256 --operators

Both take turns, so that a busy machine slows both. Prints the median and the best views per second. With --operators,
times each operator by itself instead, on views that are already cropped, and prints microseconds per view.
"""

import argparse
import dataclasses
import os
import pathlib
import sys
import time

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.arguments import at_least_1  # noqa: E402
from tf_simclr.augment import OPERATORS, SIMCLR_NAMES, Augmentation, Operator, example_keys, simclr_chain  # noqa: E402
from tf_simclr.augment.chain import apply_operators  # noqa: E402
from tf_simclr.augment.draws import uniform  # noqa: E402


def augment_one_image(image: tf.Tensor, image_size: int) -> tf.Tensor:
    """One view of `[H, W, 3]` with tf.image: crop, flip, jitter of strength 1 in random order, grayscale."""
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(image), tf.zeros((1, 0, 4)), area_range=(0.08, 1.0), use_image_if_no_bounding_boxes=True
    )
    image = tf.slice(tf.image.convert_image_dtype(image, tf.float32), begin, size)
    image = tf.image.resize(image, (image_size, image_size), "bicubic")
    image = tf.image.random_flip_left_right(image)
    operators = (
        lambda x: x * tf.random.uniform((), 0.2, 1.8),
        lambda x: tf.image.random_contrast(x, 0.2, 1.8),
        lambda x: tf.image.random_saturation(x, 0.2, 1.8),
        lambda x: tf.image.random_hue(x, 0.2),
    )
    if tf.random.uniform(()) < 0.8:
        order = tf.random.shuffle(tf.range(4))
        for index in range(4):
            branches = [lambda x=image, operator=operator: operator(x) for operator in operators]
            image = tf.clip_by_value(tf.switch_case(order[index], branches), 0.0, 1.0)
    if tf.random.uniform(()) < 0.2:
        image = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))
    return tf.clip_by_value(tf.ensure_shape(image, (image_size, image_size, 3)), 0.0, 1.0)


def without_buffers(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same dataset, but it does not prefetch while something else is timed."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.with_options(options)


def time_operators(size: int, num_views: int, rounds: int, jit_compile: bool) -> None:
    """Prints what each operator takes, in turns; each acts on every view."""
    operators = dict(zip(SIMCLR_NAMES[1:], simclr_chain()[1:], strict=True)) | OPERATORS
    views = tf.constant(np.random.default_rng(0).random((num_views, 3, size, size), np.float32))
    keys = example_keys(0, 0, num_views)

    def compiled(operator: Operator):
        draws = uniform(0, keys, [0], {operator.stream: operator.num_draws})
        function = tf.function(lambda views, draws: apply_operators([operator], views, draws), jit_compile=jit_compile)
        return lambda: function(views, draws).numpy()

    runs = {name: compiled(dataclasses.replace(operator, probability=1.0)) for name, operator in operators.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for step in range(rounds + 2):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if step >= 2:
                seconds[name].append(time.perf_counter() - start)
    for name, values in seconds.items():
        median, best = (1e6 * value / num_views for value in (np.median(values), min(values)))
        print(f"{name:20s} median {median:8.1f} us/view   best {best:8.1f} us/view")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--image_size", type=at_least_1, default=32)
    parser.add_argument("--batch_size", type=at_least_1, default=256)
    parser.add_argument("--rounds", type=at_least_1, default=15)
    parser.add_argument("--blur", action="store_true", help="also time this package's blur")
    parser.add_argument("--jit_compile", action="store_true", help="compile this package's augmentation with XLA")
    parser.add_argument("--operators", action="store_true", help="time each operator by itself instead")
    arguments = parser.parse_args()
    size, batch_size = arguments.image_size, arguments.batch_size
    if arguments.operators:
        return time_operators(size, 2 * batch_size, arguments.rounds, arguments.jit_compile)

    images = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), np.uint8)
    chain = simclr_chain(blur_probability=0.5 if arguments.blur else 0.0)
    augmentation = Augmentation(image_size=size, branches=(chain, chain))
    batched = tf.function(augmentation, jit_compile=arguments.jit_compile)
    images_on_device = tf.constant(images)

    dataset = tf.data.Dataset.from_tensor_slices(images).repeat()
    dataset = dataset.map(
        lambda image: (augment_one_image(image, size), augment_one_image(image, size)),
        num_parallel_calls=os.cpu_count(),
    )
    per_image = iter(without_buffers(dataset.batch(batch_size)))

    def run_batched(step: int) -> None:
        batched(images_on_device, example_keys(step, 0, batch_size)).numpy()

    def run_per_image(step: int) -> None:
        del step
        next(per_image)

    candidates = {"batched": run_batched, "one image at a time": run_per_image}
    views_per_second: dict[str, list[float]] = {name: [] for name in candidates}
    for step in range(arguments.rounds + 3):
        for name, run in candidates.items():
            start = time.perf_counter()
            run(step)
            if step >= 3:
                views_per_second[name].append(2 * batch_size / (time.perf_counter() - start))
    for name, values in views_per_second.items():
        print(f"{name:20s} median {np.median(values):9,.0f} views/s   best {max(values):9,.0f} views/s")


if __name__ == "__main__":
    main()

"""Speed of convolutions, their gradients and alternatives, layer by layer of a ResNet-18 at 32 px, and what they give.

    python benchmarks/convolutions.py
    python benchmarks/convolutions.py --precision=float32

Prints GFLOP/s (a multiplication and an addition count as two, those with the zeros around the images, too) of
TensorFlow's kernels for the output, the gradient of the images and the gradient of the kernel, and of other ways, which
agree up to rounding:
  products     matrix products, as in tf_simclr/models/convolution.py: one for every pixel of the output or of the
               images, where there are not many, and one for every place of the kernel;
  convolution  the kernel's gradient as one of the images with the slopes as its kernel, batch and channels swapped.
Then the time of a forward and backward pass of networks with and without matrix products, by the clock and by processor
time. All take turns, so that a busy machine slows all alike; the best round counts, for networks the median.
"""

import argparse
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.arguments import at_least_1  # noqa: E402
from tf_simclr.keras import keras  # noqa: E402
from tf_simclr.models import convolution  # noqa: E402
from tf_simclr.models.resnet import resnet  # noqa: E402

# (height and width of the output, channels) of the groups of blocks
LAYERS = ((32, 64), (16, 128), (8, 256), (4, 512), (3, 256), (3, 384))
KERNEL = 3
MAX_PRODUCTS = 8  # Up to this side of the output, one matrix product for each of its pixels is timed, too.
WAYS = ("output", "output, products", "images", "images, products", "kernel", "kernel, products", "kernel, convolution")
WIDTH = max(map(len, WAYS))
# Name: (settings of the network, pixels of a view)
NETWORKS = {
    "ResNet-10 of configs/cifar10_lars.py, 24 px": ({"depth": 10, "stem": "strided", "num_groups": 3}, 24),
    "the same, 1.5 times as wide": ({"depth": 10, "stem": "strided", "num_groups": 3, "width_multiplier": 1.5}, 24),
    "ResNet-18, stem cifar, 32 px": ({"depth": 18, "stem": "cifar"}, 32),
}


def make_candidates(size: int, channels: int, num_views: int, dtype: tf.DType) -> dict[str, Callable[[], tf.Tensor]]:
    """Every computation of one layer, as a compiled function."""
    shape = (num_views, size, size, channels)
    images, slopes = (tf.cast(tf.random.stateless_normal(shape, seed=(0, seed)), dtype) for seed in (1, 2))
    kernel_shape = (KERNEL, KERNEL, channels, channels)
    kernel = tf.cast(tf.random.stateless_normal(kernel_shape, seed=(0, 3)), dtype)
    same = {"strides": (1, 1, 1, 1), "padding": "SAME"}

    def swapped() -> tf.Tensor:
        by_channel = tf.transpose(tf.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 1, 2, 0))
        result = tf.nn.conv2d(by_channel, tf.transpose(slopes, (1, 2, 0, 3)), 1, "VALID")
        return tf.transpose(result, (1, 2, 0, 3))

    of_tensorflow = {
        "output": lambda: tf.nn.conv2d(images, kernel, 1, "SAME"),
        "images": lambda: tf.raw_ops.Conv2DBackpropInput(input_sizes=shape, filter=kernel, out_backprop=slopes, **same),
        "kernel": lambda: tf.raw_ops.Conv2DBackpropFilter(
            input=images, filter_sizes=kernel_shape, out_backprop=slopes, **same
        ),
    }
    others = {
        "kernel, products": lambda: convolution.kernel_gradient(images, slopes, KERNEL, 1, 1),
        "kernel, convolution": swapped,
    }
    if size <= MAX_PRODUCTS:
        others |= {
            "output, products": lambda: convolution.convolution_of_few(images, kernel, 1, 1),
            "images, products": lambda: convolution.images_gradient_of_few(slopes, kernel, 1),
        }
    return {name: tf.function(function) for name, function in (of_tensorflow | others).items()}


def difference_of(candidates: dict[str, Callable[[], tf.Tensor]], name: str) -> float:
    """How far a candidate is from TensorFlow's kernel, as a share of its norm."""
    found, expected = (tf.cast(candidates[one](), tf.float32) for one in (name, name.split(",")[0]))
    return float(tf.norm(found - expected) / tf.norm(expected))


def make_pass(settings: dict, size: int, num_views: int, *, products: bool, policy: str) -> Callable[[], tf.Tensor]:
    """A forward and backward pass of a network, with matrix products where they pay, or without."""
    network = resnet(**settings, image_size=size, dtype=policy)
    images = tf.random.stateless_uniform((num_views, size, size, 3), seed=(0, 4))

    @tf.function
    def run() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(images, training=True))
        return tf.add_n([tf.norm(gradient) for gradient in tape.gradient(loss, network.trainable_weights)])

    pays = convolution.Conv2D._pays
    convolution.Conv2D._pays = lambda layer, inputs: products and pays(layer, inputs)
    run()  # Builds the graph.
    convolution.Conv2D._pays = pays
    return run


def compare_networks(num_views: int, policy: str, rounds: int) -> None:
    """Prints the time of both ways, which take turns, and their ratio."""
    for name, (settings, size) in NETWORKS.items():
        keras.backend.clear_session()
        ways = [make_pass(settings, size, num_views, products=way, policy=policy) for way in (False, True)]
        taken = np.empty((1 + rounds, 2, 2))  # The first round is slower.
        for times in taken:
            for way, run in enumerate(ways):
                start = time.perf_counter(), time.process_time()
                run().numpy()
                times[way] = time.perf_counter() - start[0], time.process_time() - start[1]
        clock, processor = 1000 * np.median(taken[1:], axis=0).T
        print(
            f"{name}: {clock[0]:.0f} ms as TensorFlow does it, {clock[1]:.0f} ms here, {clock[0] / clock[1]:.2f} times "
            f"as fast; by processor time {processor[0]:.0f} and {processor[1]:.0f} ms, "
            f"{processor[0] / processor[1]:.2f} times",
            flush=True,
        )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--num_views", type=at_least_1, default=128)
    parser.add_argument("--rounds", type=at_least_1, default=7)
    options = parser.parse_args()
    policy = "mixed_bfloat16" if options.precision == "bfloat16" else "float32"
    print(f"TensorFlow {tf.__version__}, {options.precision}, {options.num_views} views, GFLOP/s")
    print(f"{'layer':12}", *(f"{name:>{WIDTH}}" for name in WAYS), f"{'difference':>12}")
    for size, channels in LAYERS:
        candidates = make_candidates(size, channels, options.num_views, tf.dtypes.as_dtype(options.precision))
        difference = max(difference_of(candidates, name) for name in candidates)
        seconds = dict.fromkeys(candidates, math.inf)
        for _ in range(options.rounds):
            for name, run in candidates.items():
                start = time.perf_counter()
                run()
                seconds[name] = min(seconds[name], time.perf_counter() - start)
        gigaflop = 2e-9 * options.num_views * (size * channels * KERNEL) ** 2
        rates = (f"{gigaflop / seconds[name]:.0f}" if name in seconds else "" for name in WAYS)
        print(f"{f'{size}x{size}x{channels}':12}", *(f"{rate:>{WIDTH}}" for rate in rates), f"{difference:12.1e}")
    compare_networks(2 * options.num_views, policy, options.rounds)


if __name__ == "__main__":
    main()

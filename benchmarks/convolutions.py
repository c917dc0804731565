"""Speed of convolutions, their gradients and alternatives, layer by layer of a ResNet-18 at 32 px.

    python benchmarks/convolutions.py
    python benchmarks/convolutions.py --precision=float32

Prints GFLOP/s (a multiplication and an addition count as two) of TensorFlow's kernels for the output, the gradient of
the images and the gradient of the kernel, and of two other ways to compute the last, which agree up to rounding:
  matrix products   nine, one for every place of the kernel: shifted images, transposed, times the slopes;
  convolution       of the images with the slopes as its kernel, batch and channels swapped.
All take turns, so that a busy machine slows all alike; the best round counts.
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

from benchmarks.arguments import at_least_1  # noqa: E402

# (height and width of the output, channels) of the four groups of blocks
LAYERS = ((32, 64), (16, 128), (8, 256), (4, 512))
KERNEL = 3


def make_candidates(size: int, channels: int, num_views: int, dtype: tf.DType) -> dict[str, Callable[[], tf.Tensor]]:
    """Every computation of one layer, as a compiled function."""
    shape = (num_views, size, size, channels)
    images, slopes = (tf.cast(tf.random.stateless_normal(shape, seed=(0, seed)), dtype) for seed in (1, 2))
    kernel_shape = (KERNEL, KERNEL, channels, channels)
    kernel = tf.cast(tf.random.stateless_normal(kernel_shape, seed=(0, 3)), dtype)
    same = {"strides": (1, 1, 1, 1), "padding": "SAME"}

    def padded() -> tf.Tensor:
        return tf.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def matrix_products() -> tf.Tensor:
        shifted = padded()
        rows = tf.reshape(slopes, (-1, channels))
        places = [(i, j) for i in range(KERNEL) for j in range(KERNEL)]
        columns = [tf.reshape(shifted[:, i : i + size, j : j + size], (-1, channels)) for i, j in places]
        products = [tf.matmul(column, rows, transpose_a=True) for column in columns]
        return tf.reshape(tf.stack(products), kernel_shape)

    def convolution() -> tf.Tensor:
        by_channel = tf.transpose(padded(), (3, 1, 2, 0))
        result = tf.nn.conv2d(by_channel, tf.transpose(slopes, (1, 2, 0, 3)), 1, "VALID")
        return tf.transpose(result, (1, 2, 0, 3))

    candidates = {
        "output": lambda: tf.nn.conv2d(images, kernel, 1, "SAME"),
        "images": lambda: tf.raw_ops.Conv2DBackpropInput(input_sizes=shape, filter=kernel, out_backprop=slopes, **same),
        "kernel": lambda: tf.raw_ops.Conv2DBackpropFilter(
            input=images, filter_sizes=kernel_shape, out_backprop=slopes, **same
        ),
        "matrix products": matrix_products,
        "convolution": convolution,
    }
    return {name: tf.function(function) for name, function in candidates.items()}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--num_views", type=at_least_1, default=128)
    parser.add_argument("--rounds", type=at_least_1, default=7)
    options = parser.parse_args()
    print(f"TensorFlow {tf.__version__}, {options.precision}, {options.num_views} views, GFLOP/s")
    for row, (size, channels) in enumerate(LAYERS):
        candidates = make_candidates(size, channels, options.num_views, tf.dtypes.as_dtype(options.precision))
        gradients = [tf.cast(candidates[name](), tf.float32) for name in ("kernel", "matrix products", "convolution")]
        difference = max(float(tf.norm(other - gradients[0]) / tf.norm(gradients[0])) for other in gradients[1:])
        seconds = np.empty((options.rounds, len(candidates)))
        for times in seconds:
            for index, run in enumerate(candidates.values()):
                start = time.perf_counter()
                run()
                times[index] = time.perf_counter() - start
        gigaflop = 2e-9 * options.num_views * (size * channels * KERNEL) ** 2
        if row == 0:
            print(f"{'layer':12}", *(f"{name:>16}" for name in candidates), f"{'difference':>12}")
        rates = gigaflop / seconds[1:].min(axis=0)
        print(f"{f'{size}x{size}x{channels}':12}", *(f"{rate:16.0f}" for rate in rates), f"{difference:12.1e}")


if __name__ == "__main__":
    main()

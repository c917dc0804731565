"""What making a step of Muon orthogonal costs on a CPU: by products of the matrix, and of its Gram matrix.

    python benchmarks/orthogonal.py
    python benchmarks/orthogonal.py --width=1.5 --rounds=20

Takes the kernels of the network of configs/cifar10_lars.py with --width times the channels. Both ways take turns on one
thread. Prints their processor time and how far apart their results are, relative to the norm; the last row is all
kernels together. On CPUs, `tf_simclr.optimizers.orthogonal` takes the second way for float32 and float64.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.arguments import at_least_1  # noqa: E402
from tf_simclr import devices  # noqa: E402
from tf_simclr.models.resnet import resnet  # noqa: E402
from tf_simclr.optimizers import orthogonal  # noqa: E402


def matrices_of(width: float) -> list[tf.Tensor]:
    """A matrix of random numbers for every kernel of the encoder, as Muon takes it."""
    encoder = resnet(10, width, "strided", num_groups=3)
    shapes = [kernel.shape for kernel in encoder.trainable_variables if kernel.shape.rank > 1]
    return [
        tf.random.stateless_normal([shape.num_elements() // shape[-1], shape[-1]], (0, place))
        for place, shape in enumerate(shapes)
    ]


def compiled(matrices: list[tf.Tensor], by_matrix: bool) -> tf.types.experimental.ConcreteFunction:
    """A graph that makes the matrices orthogonal, by products of each, as on an accelerator, or as on a CPU."""
    with mock.patch.object(devices, "on_accelerator", return_value=by_matrix):
        return tf.function(lambda: [orthogonal(matrix) for matrix in matrices]).get_concrete_function()


def measure(matrices: list[tf.Tensor], rounds: int) -> tuple[float, float, float]:
    """Milliseconds of processor time of the two ways, and the largest relative distance of their results."""
    ways = [compiled(matrices, by_matrix=True), compiled(matrices, by_matrix=False)]
    pairs = zip(*(way() for way in ways), strict=True)
    distance = max(float(tf.norm(one - other) / tf.norm(one)) for one, other in pairs)
    taken: list[list[float]] = [[], []]
    for _ in range(rounds):
        for way, seconds in zip(ways, taken, strict=True):
            start = time.process_time()
            way()
            seconds.append(time.process_time() - start)
    direct, gram = (1000 * statistics.median(seconds) for seconds in taken)
    return direct, gram, distance


def main() -> None:
    """Prints a row for every kernel, then one for all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--width", type=float, default=1.5)
    parser.add_argument("--rounds", type=at_least_1, default=10)
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    matrices = matrices_of(options.width)
    print("| kernel | by the matrix | by its Gram matrix | distance |\n| --- | ---: | ---: | ---: |")
    rows = {" x ".join(map(str, matrix.shape)): [matrix] for matrix in matrices} | {"all": matrices}
    for name, those in rows.items():
        direct, gram, distance = measure(those, options.rounds)
        print(f"| {name} | {direct:.1f} ms | {gram:.1f} ms | {distance:.0e} |", flush=True)


if __name__ == "__main__":
    main()

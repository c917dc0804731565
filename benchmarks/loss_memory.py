"""Time and peak memory of NT-Xent with gradient and metrics: blocks of anchors against the whole matrix.

    python benchmarks/loss_memory.py
    python benchmarks/loss_memory.py --jit_compile
    python benchmarks/loss_memory.py --loss=supcon       another loss, in blocks alone

Projections are float32 [2N, 128]. Each case runs in its own process, because the peak of a process never falls. Memory
is what a case adds to the peak of the process before its first step. Time is that of the fastest step, in wall time and
in processor time, which other programs disturb less. The whole matrix is left out where it does not fit.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from benchmarks.arguments import at_least_1  # noqa: E402
from tf_simclr.losses import LOSSES, Pairs  # noqa: E402

WIDTH = 128
TEMPERATURE = 0.1  # the default of the losses
NUM_CLASSES = 100
LARGEST_WHOLE_MATRIX = 8192  # images; memory grows fourfold with twice as many


def whole_matrix(projections: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Loss, accuracy and entropy from the matrix of all similarities, written plainly."""
    z = tf.math.l2_normalize(projections, axis=-1)
    num_views = tf.shape(z)[0]
    rows = tf.range(num_views)
    logits = tf.matmul(z, z, transpose_b=True) / TEMPERATURE
    logits = tf.linalg.set_diag(logits, tf.fill([num_views], z.dtype.min))
    targets = tf.roll(rows, num_views // 2, axis=0)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
    hits = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), targets)
    entropies = -tf.reduce_sum(tf.nn.softmax(logits) * tf.nn.log_softmax(logits), axis=-1)
    return tf.reduce_mean(losses), tf.reduce_mean(tf.cast(hits, tf.float32)), tf.reduce_mean(entropies)


def blocks(projections: tf.Tensor, loss_name: str) -> tuple[tf.Tensor, ...]:
    """The same values, or those of another loss, from the package."""
    labels = tf.range(tf.shape(projections)[0] // 2) % NUM_CLASSES
    loss, metrics = LOSSES[loss_name]()(projections, Pairs(labels=labels))
    return loss, *metrics.values()


def run_case(name: str, num_images: int, jit_compile: bool, num_steps: int, loss_name: str) -> None:
    """Prints seconds and processor seconds of the fastest step, MiB added to the peak, loss, norm of the gradient."""

    @tf.function(jit_compile=jit_compile)
    def step(projections: tf.Tensor) -> tuple[tf.Tensor, ...]:
        with tf.GradientTape() as tape:
            tape.watch(projections)
            loss, *metrics = blocks(projections, loss_name) if name == "blocks" else whole_matrix(projections)
        return loss, *metrics, tf.norm(tape.gradient(loss, projections))

    projections = tf.random.stateless_normal([2 * num_images, WIDTH], seed=[0, 1])
    step(projections[:8])  # Starts TensorFlow and its threads.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, processor_seconds = [], []
    for _ in range(num_steps):
        start, processor_start = time.perf_counter(), time.process_time()
        observed = [float(value) for value in step(projections)]
        seconds.append(time.perf_counter() - start)
        processor_seconds.append(time.process_time() - processor_start)
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(min(seconds), min(processor_seconds), added / 1024, observed[0], observed[-1])


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--num_images", type=at_least_1, nargs="+", default=[1024, 4096, 8192, 16384, 65536])
    parser.add_argument("--jit_compile", action="store_true")
    parser.add_argument("--loss", choices=LOSSES, default="nt_xent")
    parser.add_argument("--case", choices=("blocks", "whole"), help="run only this case, for one number of images")
    options = parser.parse_args()
    num_steps = {size: max(1, min(20, 8192 // size)) for size in options.num_images}
    if options.case:
        size = options.num_images[0]
        run_case(options.case, size, options.jit_compile, num_steps[size], options.loss)
        return
    print(f"TensorFlow {tf.__version__}, XLA {options.jit_compile}")
    print(f"{'images':>8}  {'case':6}  {'seconds':>9}  {'processor':>9}  {'MiB':>8}  {'loss':>10}  {'|gradient|':>10}")
    for size in options.num_images:
        has_whole = size <= LARGEST_WHOLE_MATRIX and options.loss == "nt_xent"
        for case in ("whole", "blocks") if has_whole else ("blocks",):
            command = [sys.executable, __file__, f"--case={case}", f"--num_images={size}", f"--loss={options.loss}"]
            command += ["--jit_compile"] * options.jit_compile
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds, processor, mib, loss, gradient = map(float, printed.split()[-5:])
            times = f"{seconds:9.3f}  {processor:9.3f}"
            print(f"{size:8}  {case:6}  {times}  {mib:8.0f}  {loss:10.6f}  {gradient:10.4e}", flush=True)


if __name__ == "__main__":
    main()

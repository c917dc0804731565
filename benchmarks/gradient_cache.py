"""Peak memory and time per image of a large batch in micro-batches, against small batches at once.

    python benchmarks/gradient_cache.py
    python benchmarks/gradient_cache.py --precision=mixed_bfloat16

Three train steps of SimCLR, on uint8 images in memory, from augmentation to the update by LARS:
  cached   a batch of --batch images, --microbatch of them in the encoder at a time;
  small    a batch of --microbatch images, at once: the baseline for memory;
  medium   a batch of --medium images, at once: the baseline for time.
Each runs in its own process, because the peak of a process never falls. Memory is the peak minus what the process held
before its first step. The processes take turns, a round of steps each, while the others wait. Time is wall time and
processor time, which other programs disturb less.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from benchmarks.arguments import at_least_1  # noqa: E402
from tf_simclr import LARS, ProjectionHead, SimCLR, resnet  # noqa: E402
from tf_simclr.models.resnet import DEPTHS, STEM_STRIDES  # noqa: E402

CASES = ("cached", "small", "medium")


def peak_mib() -> float:
    """The peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_case(options: argparse.Namespace) -> None:
    """Takes a round of steps for every line of its input; prints seconds and MiB."""
    sizes = {"cached": options.batch, "small": options.microbatch, "medium": options.medium}
    batch_size = sizes[options.case]
    shape = (batch_size, options.image_size, options.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    encoder = resnet(options.depth, 1.0, options.stem, image_size=options.image_size, dtype=options.precision)
    microbatch_size = options.microbatch if options.case == "cached" else 0
    model = SimCLR(encoder, ProjectionHead(), image_size=options.image_size, microbatch_size=microbatch_size)
    model.compile(optimizer=LARS(0.1, weight_decay=1e-4), jit_compile=options.jit_compile)
    train_function = model.make_train_function()
    # The first batch is for tracing, with an open batch axis.
    tracing, timed = (tf.data.Dataset.from_tensors(part) for part in (images[: options.microbatch], images))
    batches = iter(tracing.concatenate(timed.repeat()))
    before = peak_mib()
    train_function(batches)
    for _ in sys.stdin:
        start, processor_start = time.perf_counter(), time.process_time()
        for _ in range(max(1, options.images_per_round // batch_size)):
            train_function(batches)["loss"].numpy()
        times = time.perf_counter() - start, time.process_time() - processor_start
        print(*times, peak_mib(), before, flush=True)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--depth", type=at_least_1, choices=DEPTHS, default=18)
    parser.add_argument("--stem", choices=STEM_STRIDES, default="cifar")
    parser.add_argument("--image_size", type=at_least_1, default=32, help="pixels of images and views")
    parser.add_argument("--batch", type=at_least_1, default=4096)
    parser.add_argument("--microbatch", type=at_least_1, default=128)
    parser.add_argument("--medium", type=at_least_1, default=512)
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--jit_compile", action="store_true")
    parser.add_argument("--images_per_round", type=at_least_1, default=1024, help="or one step, if that is more")
    parser.add_argument("--rounds", type=at_least_1, default=3)
    parser.add_argument("--case", choices=CASES, help="run only this case, a round for every line of its input")
    options = parser.parse_args()
    if options.case:
        run_case(options)
        return

    command = [sys.executable, __file__, *sys.argv[1:]]
    processes = {
        case: subprocess.Popen([*command, f"--case={case}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for case in CASES
    }
    sizes = {"cached": options.batch, "small": options.microbatch, "medium": options.medium}
    times = np.empty((options.rounds, len(CASES), 2))
    memory = {}
    for rows in times:
        for row, (case, process) in zip(rows, processes.items(), strict=True):
            process.stdin.write("\n")
            process.stdin.flush()
            *seconds, peak, before = map(float, process.stdout.readline().split())
            num_images = max(options.images_per_round // sizes[case], 1) * sizes[case]
            row[:] = [1000 * value / num_images for value in seconds]
            memory[case] = peak, peak - before
    for process in processes.values():
        process.stdin.close()
        process.wait()

    print(
        f"ResNet-{options.depth}, {options.stem} stem, {options.image_size} px, {options.precision}, "
        f"XLA {options.jit_compile}, TensorFlow {tf.__version__}"
    )
    for case, (clock, processor) in zip(CASES, np.median(times, axis=0), strict=True):
        peak, added = memory[case]
        print(
            f"{case:6}  batch {sizes[case]:5}  {clock:6.2f} ms per image ({processor:.2f} ms of the processor)  "
            f"peak {peak:6.0f} MiB, {added:6.0f} of them for the step"
        )
    (peak, added), (small_peak, small_added) = memory["cached"], memory["small"]
    print(f"memory, cached / small: {peak / small_peak:.2f} overall, {added / small_added:.2f} for the step")
    for name, ratios in zip(("clock", "processor"), (times[:, 0] / times[:, 2]).T, strict=True):
        print(f"time, cached / medium ({name}): {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})")


if __name__ == "__main__":
    main()

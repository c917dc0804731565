"""Time to read and decode a folder of image files, by how many are read at once.

    python benchmarks/reading.py --data_dir=cifar10/train
    python benchmarks/reading.py --data_dir=cifar10/train --cold

TensorFlow's choice (AUTOTUNE) and fixed numbers take turns; prints the medians over the rounds, and the shares of
AUTOTUNE's. --cold empties the page cache before every turn, so that the files come from the disk; it needs root.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.arguments import at_least_1  # noqa: E402
from tf_simclr.data.files import listing  # noqa: E402
from tf_simclr.data.formats import decode  # noqa: E402
from tf_simclr.data.sources.files import FileSource  # noqa: E402

AT_ONCE = {"AUTOTUNE": tf.data.AUTOTUNE, "4": 4, "16": 16, "64": 64}


def read_all(files: FileSource, at_once: int) -> tuple[float, float]:
    """Seconds and seconds of processor time that reading and decoding all files takes."""
    fetch = files.fetcher()
    images = tf.data.Dataset.range(files.num_examples).map(
        lambda position: decode.decode_image(fetch(position)), num_parallel_calls=at_once, deterministic=True
    )
    start, start_of_processor = time.perf_counter(), time.process_time()
    for _ in images.batch(256).prefetch(2):
        pass
    return time.perf_counter() - start, time.process_time() - start_of_processor


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="a folder of images of one size")
    parser.add_argument("--rounds", type=at_least_1, default=3)
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    keys = listing.list_images(options.data_dir).keys
    files = FileSource(options.data_dir, keys)
    read_all(files, tf.data.AUTOTUNE)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in AT_ONCE}
    for _ in range(options.rounds):
        for name, at_once in AT_ONCE.items():
            if options.cold:
                subprocess.run(["sh", "-c", "sync; echo 3 > /proc/sys/vm/drop_caches"], check=True)
            seconds[name].append(read_all(files, at_once))
    print(f"{len(keys):,} files, {len(os.sched_getaffinity(0))} cores, TensorFlow {tf.__version__}")
    medians = {
        name: [statistics.median(column) for column in zip(*found, strict=True)] for name, found in seconds.items()
    }
    for name, (clock, processor) in medians.items():
        shares = clock / medians["AUTOTUNE"][0], processor / medians["AUTOTUNE"][1]
        print(
            f"{name:>9} at once {clock:6.2f} s ({shares[0]:.2f}), processor time {processor:6.2f} s ({shares[1]:.2f}), "
            f"{len(keys) / clock:8,.0f} files/s"
        )


if __name__ == "__main__":
    main()

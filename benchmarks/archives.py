"""Processor time per image of training input from archives, against the same files in a folder.

    python benchmarks/archives.py
    python benchmarks/archives.py --folder=photos --image_size=96

Packs the folder into a .tar file, a .zip file of stored members and one of deflated ones; by default the folder holds
JPEG files of 500 x 375 pixels, which are made here. Reads, decodes and crops two views of every image, as a training
run does. All places take turns, so that a busy machine slows all of them, and every turn starts with new buffers.
Prints the medians over the rounds of the processor time, and of its ratio to that of the folder in the same round.
"""

import argparse
import os
import pathlib
import sys
import tarfile
import tempfile
import time
import zipfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.arguments import at_least_1  # noqa: E402
from benchmarks.input_pipeline import write_files  # noqa: E402
from tf_simclr.augment import Augmentation  # noqa: E402
from tf_simclr.data import sources  # noqa: E402
from tf_simclr.data.batches import train_dataset  # noqa: E402

WARMUP_BATCHES = 4


def pack(folder: pathlib.Path, target: pathlib.Path) -> dict[str, str]:
    """Packs a folder; returns {kind: path}, the folder first."""
    with tarfile.open(target / "images.tar", "w") as tar:
        tar.add(folder, arcname=".")
    for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(target / f"{name}.zip", "w", method) as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, path.relative_to(folder))
    return {
        "folder": f"{folder}",
        **{name: f"{target}/{name}" for name in ("images.tar", "stored.zip", "deflated.zip")},
    }


def measure(batches: tf.data.Dataset, num_batches: int, batch_size: int) -> float:
    """Milliseconds of processor time per image, with full buffers."""
    iterator = iter(batches)
    for number in range(WARMUP_BATCHES + num_batches):
        if number == WARMUP_BATCHES:
            start = time.process_time()
        next(iterator)
    return 1000 * (time.process_time() - start) / (num_batches * batch_size)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--image_size", type=at_least_1, default=224)
    parser.add_argument("--batch_size", type=at_least_1, default=64)
    parser.add_argument("--batches", type=at_least_1, default=16, help="timed batches in a round")
    parser.add_argument("--rounds", type=at_least_1, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as target:
        folder = options.folder
        if folder is None:
            folder = pathlib.Path(target) / "images"
            folder.mkdir()
            write_files(str(folder))
        inputs = {}
        for name, place in pack(folder, pathlib.Path(target)).items():
            inputs[name] = train_dataset(
                sources.open_images(place, max_cached_bytes=0),
                global_batch_size=options.batch_size,
                seed=0,
                total_steps=1_000_000,
                augmentation=Augmentation(options.image_size),
            )
        arguments = options.batches, options.batch_size
        rounds = np.array([[measure(each, *arguments) for each in inputs.values()] for _ in range(options.rounds)])
    ratios = rounds / rounds[:, :1]
    for column, name in enumerate(inputs):
        low, high = ratios[:, column].min(), ratios[:, column].max()
        print(
            f"{name}: {np.median(rounds[:, column]):.2f} ms of processor time per image, "
            f"{np.median(ratios[:, column]):.3f} of the folder ({low:.3f} to {high:.3f})"
        )


if __name__ == "__main__":
    main()

"""Images per second of the evaluation's extraction, against the bare forward pass.

    python benchmarks/extraction.py
    taskset -c 0,1 python benchmarks/extraction.py --rounds=5

The extraction is that of the evaluation, whole: it reads, decodes and preprocesses a source, encodes it, and writes the
representations to the run's folder. The forward pass is the same function on batches that are in memory already. Both
take turns, half a minute or less each, so that a busy machine slows both; the encoder is traced before.

Cases: ResNet-18 at 32 px on images in memory, ResNet-18 at 96 px on JPEG files of 128 x 128 pixels, which are made here
with the spectrum of photographs, and a ResNet-18 of a tenth of the width, where the network is not the limit.

Prints the medians over the rounds of wall and processor time.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.arguments import at_least_1  # noqa: E402
from benchmarks.input_pipeline import make_photo  # noqa: E402
from tf_simclr import devices, resnet  # noqa: E402
from tf_simclr.data import sources  # noqa: E402
from tf_simclr.data.batches import eval_dataset  # noqa: E402
from tf_simclr.evaluation.cache import CachedFeatures, Images  # noqa: E402
from tf_simclr.evaluation.encoders import FrozenEncoder  # noqa: E402
from tf_simclr.keras import keras  # noqa: E402

FILE_SIZE, NUM_DISTINCT = 128, 64
NUM_CLASSES = 10


def write_files(folder: str, count: int) -> sources.FileSource:
    """Fills a folder with JPEG files like photographs, most of them copies."""
    rng = np.random.default_rng(0)
    made = [tf.io.encode_jpeg(make_photo(rng, FILE_SIZE, FILE_SIZE), quality=90).numpy() for _ in range(NUM_DISTINCT)]
    names = tuple(f"{index}.jpg" for index in range(count))
    for index, name in enumerate(names):
        (pathlib.Path(folder) / name).write_bytes(made[index % NUM_DISTINCT])
    return sources.FileSource(folder, names, np.arange(count) % NUM_CLASSES)


def make_array(count: int, size: int) -> sources.ArraySource:
    """Images in memory; their content does not affect the time."""
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    return sources.ArraySource(images, np.arange(count) % NUM_CLASSES)


def extraction(
    source: sources.Source, encoder: keras.Model, size: int, batch_size: int
) -> tuple[Callable[[], None], Callable[[], None]]:
    """The extraction of the evaluation, and the forward pass alone."""
    encode = tf.function(
        lambda images: tf.cast(encoder(images, training=False), tf.float32),
        input_signature=[tf.TensorSpec([None, size, size, 3])],
    )
    batches = [batch[2] for batch in eval_dataset(source, image_size=size, batch_size=batch_size)]
    frozen = FrozenEncoder("eval", "the encoder", size, {}, lambda: encode)

    def extract() -> None:
        with tempfile.TemporaryDirectory() as folder:
            CachedFeatures(pathlib.Path(folder), frozen, Images("test", source, NUM_CLASSES), batch_size).features  # noqa: B018

    def forward() -> None:
        for batch in batches:
            encode(batch).numpy()

    encode(batches[0]), encode(batches[-1])
    return extract, forward


def measure(step: Callable[[], None]) -> tuple[float, float]:
    """Seconds of wall time and of processor time."""
    start, start_cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - start, time.process_time() - start_cpu


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch_size", type=at_least_1, default=256)
    parser.add_argument("--images", type=at_least_1, default=10_000, help="at 32 px; a tenth of them at 96 px")
    parser.add_argument("--rounds", type=at_least_1, default=3)
    options = parser.parse_args()
    precision, _ = devices.resolve_precision("auto")
    print(f"{len(os.sched_getaffinity(0))} cores, {precision}, TensorFlow {tf.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        array, photos = make_array(options.images, 32), write_files(folder, max(2, options.images // 10))
        cases = {
            "ResNet-18, 32 px from memory": (array, 32, 1.0),
            "ResNet-18, 96 px from JPEG files": (photos, 96, 1.0),
            "a tenth of its width, 32 px from memory": (array, 32, 0.1),
            "a tenth of its width, 96 px from JPEG files": (photos, 96, 0.1),
        }
        for name, (source, size, width) in cases.items():
            encoder = resnet(18, width, "cifar" if size == 32 else "imagenet", image_size=size, dtype=precision)
            steps = extraction(source, encoder, size, options.batch_size)
            rounds = np.array([[measure(step) for step in steps] for _ in range(options.rounds)])
            shares = rounds[:, 1] / rounds[:, 0]
            rates = source.num_examples / np.median(rounds, axis=0)
            print(
                f"{name}: extraction {rates[0, 0]:,.0f} images/s, forward pass {rates[1, 0]:,.0f}: "
                f"{np.median(shares[:, 0]):.2f} ({shares[:, 0].min():.2f} to {shares[:, 0].max():.2f}); "
                f"by processor time {np.median(shares[:, 1]):.2f} "
                f"({shares[:, 1].min():.2f} to {shares[:, 1].max():.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()

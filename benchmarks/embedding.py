"""Images per second and memory of `--mode=embed`, against the bare forward pass and bare decoding.

    python benchmarks/embedding.py --folder=flowers --model=RUN --rounds=3
    python benchmarks/embedding.py --files=50000 --model=RUN      # tiny PNG files, made once below --scratch
    python benchmarks/embedding.py --files=1000000 --model=RUN

The forward pass is the same function on batches in memory, for as many images. Decoding is the same reading, decoding
and preprocessing without a network. The embedding's rate is the one that it reports: from the first image to the last
file. All take turns, so that a busy machine slows each of them. On a CPU, network and decoding share the cores:
together, they cannot be faster than 1 / (1 / network + 1 / decoding).

Prints the medians over the rounds, and the largest memory of the process.
"""

import argparse
import os
import pathlib
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.arguments import at_least_1  # noqa: E402
from tf_simclr import builders  # noqa: E402
from tf_simclr.evaluation import embed  # noqa: E402
from tf_simclr.evaluation.archive import Archive  # noqa: E402
from tf_simclr.settings import RunConfig, override  # noqa: E402

SIDE_PX = 32
FILES_IN_FOLDER = 1000


def make_files(folder: pathlib.Path, count: int) -> None:
    """Tiny PNG files, all different, a thousand in a folder; those that are there stay."""
    if (folder / "complete").exists():
        return
    rng = np.random.default_rng(0)
    for start in range(0, count, FILES_IN_FOLDER):
        place = folder / f"{start // FILES_IN_FOLDER:04}"
        place.mkdir(parents=True, exist_ok=True)
        corners = rng.integers(0, 256, [FILES_IN_FOLDER, 4, 4, 3], np.uint8)
        images = tf.cast(tf.image.resize(corners, [SIDE_PX, SIDE_PX]), tf.uint8)
        encoded = tf.io.encode_png(images).numpy()
        for index, content in enumerate(encoded[: count - start]):
            (place / f"{start + index:07}.png").write_bytes(content)
    (folder / "complete").touch()


def seconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="run, checkpoint or SavedModel")
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("--folder", help="images")
    images.add_argument("--files", type=at_least_1, help="tiny files to make instead")
    parser.add_argument("--scratch", default=tempfile.gettempdir(), help="where these are made")
    parser.add_argument("--rounds", type=at_least_1, default=1)
    parser.add_argument("--image_size", type=at_least_1, default=SIDE_PX, help="if the model leaves it open")
    options = parser.parse_args()
    folder = pathlib.Path(options.folder or os.path.join(options.scratch, f"tiny_files_{options.files}"))
    if options.folder is None:
        make_files(folder, options.files)
    embed._CALIBRATION_SECONDS = 0.0
    settings = {
        "mode": "embed", "data.dataset": "folder", "data.data_dir": str(folder), "embed.encoder": options.model,
        "data.image_size": options.image_size,
    }  # fmt: skip
    config = override(RunConfig(), settings)
    strategy = tf.distribute.get_strategy()
    opening = time.perf_counter()
    archive = Archive(builders.build_archive(config.data))
    print(f"Listed {archive.num_images:,} files in {time.perf_counter() - opening:.1f} s", flush=True)
    encoder = embed.open_encoder(config, strategy)
    encoding = embed.make_encoding(config, encoder)
    count = archive.num_images
    batch = next(archive.batches(0, count, encoding.image_size, encoding.batch_size)).images

    def forward() -> None:
        for _ in range(count // len(batch)):
            encoding.encode(batch)

    def decode() -> None:
        for _ in archive.batches(0, count, encoding.image_size, encoding.batch_size):
            pass

    def whole() -> float:
        with tempfile.TemporaryDirectory() as output:
            report = embed.embed(override(config, {"embed.output_dir": output}), strategy)
        return float(re.search(r"at ([\d,]+) images/s", report)[1].replace(",", ""))

    rounds = []
    for _ in range(options.rounds):
        network = count // len(batch) * len(batch) / seconds(forward)
        rounds.append((network, count / seconds(decode), whole()))
    network, decoding, embedding = np.median(rounds, axis=0)
    together = 1 / (1 / network + 1 / decoding)
    print(
        f"forward {network:,.0f} images/s, decoding {decoding:,.0f}, both on the same cores at most {together:,.0f}; "
        f"embedding {embedding:,.0f}: {embedding / network:.2f} of forward, {embedding / decoding:.2f} of decoding, "
        f"{embedding / together:.2f} of both"
    )
    print(f"largest memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()

"""Latency and throughput of an export in the session that TensorFlow Serving runs, without the network.

    python benchmarks/serving.py
    python benchmarks/serving.py --cases="ResNet-50, 224 px" --rounds=30

For each encoder (untrained: training does not change the time):
  - the whole path from the bytes of image files (`serving_default`: headers, decoding, isolation of broken files,
    encoder) against a plain graph that decodes with tf.map_fn and fails with the first broken file, and against the
    encoder alone (`encode`), by size of the batch;
  - the encoder in bfloat16 against float32;
  - clients that send single images at the same time, with and without micro-batching.
All candidates take turns, so that a busy machine slows all alike; ratios are medians of the rounds' ratios.
"""

import argparse
import functools
import os
import pathlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from serving_session import Version, disable_xla  # noqa: E402

from benchmarks.arguments import at_least_1  # noqa: E402
from benchmarks.input_pipeline import make_photo  # noqa: E402
from tf_simclr.augment.center import preprocess_for_eval  # noqa: E402
from tf_simclr.export import export_encoder  # noqa: E402
from tf_simclr.export.signatures import MicroBatching, Serving  # noqa: E402
from tf_simclr.keras import keras  # noqa: E402
from tf_simclr.models.resnet import resnet  # noqa: E402

# name: (arguments of the encoder, whether its images are JPEG files of 500 x 375 px, or else PNG files of its size)
CASES = {
    "ResNet-10, 32 px": ({"depth": 10, "stem": "strided", "num_groups": 3, "image_size": 32}, False),
    "ResNet-18, 32 px": ({"depth": 18, "stem": "cifar", "image_size": 32}, False),
    "ResNet-50, 224 px": ({"depth": 50, "stem": "imagenet", "image_size": 224}, True),
}
BATCH_SIZES = (1, 8, 32)
CLIENT_COUNTS = (1, 4, 16)

Call = Callable[[], object]


def make_files(image_size: int, is_jpeg: bool) -> np.ndarray:
    """Image files like photographs: string [32]."""
    rng = np.random.default_rng(0)
    if is_jpeg:
        files = [tf.io.encode_jpeg(make_photo(rng, 375, 500), quality=90).numpy() for _ in range(max(BATCH_SIZES))]
    else:
        files = [tf.io.encode_png(make_photo(rng, image_size, image_size)).numpy() for _ in range(max(BATCH_SIZES))]
    return np.array(files, object)


def export_plain(encoder: keras.Model, folder: pathlib.Path, image_size: int) -> None:
    """Exports decoding and encoding, written in a few plain lines."""

    def decode(encoded: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return tf.ensure_shape(preprocess_for_eval(image, image_size), [image_size, image_size, 3])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.map_fn(decode, image_bytes, fn_output_signature=tf.float32)
        return {"embedding": tf.cast(encoder(images, training=False), tf.float32)}

    module = tf.Module()
    module.variables_of_encoder = encoder.variables
    tf.saved_model.save(module, str(folder), {"serving_default": serve})


def make_versions(arguments: dict, folder: pathlib.Path) -> dict[str, Version]:
    """The same weights in float32, in bfloat16, with micro-batching, and with the plain decoding."""
    image_size = arguments["image_size"]
    encoders = {}
    for policy in ("float32", "mixed_bfloat16"):
        keras.mixed_precision.set_global_policy(policy)
        encoders[policy] = resnet(**arguments)
    encoders["mixed_bfloat16"].set_weights(encoders["float32"].get_weights())
    batched = Serving(batch_sizes=(1, 4, 8, 16), micro_batching=MicroBatching(max_size=16))
    export_encoder(encoders["float32"], folder / "ours" / "1", image_size=image_size)
    export_encoder(encoders["mixed_bfloat16"], folder / "bfloat16" / "1", image_size=image_size)
    export_encoder(encoders["float32"], folder / "batched" / "1", image_size=image_size, serving=batched)
    export_plain(encoders["float32"], folder / "plain" / "1", image_size)
    return {path.name: Version(path / "1") for path in folder.iterdir()}


def take_turns(calls: Sequence[Call], rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of wall time and of processor time of each call in each round: [rounds, calls] each."""
    for call in (*calls, *calls):
        call()
    times = np.zeros([2, rounds, len(calls)])
    for number in range(rounds):
        for index in np.roll(np.arange(len(calls)), number):
            start, start_cpu = time.perf_counter(), time.process_time()
            calls[index]()
            times[:, number, index] = time.perf_counter() - start, time.process_time() - start_cpu
    return 1000 * times[0], 1000 * times[1]


def percentiles(times: np.ndarray) -> str:
    """p50, p95 and p99."""
    return " / ".join(f"{value:.1f}" for value in np.percentile(times, [50, 95, 99]))


def ratio(times: np.ndarray, one: int, other: int) -> str:
    """Median, and the quartiles, of the rounds' ratios."""
    low, middle, high = np.percentile(times[:, one] / times[:, other], [25, 50, 75])
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def compare_paths(versions: dict[str, Version], files: np.ndarray, image_size: int, rounds: int) -> None:
    """The byte path against the plain one and the encoder alone, and bfloat16 against float32."""
    for batch_size in BATCH_SIZES:
        batch = {"image_bytes": files[:batch_size]}
        images = {"images": np.random.default_rng(0).random([batch_size, image_size, image_size, 3], np.float32)}
        runs = [("ours", "", batch), ("plain", "", batch), ("ours", "encode", images), ("bfloat16", "", batch)]
        times, cpu_times = take_turns(
            [functools.partial(versions[name].run, *arguments) for name, *arguments in runs], rounds
        )
        ours, plain, encoder, _ = np.median(times, axis=0)
        print(
            f"  batches of {batch_size}: {percentiles(times[:, 0])} ms, {1000 * batch_size / ours:.0f} images/s; "
            f"plain {plain:.1f} ms, encoder alone {encoder:.1f} ms\n"
            f"    bytes / plain {ratio(times, 0, 1)}, of processor time {ratio(cpu_times, 0, 1)}\n"
            f"    bytes / encoder alone {ratio(times, 0, 2)}, bfloat16 / float32 {ratio(times, 3, 0)}",
            flush=True,
        )


def measure_clients(version: Version, files: np.ndarray, num_clients: int, num_requests: int) -> tuple[list, float]:
    """(milliseconds of each request, images per second) of clients that send one image after another."""
    times: list[float] = []

    def send(first: int) -> None:
        for number in range(num_requests // num_clients):
            start = time.perf_counter()
            version.run("", {"image_bytes": files[[(first + number) % len(files)]]})
            times.append(1000 * (time.perf_counter() - start))

    threads = [threading.Thread(target=send, args=[first]) for first in range(num_clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, len(times) / (time.perf_counter() - start)


def compare_batching(versions: dict[str, Version], files: np.ndarray, num_requests: int, rounds: int) -> None:
    """Single images from several clients, with and without micro-batching."""
    names = "ours", "batched"
    for num_clients in CLIENT_COUNTS:
        times: dict[str, list[float]] = {name: [] for name in names}
        speeds: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds + 1):
            for name in names:
                measured, speed = measure_clients(versions[name], files, num_clients, num_requests)
                if number:  # The first round warms up.
                    times[name] += measured
                    speeds[name].append(speed)
        gain = np.median(np.array(speeds["batched"]) / np.array(speeds["ours"]))
        print(
            f"  {num_clients} clients: {percentiles(times['ours'])} ms, {np.median(speeds['ours']):.0f} images/s; "
            f"micro-batching {percentiles(times['batched'])} ms, {np.median(speeds['batched']):.0f} images/s, "
            f"{gain:.2f} times",
            flush=True,
        )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=at_least_1, default=20)
    parser.add_argument("--requests", type=at_least_1, default=64, help="of all clients together in a round")
    options = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, TensorFlow {tf.__version__}; p50 / p95 / p99")
    exports = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(options.cases):  # Exports warm up eagerly, before XLA is disabled.
            exports[name] = make_versions(CASES[name][0], pathlib.Path(folder) / str(number))
        print(f"XLA is {'off, as in TensorFlow Serving' if disable_xla() else 'on'}")
        for name, versions in exports.items():
            arguments, is_jpeg = CASES[name]
            print(name, flush=True)
            files = make_files(arguments["image_size"], is_jpeg)
            compare_paths(versions, files, arguments["image_size"], options.rounds)
            compare_batching(versions, files, options.requests, max(2, options.rounds // 4))


if __name__ == "__main__":
    main()

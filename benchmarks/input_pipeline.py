"""Images per second and core of the whole input pipeline, against a plain one from tf.data and tf.image.

    python benchmarks/input_pipeline.py
    taskset -c 0,1 python benchmarks/input_pipeline.py --rounds=9

Makes two views of every image on the cores that this process may use, and counts both halves of this package's work:
reading, decoding and cropping in tf.data, and colours and blur, which run batched on the device that trains. The plain
pipeline does everything but the blur one image at a time in a parallel map, as the reference implementation does, and
then blurs the batch. Both take turns, so that a busy machine slows both.

Cases: 224 px and 96 px views of JPEG files of 500 x 375 pixels, which are made here with the spectrum of photographs
and are as large as those of ImageNet (0.1 MB); 96 px and 32 px views of images of that size in memory, as in STL-10 and
CIFAR-10. The 32 px views are not blurred, as in the recipe for CIFAR-10.

Prints the medians over the rounds, and a breakdown of the processor time.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.arguments import at_least_1  # noqa: E402
from benchmarks.augment import augment_one_image, without_buffers  # noqa: E402
from tf_simclr.augment import Augmentation, simclr_chain  # noqa: E402
from tf_simclr.data import sources  # noqa: E402
from tf_simclr.data.batches import train_dataset  # noqa: E402
from tf_simclr.data.formats import decode  # noqa: E402

NUM_FILES, FILE_SHAPE, JPEG_QUALITY = 256, (375, 500), 90
NUM_ARRAY_IMAGES = 4096
NUM_CORES = len(os.sched_getaffinity(0))
WARMUP_BATCHES = 4

Step = Callable[[tf.Tensor], tf.Tensor]
Input = tuple[Iterable, Step]


def make_photo(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise with the 1/f spectrum and the weak colours of photographs: uint8 [H, W, 3]."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((3, height, width))) / frequency**1.2
    spectrum[:, 0, 0] = 0.0
    planes = np.fft.irfft2(spectrum, (height, width))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    luma, *chroma = planes
    image = np.stack([luma + 0.3 * chroma[0], luma, luma + 0.3 * chroma[1]], axis=-1)
    return np.clip(120 + 60 * image, 0, 255).astype(np.uint8)


def write_files(folder: str) -> sources.FileSource:
    """Fills a folder with JPEG files like photographs."""
    rng = np.random.default_rng(0)
    names = tuple(f"{index}.jpg" for index in range(NUM_FILES))
    for name in names:
        encoded = tf.io.encode_jpeg(make_photo(rng, *FILE_SHAPE), quality=JPEG_QUALITY)
        (pathlib.Path(folder) / name).write_bytes(encoded.numpy())
    return sources.FileSource(folder, names)


def make_array(size: int) -> sources.ArraySource:
    """Images of one size in memory; their content does not affect the time."""
    shape = (NUM_ARRAY_IMAGES, size, size, 3)
    return sources.ArraySource(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def our_input(source: sources.Source, size: int, batch_size: int) -> Input:
    """This package's batches, and its work on the device."""
    chain = simclr_chain(blur_probability=0.5 if size > 32 else 0.0)
    augmentation = Augmentation(size, branches=(chain, chain))
    batches = train_dataset(
        source,
        global_batch_size=batch_size,
        seed=0,
        total_steps=1_000_000,
        augmentation=augmentation,
    )
    return batches, tf.function(lambda batch: augmentation(batch["images"], batch["keys"]))


def plain_input(source: sources.Source, size: int, batch_size: int, works_ahead: bool = True) -> Input:
    """Batches that tf.data and tf.image make one image at a time, and the blur of a batch."""

    def make_views(example: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = example if example.dtype == tf.uint8 else decode.decode_image(tf.io.read_file(example))
        return augment_one_image(image, size), augment_one_image(image, size)

    examples = list(source.paths) if isinstance(source, sources.FileSource) else source.images
    dataset = tf.data.Dataset.from_tensor_slices(examples).shuffle(len(examples)).repeat()
    dataset = dataset.map(make_views, num_parallel_calls=tf.data.AUTOTUNE if works_ahead else NUM_CORES)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    dataset = dataset.prefetch(tf.data.AUTOTUNE) if works_ahead else without_buffers(dataset)
    if size <= 32:
        return dataset, lambda *views: tf.concat(views, axis=0)
    return dataset, tf.function(lambda *views: tf.concat([blur_batch(images, size) for images in views], axis=0))


def blur_batch(images: tf.Tensor, size: int) -> tf.Tensor:
    """Blurs half of the images, all with the same sigma, by two depthwise convolutions."""
    radius = size // 20
    offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
    kernel = tf.exp(-tf.square(offsets / tf.random.uniform((), 0.1, 2.0)) / 2.0)
    kernel = tf.tile(tf.reshape(kernel / tf.reduce_sum(kernel), (-1, 1, 1, 1)), (1, 1, 3, 1))
    blurred = tf.nn.depthwise_conv2d(images, kernel, (1, 1, 1, 1), "SAME")
    blurred = tf.nn.depthwise_conv2d(blurred, tf.transpose(kernel, (1, 0, 2, 3)), (1, 1, 1, 1), "SAME")
    is_blurred = tf.random.uniform((tf.shape(images)[0], 1, 1, 1)) < 0.5
    return tf.clip_by_value(tf.where(is_blurred, blurred, images), 0.0, 1.0)


def measure(batches: Iterable, step: Step, num_batches: int, batch_size: int) -> tuple[float, float]:
    """(images per second and core, milliseconds of processor time per image); starts with full buffers."""
    iterator = iter(batches)
    for number in range(WARMUP_BATCHES + num_batches):
        if number == WARMUP_BATCHES:
            start, start_cpu = time.perf_counter(), time.process_time()
        batch = next(iterator)
        views = step(*batch) if isinstance(batch, tuple) else step(batch)
        views[-1, 0, 0, 0].numpy()  # Waits for an accelerator.
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    num_images = num_batches * batch_size
    return num_images / seconds / NUM_CORES, 1000 * cpu_seconds / num_images


def print_parts(source: sources.Source, size: int, options: argparse.Namespace) -> None:
    """Prints the processor time of each part of this package's input alone."""
    batches, step = our_input(source, size, options.batch_size)
    arguments = options.batches, options.batch_size
    first = next(iter(batches))
    device_part = "colours and blur" if first["images"].shape.rank == 5 else "crops and colours"
    seen = {
        "all of the host": measure(batches, lambda batch: batch["images"], *arguments)[1],
        device_part: measure([first] * 1000, step, *arguments)[1],
    }
    if isinstance(source, sources.FileSource):
        decoded = tf.data.Dataset.from_tensor_slices(list(source.paths)).repeat()
        decoded = decoded.map(lambda path: decode.decode_image(tf.io.read_file(path)), tf.data.AUTOTUNE)
        decoded = decoded.map(lambda image: image[tf.newaxis, :1, :1]).batch(options.batch_size)
        seen["of that, reading and decoding"] = measure(decoded, lambda images: images[:, 0], *arguments)[1]
    print("    of our time:", ", ".join(f"{name} {value:.2f} ms" for name, value in seen.items()))


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch_size", type=at_least_1, default=64)
    parser.add_argument(
        "--batches", type=at_least_1, default=16, help="timed batches in a round; 32 px takes 8 times as many"
    )
    parser.add_argument("--rounds", type=at_least_1, default=7)
    options = parser.parse_args()
    print(f"{NUM_CORES} cores, batches of {options.batch_size}, TensorFlow {tf.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(folder)
        file_bytes = np.mean([os.path.getsize(path) for path in files.paths])
        cases = {
            f"224 px from JPEG files ({file_bytes / 1000:.0f} kB)": (files, 224),
            f"96 px from JPEG files ({file_bytes / 1000:.0f} kB)": (files, 96),
            "96 px from memory": (make_array(96), 96),
            "32 px from memory": (make_array(32), 32),
        }
        for name, (source, size) in cases.items():
            inputs = [make(source, size, options.batch_size) for make in (our_input, plain_input)]
            num_batches = options.batches * (8 if size == 32 else 1)
            rounds = [
                [measure(*each, num_batches, options.batch_size) for each in inputs] for _ in range(options.rounds)
            ]
            (ours, our_ms), (plain, plain_ms) = np.median(rounds, axis=0)
            ratios = np.array([(one[0] / other[0], other[1] / one[1]) for one, other in rounds])
            (ratio, cpu_ratio), lowest, highest = np.median(ratios, axis=0), ratios.min(axis=0), ratios.max(axis=0)
            print(
                f"{name}: {ours:,.0f} images/s per core, plain {plain:,.0f}: {ratio:.2f} times "
                f"({lowest[0]:.2f} to {highest[0]:.2f})\n"
                f"    processor time per image: {our_ms:.2f} ms, plain {plain_ms:.2f} ms: {cpu_ratio:.2f} times "
                f"({lowest[1]:.2f} to {highest[1]:.2f})",
                flush=True,
            )
            print_parts(source, size, options)


if __name__ == "__main__":
    main()

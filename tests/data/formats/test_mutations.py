"""Hundreds of damaged files, in the batches of a run."""

import numpy as np
import tensorflow as tf
import zoo

from tf_simclr.augment import Augmentation
from tf_simclr.data import sources
from tf_simclr.data.batches import train_dataset
from tf_simclr.data.formats import decode

MUTATIONS = 520
BATCH = 8
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF\xff\0\0\0WEBPVP8 ", b"RIFF\xff\0\0\0WEBPVP8X")


def mutate(files: list[bytes], rng: np.random.Generator) -> bytes:
    """A file with flipped bits, cut, with bytes inserted or overwritten, with another's header, or random bytes."""
    content = bytearray(files[rng.integers(len(files))])
    other = files[rng.integers(len(files))]
    place = int(rng.integers(len(content)))
    match rng.integers(7):
        case 0:
            for place in rng.integers(len(content), size=rng.integers(1, 9)):
                content[place] ^= 1 << rng.integers(8)
        case 1:
            del content[place:]
        case 2:
            content[place:place] = rng.bytes(rng.integers(1, 40))
        case 3:
            del content[place : place + rng.integers(1, 40)]
        case 4:
            cut = int(rng.integers(4, 60))
            content[:cut] = other[:cut]
        case 5:
            # A header with any size that it can state: the pixels are not there, or too many.
            place = int(rng.integers(4, 40))
            content[place : place + 2] = rng.bytes(2)
        case _:
            content = bytearray(MAGIC[rng.integers(len(MAGIC))] + rng.bytes(rng.integers(0, 3000)))
    return bytes(content)


def run(contents: list[bytes]) -> tuple[np.ndarray, np.ndarray, sources.FileSource]:
    """(views, labels) of an epoch, and the source, which has noticed what was broken."""
    count = len(contents)
    source = sources.FileSource(
        "", tuple(map(str, range(count))), np.arange(count), contents=np.array(contents, object), max_pixels=1_000_000
    )
    batches = train_dataset(
        source,
        global_batch_size=BATCH,
        seed=0,
        total_steps=count // BATCH,
        augmentation=Augmentation(8),
    )
    inputs, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate([batch["images"] for batch in inputs]), np.concatenate(labels), source


def test_damaged_files_crash_nothing_and_leave_their_neighbours_as_they_are():
    rng = np.random.default_rng(0)
    good = [content for name, content in zoo.files().items() if name.endswith(decode.IMAGE_SUFFIXES)]
    contents = [mutate(good, rng) if i % 2 else good[i // 2 % len(good)] for i in range(2 * MUTATIONS)]
    views, labels, source = run(contents)
    expected_views, expected_labels, _ = run([good[i // 2 % len(good)] for i in range(2 * MUTATIONS)])
    is_good = expected_labels % 2 == 0
    np.testing.assert_array_equal(labels[is_good], expected_labels[is_good])
    np.testing.assert_array_equal(views[is_good], expected_views[is_good])
    is_broken = labels != expected_labels
    assert sorted(source.broken.paths()) == sorted(str(label) for label in expected_labels[is_broken])
    assert MUTATIONS / 4 < is_broken.sum() < MUTATIONS


def test_a_broken_file_is_never_taken_for_a_cancelled_step():
    cut_palette = zoo.files()["palette.bmp"][:279]
    cut_header = b"\x89PNG\r\n\x1a\neXIf" + bytes([0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 9])  # ends before its bits
    contents = tf.data.Dataset.from_tensor_slices([cut_palette, cut_header]).repeat(3000)
    sizes = contents.map(lambda content: tf.size(decode.try_decode_image(content)), num_parallel_calls=16)
    assert list(sizes.as_numpy_iterator()) == 6000 * [0]

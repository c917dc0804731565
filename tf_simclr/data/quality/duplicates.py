"""Finds images that may be nearly the same picture by a perceptual hash of each.

The hash is the pHash of C. Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010): take
the lowest frequencies of the cosine transform of the grey image at 32x32, and set a bit for each that is above their
median. The hash hardly changes when an image is scaled, compressed, brightened or trimmed by a little. Among the many
pairs of a large set, some hashes are close by chance, so a pair must also have nearly proportional coefficients. Still,
pictures of one layout pass: what a pair shows is compared by `pixels`. docs/checking.md has the measurements behind the
thresholds.
"""

import collections
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy.sparse import coo_array, csgraph

GREY_SIZE_PX = 32
HASH_BITS = 64
MAX_DISTANCE = 6  # bits
MIN_CORRELATION = 0.9
# Standard deviation of the grey levels below which an image shows nothing that a hash could capture.
MIN_CONTRAST = 0.5
MAX_PAIRS = 1 << 14
# More images than this, joined from pair to pair, are a series rather than copies of one picture.
MAX_COPIES = 20

_FREQUENCIES = 8
# Hashes that differ in at most MAX_DISTANCE bits agree in at least three of nine blocks, which are looked up.
_NUM_BLOCKS = 9
_BLOCKS = [sum(1 << int(bit) for bit in bits) for bits in np.array_split(np.arange(HASH_BITS), _NUM_BLOCKS)]
_MAX_NEIGHBOURS = 1024
_BIT_COUNTS = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(
    axis=1, dtype=np.uint8
)


class Looks(NamedTuple):
    """What N images look like.

    Attributes:
      hashes: uint64 [N], perceptual hashes.
      patterns: float16 [N, 63], the coefficients behind them, as vectors of unit length.
      contrasts: float32 [N], standard deviation of the grey levels, from 0 to 127.5.
    """

    hashes: np.ndarray
    patterns: np.ndarray
    contrasts: np.ndarray


def to_grey(images: tf.Tensor) -> tf.Tensor:
    """uint8 [..., H, W, 3] -> float32 [..., 32, 32], grey levels; every pixel is the mean of an area."""
    size = [GREY_SIZE_PX, GREY_SIZE_PX]
    return tf.image.rgb_to_grayscale(tf.image.resize(images, size, tf.image.ResizeMethod.AREA))[..., 0]


def describe(grey: tf.Tensor) -> Looks:
    """The looks of images, float32 [N, 32, 32], in grey levels."""
    spectrum = tf.signal.dct(tf.linalg.matrix_transpose(tf.signal.dct(grey))).numpy()
    corner = spectrum[:, :_FREQUENCIES, :_FREQUENCIES].reshape(len(spectrum), -1)
    patterns = corner[:, 1:]
    # The first coefficient is the mean of the image. Its bit goes to the next frequency along one axis.
    bits = np.concatenate([spectrum[:, :1, _FREQUENCIES], patterns], axis=1)
    bits = bits > np.median(patterns, axis=1, keepdims=True)
    lengths = np.linalg.norm(patterns, axis=1, keepdims=True)
    return Looks(
        np.packbits(bits, axis=1).view(np.uint64)[:, 0],
        (patterns / np.maximum(lengths, 1e-6)).astype(np.float16),
        tf.math.reduce_std(grey, axis=[1, 2]).numpy(),
    )


def near_pairs(looks: Looks, max_pairs: int = MAX_PAIRS) -> np.ndarray:
    """Finds the images that may be nearly the same: those of similar hashes and patterns.

    Images without contrast have no pairs. The time grows with N log N and with the number of pairs whose hashes agree
    in three blocks, a small part of all pairs as long as the images differ; the memory grows with N.

    Args:
      looks: What N images look like.
      max_pairs: The largest number of pairs to return: those with the most similar patterns.

    Returns:
      Pairs of positions, int64 [n, 2], each once.
    """
    searched = np.flatnonzero(looks.contrasts >= MIN_CONTRAST)
    found, likenesses = np.empty([0, 2], np.int64), np.empty(0, np.float32)
    for blocks in itertools.combinations(range(_NUM_BLOCKS), _NUM_BLOCKS - MAX_DISTANCE):
        keys = looks.hashes[searched] & np.uint64(sum(_BLOCKS[block] for block in blocks))
        order = np.lexsort([looks.hashes[searched], keys])
        for pairs in _equal_keys(searched[order], keys[order]):
            pairs = pairs[_is_first(blocks, *looks.hashes[pairs.T])]
            alike = _correlations(looks, pairs)
            found = np.concatenate([found, pairs[alike >= MIN_CORRELATION]])
            likenesses = np.concatenate([likenesses, alike[alike >= MIN_CORRELATION]])
            if len(found) > 2 * max_pairs:
                found, likenesses = _best(found, likenesses, max_pairs)
    return _best(found, likenesses, max_pairs)[0]


def _equal_keys(members: np.ndarray, keys: np.ndarray) -> Iterator[np.ndarray]:
    """Yields pairs of members that have equal keys, int64 [n, 2]; `keys` are sorted.

    In a large set of images that all look alike, each is paired with the next _MAX_NEIGHBOURS only.
    """
    left = np.arange(len(members))
    for offset in range(1, _MAX_NEIGHBOURS + 1):
        left = left[left + offset < len(members)]
        left = left[keys[left + offset] == keys[left]]
        if not left.size:
            return
        yield np.sort(np.stack([members[left], members[left + offset]], axis=1), axis=1)


def _is_first(blocks: Sequence[int], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether pairs of hashes are close, and `blocks` are the first three blocks in which they agree, bool [n]."""
    differing = first ^ second
    is_first = _BIT_COUNTS[differing.view(np.uint16).reshape(-1, 4)].sum(axis=1) <= MAX_DISTANCE
    for block in set(range(blocks[-1])) - set(blocks):
        is_first &= (differing & np.uint64(_BLOCKS[block])) != 0
    return is_first


def _correlations(looks: Looks, pairs: np.ndarray) -> np.ndarray:
    """The correlation of the patterns of each pair of images, float32 [n]."""
    first, second = (looks.patterns[indices].astype(np.float32) for indices in pairs.T)
    return np.einsum("nc,nc->n", first, second)


def _best(pairs: np.ndarray, likenesses: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of largest likeness, at most `count` of them."""
    best = np.sort(np.argsort(-likenesses, kind="stable")[:count])
    return pairs[best], likenesses[best]


def stars(pairs: np.ndarray) -> list[np.ndarray]:
    """Groups images so that in each group, one of them is paired with all others.

    Pairs are not followed from image to image: a few wrong ones would join a whole set. An image may be in two groups.

    Args:
      pairs: int64 [n, 2].

    Returns:
      Positions of images, each int64 [at least 2] and increasing. Every pair is in one of the groups.
    """
    partners: dict[int, set[int]] = collections.defaultdict(set)
    for first, second in pairs.tolist():
        partners[first].add(second)
        partners[second].add(first)
    groups: list[np.ndarray] = []
    homes: dict[int, set[int]] = collections.defaultdict(set)
    for center in sorted(partners, key=lambda image: (-len(partners[image]), image)):
        members = [image for image in partners[center] if not homes[image] & homes[center]]
        if members:
            for image in (center, *members):
                homes[image].add(len(groups))
            groups.append(np.sort([center, *members]))
    return groups


def split_series(pairs: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Tells copies from series: sets of images that differ in little, such as labels that differ in their number.

    A picture has a few copies. In a series, every image also looks like others, and no pair can be told from a copy.

    Args:
      pairs: int64 [n, 2].

    Returns:
      (pairs, series): the pairs outside of series, int64 [m, 2], and the positions of the images of every series, each
      int64 [more than MAX_COPIES] and increasing.
    """
    if not len(pairs):
        return pairs, []
    images, ends = np.unique(pairs, return_inverse=True)
    first, second = ends.reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=[images.size] * 2)
    _, sets = csgraph.connected_components(graph, directed=False)
    is_long = np.bincount(sets) > MAX_COPIES
    series = [images[sets == number] for number in np.flatnonzero(is_long)]
    return pairs[~is_long[sets[first]]], series

"""Finds images that are nearly the same picture by a perceptual hash of each.

The hash is the pHash of C. Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010): take
the lowest frequencies of the cosine transform of the grey image at 32x32, and set a bit for each that is above their
median. The hash hardly changes when an image is scaled, compressed, brightened or trimmed by a little. Among the many
pairs of a large set, some hashes are close by chance, so a pair must also have nearly proportional coefficients
(docs/checking.md has the measurements behind the two thresholds).
"""

import itertools
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

GREY_SIZE_PX = 32
HASH_BITS = 64
MAX_DISTANCE = 6  # bits
MIN_CORRELATION = 0.97
# Standard deviation of the grey levels below which an image shows nothing that a hash could capture.
MIN_CONTRAST = 2.0

_FREQUENCIES = 8
# Hashes that differ in at most MAX_DISTANCE bits agree in at least three of nine blocks, which are looked up.
_NUM_BLOCKS = 9
_BLOCKS = [sum(1 << int(bit) for bit in bits) for bits in np.array_split(np.arange(HASH_BITS), _NUM_BLOCKS)]
_MAX_PAIRS = 1 << 20
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


def near_groups(looks: Looks) -> np.ndarray:
    """Groups images that look nearly the same as at least one other image of their group.

    Images without contrast stay alone. The time grows with N log N and with the number of pairs whose hashes agree in
    three blocks, a small part of all pairs as long as the images differ; the memory grows with N.

    Returns:
      The group of every image, int64 [N]; equal numbers mean the same group.
    """
    hashes = looks.hashes
    groups = np.arange(len(hashes))
    searched = np.flatnonzero(looks.contrasts >= MIN_CONTRAST)
    # Many copies of one image would make too many pairs, so each is compared only with the first that has its hash.
    _, first, inverse = np.unique(hashes[searched], return_index=True, return_inverse=True)
    twins = searched[first[inverse]]
    is_copy = (twins != searched) & _are_alike(looks, searched, twins)
    groups = _unite(groups, [(searched[is_copy], twins[is_copy])])
    searched = searched[~is_copy]
    for blocks in itertools.combinations(_BLOCKS, _NUM_BLOCKS - MAX_DISTANCE):
        keys = hashes[searched] & np.uint64(sum(blocks))
        order = np.argsort(keys)
        groups = _unite_equal_keys(looks, groups, searched[order], keys[order])
    return groups


def _unite_equal_keys(looks: Looks, groups: np.ndarray, members: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Unites members that have equal keys and are alike; `keys` are sorted."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    left = np.arange(len(members))
    for offset in itertools.count(1):
        left = left[left + offset < len(members)]
        left = left[keys[left + offset] == keys[left]]
        if not left.size:
            return _unite(groups, found)
        pairs = np.stack([members[left], members[left + offset]])
        pairs = pairs[:, groups[pairs[0]] != groups[pairs[1]]]
        first, second = pairs[:, _distances(*looks.hashes[pairs]) <= MAX_DISTANCE]
        alike = _are_alike(looks, first, second)
        found.append((first[alike], second[alike]))
        if sum(len(some) for some, _ in found) > _MAX_PAIRS:
            groups, found = _unite(groups, found), []
    return groups


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The number of differing bits for each pair of hashes, uint64 [n]."""
    return _BIT_COUNTS[(first ^ second).view(np.uint16).reshape(-1, 4)].sum(axis=1)


def _are_alike(looks: Looks, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether the patterns of each pair of images are nearly proportional, bool [n]."""
    alike = np.empty(len(first), bool)
    for start in range(0, len(first), _MAX_PAIRS):
        part = slice(start, start + _MAX_PAIRS)
        patterns = (looks.patterns[indices[part]].astype(np.float32) for indices in (first, second))
        alike[part] = np.einsum("nc,nc->n", *patterns) >= MIN_CORRELATION
    return alike


def _unite(groups: np.ndarray, pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Joins the groups that the pairs connect."""
    first, second = (np.concatenate(column) for column in zip(*pairs, strict=True)) if pairs else (groups[:0],) * 2
    if not len(first):
        return groups
    size = len(groups)
    edges = coo_array((np.ones(len(first), bool), (groups[first], groups[second])), shape=(size, size))
    return connected_components(edges, directed=False)[1][groups].astype(np.int64)

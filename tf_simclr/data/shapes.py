"""The embedded data set `shapes`: ten shapes, 32x32 RGB, drawn here instead of downloaded.

The class is the outline of the one large shape of an image, and nothing else. Everything else is drawn independently
of the class: position, size, rotation and aspect of the shape; colour and texture (flat, gradient, stripes, checker,
blotches) of the shape and of the background; which of the two is the lighter one; clutter (dots and strokes, behind
and in front of the shape); a lighting gradient; pixel noise. So colours tell next to nothing about the class, and a
linear classifier on pixels little, while a representation that is invariant to colour, place and size tells it well.

The pixels follow from the seed on every platform: the arithmetic is elementwise float32 with the operations that
IEEE 754 rounds exactly (no sine, no logarithm, no matrix product, no order-dependent sum) on PCG64's uniform numbers.
"""

from __future__ import annotations

import os
import pathlib
import tempfile
import zipfile

import numpy as np
from absl import logging

CLASS_NAMES = ("disk", "ring", "rectangle", "triangle", "cross", "star", "crescent", "bars", "dots", "hourglass")
IMAGE_SIZE_PX = 32
NUM_EXAMPLES = {"train": 10_000, "test": 2_000}

_VERSION = 1  # part of the cache's name and of the random stream: raise it when the pixels change
_BLOCK = 250  # images drawn at a time, so that the work arrays stay in the processor's cache
_MAX_CLUTTER = 3

_SQRT_HALF = np.float32(0.70710678)
# Outward normals of a triangle (first point up) and of a pentagram, as constants because cos() differs by platform.
_TRIANGLE = ((0.8660254, 0.5), (-0.8660254, 0.5), (0.0, -1.0))
_PENTAGRAM = (
    (0.0, -1.0),
    (0.95105652, -0.30901699),
    (0.58778525, 0.80901699),
    (-0.58778525, 0.80901699),
    (-0.95105652, -0.30901699),
)


def _length(x, y):
    return np.sqrt(x * x + y * y)


def _box(x, y, half_width, half_height):
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _half_planes(x, y, normals, offset):
    return np.stack([np.float32(a) * x + np.float32(b) * y - np.float32(offset) for a, b in normals])


# Signed distances (negative inside) in the shape's own frame, where it fills about the unit disk; y points up.
_OUTLINES = {
    "disk": lambda x, y: _length(x, y) - 0.85,
    "ring": lambda x, y: np.abs(_length(x, y) - 0.72) - 0.22,
    "rectangle": lambda x, y: _box(x, y, 0.95, 0.5),
    "triangle": lambda x, y: _half_planes(x, y, _TRIANGLE, 0.52).max(0),
    "cross": lambda x, y: np.minimum(_box(x, y, 1.05, 0.2), _box(x, y, 0.2, 1.05)),
    "star": lambda x, y: np.partition(_half_planes(x, y, _PENTAGRAM, 0.36), 3, axis=0)[3],  # all but one hold
    "crescent": lambda x, y: np.maximum(_length(x, y) - 0.95, 0.72 - _length(x - 0.5, y)),
    "bars": lambda x, y: _box(x, np.abs(y) - 0.52, 0.9, 0.24),
    "dots": lambda x, y: np.minimum(_length(np.abs(x) - 0.52, y + 0.3), _length(x, y - 0.6)) - 0.4,
    "hourglass": lambda x, y: np.maximum((np.abs(x) - np.abs(y)) * _SQRT_HALF - 0.08, np.abs(y) - 0.8),
}


def load(split: str, *, seed: int = 0, cache_dir: str | os.PathLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Draws a split of the data set, or reads it from the cache.

    Args:
      split: "train" (10,000 images) or "test" (2,000), from different random streams.
      seed: Other seeds give other images of the same kind, >= 0.
      cache_dir: Folder for the cache; default `$XDG_CACHE_HOME/tf_simclr`, or `~/.cache/tf_simclr`. One that cannot
        be written costs a warning, and drawing the images again next time (a few seconds).

    Returns:
      Images uint8 [N, 32, 32, 3] and labels int64 [N], positions in `CLASS_NAMES`; every class equally often.

    Raises:
      ValueError: If the split is unknown or the seed negative.
    """
    if split not in NUM_EXAMPLES:
        raise ValueError(f"split of the shapes data must be train or test. Received: {split}")
    if seed < 0:
        raise ValueError(f"seed of the shapes data must not be negative. Received: {seed}")
    if cache_dir is None:
        cache_dir = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tf_simclr"
    path = pathlib.Path(cache_dir) / f"shapes_v{_VERSION}_seed{seed}_{split}.npz"
    try:
        with np.load(path) as cached:
            return cached["images"], cached["labels"]
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logging.warning("Drawing the shapes data again, because its cache %s cannot be read: %s", path, error)
    images, labels = draw(NUM_EXAMPLES[split], np.random.PCG64([_VERSION, seed, sorted(NUM_EXAMPLES).index(split)]))
    _write_cache(path, images, labels)
    return images, labels


def _write_cache(path, images, labels):
    """Writes beside and renames, so that a reader never sees half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            try:
                np.savez(file, images=images, labels=labels)
                file.close()
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        logging.warning("Cannot keep the shapes data in %s; it is drawn again next time: %s", path, error)


def draw(num_examples: int, bits: np.random.BitGenerator) -> tuple[np.ndarray, np.ndarray]:
    """Draws images uint8 [N, 32, 32, 3] and labels int64 [N], every class equally often (up to one)."""
    rng = np.random.Generator(bits)
    labels = rng.permutation(np.arange(num_examples) % len(CLASS_NAMES))
    blocks = [_draw_block(labels[start : start + _BLOCK], rng) for start in range(0, num_examples, _BLOCK)]
    return np.concatenate(blocks), labels


def _draw_block(labels, rng):
    n = len(labels)
    grid = np.arange(IMAGE_SIZE_PX, dtype=np.float32) - np.float32((IMAGE_SIZE_PX - 1) / 2)
    x, y = grid[None, None, :], grid[None, :, None]
    base, shape_base = _two_colors(rng, n)
    image = _textured(rng, base, x, y)
    image = _with_clutter(rng, image, x, y, _MAX_CLUTTER)
    image = _blend(image, _textured(rng, shape_base, x, y), _shape_coverage(rng, labels, x, y))
    image = _with_clutter(rng, image, x, y, FRONT_CLUTTER)
    slope = _uniform(rng, (2, n, 1, 1), -LIGHT, LIGHT) / IMAGE_SIZE_PX
    image *= (1 + slope[0] * x + slope[1] * y)[..., None]
    image += _uniform(rng, (n, 1, 1, 1), NOISE_LOW, NOISE_HIGH) * (
        rng.random(image.shape, np.float32) + rng.random(image.shape, np.float32) - 1
    )
    return (np.clip(image, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


LIGHT = 0.4
NOISE_LOW, NOISE_HIGH = 0.02, 0.06
FRONT_CLUTTER = 1
MIN_CONTRAST = 0.35
CHROMA = 0.5
TEX = 0.08
TEXC = 0.12
CENTER = 4.0
RMIN, RMAX = 9.0, 12.5


def _uniform(rng, shape, low, high):
    return rng.random(shape, np.float32) * np.float32(high - low) + np.float32(low)


def _directions(rng, shape):
    """Unit vectors (2, *shape), of even angle: the first of eight points that lies in the unit disk, normalised."""
    points = _uniform(rng, (2, 8, *shape), -1, 1)
    inside = (points[0] ** 2 + points[1] ** 2) <= 1
    first = np.argmax(inside, axis=0)[None, None]
    point = np.take_along_axis(points, first, axis=1)[:, 0]
    return point / np.maximum(_length(point[0], point[1]), np.float32(1e-3))


def _color(rng, lightness, chroma=None):
    """RGB of about this lightness, with a random tint."""
    chroma = chroma or CHROMA
    tint = _uniform(rng, (*lightness.shape, 3), -chroma / 2, chroma / 2)
    mean = (tint[..., 0] + tint[..., 1] + tint[..., 2]) / np.float32(3)
    return lightness[..., None] + tint - mean[..., None]


def _two_colors(rng, n):
    """Colours of background and shape [n, 3]; their lightness differs by MIN_CONTRAST or more, either way round."""
    span = 0.7
    background = _uniform(rng, n, 0, span)
    shape = background + _uniform(rng, n, MIN_CONTRAST, span - MIN_CONTRAST)
    shape = np.where(shape > span, shape - np.float32(span), shape)
    return _color(rng, background + np.float32(0.15)), _color(rng, shape + np.float32(0.15))


def _textured(rng, base, x, y):
    """Float images [n, 32, 32, 3] of a colour with a texture: flat, gradient, stripes, checker or blotches."""
    n = len(base)
    kind = rng.integers(0, 5, n)[:, None, None]
    c, s = _directions(rng, (n, 1, 1))
    period, phase_u, phase_v = (
        _uniform(rng, (n, 1, 1), 4, 10),
        _uniform(rng, (n, 1, 1), 0, 1),
        _uniform(rng, (n, 1, 1), 0, 1),
    )
    u, v = (c * x + s * y) / period + phase_u, (c * y - s * x) / period + phase_v
    wave_u, wave_v = _triangle_wave(u), _triangle_wave(v)
    coarse = _uniform(rng, (n, 6, 6), -1.5, 1.5)
    gradient = (c * x + s * y) / np.float32(16)
    pattern = np.where(kind == 0, np.float32(0), gradient)
    pattern = np.where(kind == 2, np.clip(3 * wave_u, -1, 1), pattern)
    pattern = np.where(kind == 3, np.clip(4 * wave_u * wave_v, -1, 1), pattern)
    pattern = np.where(kind == 4, _upsampled(coarse), pattern)
    tint = _color(rng, _uniform(rng, n, -TEX, TEX), TEXC)
    return base[:, None, None, :] + pattern[..., None] * tint[:, None, None, :]


def _triangle_wave(phase):
    return 4 * np.abs(phase - np.floor(phase) - np.float32(0.5)) - 1


def _upsampled(coarse):
    """Bilinear interpolation of [n, 6, 6] to [n, 32, 32]."""
    at = np.arange(IMAGE_SIZE_PX, dtype=np.float32) * np.float32(5 / IMAGE_SIZE_PX)
    low = at.astype(int)
    share = at - low
    rows = coarse[:, low] * (1 - share)[:, None] + coarse[:, low + 1] * share[:, None]
    return rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share


def _shape_coverage(rng, labels, x, y):
    """Share of every pixel that the shape covers, [n, 32, 32]."""
    n = len(labels)
    c, s = _directions(rng, (n, 1, 1))
    center = _uniform(rng, (2, n, 1, 1), -CENTER, CENTER)
    radius = _uniform(rng, (n, 1, 1), RMIN, RMAX)
    stretch = _uniform(rng, (n, 1, 1), 0.85, 1.15)
    u = (c * (x - center[0]) + s * (y - center[1])) / (radius * stretch)
    v = (c * (y - center[1]) - s * (x - center[0])) * stretch / radius
    distance = np.empty_like(u)
    for label, name in enumerate(CLASS_NAMES):
        mine = labels == label
        distance[mine] = _OUTLINES[name](u[mine], v[mine])
    return np.clip(np.float32(0.5) - distance * radius, 0, 1)


def _blend(image, color, coverage):
    return image + (color - image) * coverage[..., None]


def _with_clutter(rng, image, x, y, most):
    """Draws up to `most` dots and strokes over the image."""
    n = len(image)
    number = rng.integers(0, most + 1, n)[:, None, None]
    for position in range(most):
        c, s = _directions(rng, (n, 1, 1))
        center = _uniform(rng, (2, n, 1, 1), -16, 16)
        half_length = np.maximum(_uniform(rng, (n, 1, 1), -4, 5), 0)
        half_width = _uniform(rng, (n, 1, 1), 0.6, 1.6)
        along, across = c * (x - center[0]) + s * (y - center[1]), c * (y - center[1]) - s * (x - center[0])
        distance = _length(np.maximum(np.abs(along) - half_length, 0), across) - half_width
        coverage = np.clip(np.float32(0.5) - distance, 0, 1) * (position < number)
        image = _blend(image, _color(rng, _uniform(rng, n, 0.1, 0.9))[:, None, None], coverage)
    return image

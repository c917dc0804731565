"""The embedded data set `shapes`: ten shapes, 32x32 RGB, drawn here instead of downloaded.

The class is the outline of the one large shape in an image. Everything else is drawn independently of the class:
position, size, rotation and stretch of the shape; colour and texture (flat, gradient, stripes, checker, blotches) of
the shape and of the background; which of the two is lighter; clutter (dots and strokes, behind and in front of the
shape); a lighting gradient; pixel noise. So colours reveal next to nothing about the class, and pixels reveal little to
a linear classifier, while a representation that ignores colour, place, size and texture reveals it well.

The pixels follow from the seed on every platform: they come from PCG64's uniform numbers through elementwise float32
operations that IEEE 754 rounds exactly (no sine, no logarithm, no matrix product, no sum whose order could differ).
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from tf_simclr import files

CLASS_NAMES = (
    "disk", "ring", "rectangle", "triangle", "cross", "star", "crescent", "bars", "dots", "hourglass",
)  # fmt: skip
NUM_EXAMPLES = {"train": 10_000, "test": 2_000}
IMAGE_SIZE_PX = 32

_VERSION = 1  # Part of the cache's name and of the random stream: raise it when the pixels change.
_STREAMS = {"test": 0, "train": 1}
_BLOCK = 250  # Images drawn at a time, so that the work arrays stay in the processor's cache.

# How far each nuisance goes. Lightness and colour are in [0, 1].
_RADIUS_PX = (9.0, 12.5)
_LARGEST_SHIFT_PX = 4.0
_STRETCH = (0.85, 1.15)  # Along one axis; the other shrinks as much.
_LIGHTNESS = (0.15, 0.85)
_MIN_CONTRAST = 0.35  # Between the lightness of the shape and that of the background, either way round.
_TINT = 0.5  # Full range of a colour's deviation from gray, per channel.
_TEXTURE_CONTRAST, _TEXTURE_TINT = 0.08, 0.12
_TEXTURE_PERIOD_PX = (4.0, 10.0)
_MOST_BEHIND, _MOST_IN_FRONT = 3, 1  # Pieces of clutter.
_LIGHTING = 0.4  # Largest change of brightness across the image, along each axis.
_NOISE = (0.02, 0.06)  # Half the range of the triangular noise, drawn per image.

_SQRT_HALF = np.float32(0.70710678)
# Outward normals of a triangle and of a pentagram's five lines, as constants because cos() differs by platform.
_TRIANGLE = ((0.8660254, 0.5), (-0.8660254, 0.5), (0.0, -1.0))
_PENTAGRAM = (
    (0.0, -1.0),
    (0.95105652, -0.30901699),
    (0.58778525, 0.80901699),
    (-0.58778525, 0.80901699),
    (-0.95105652, -0.30901699),
)


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y)


def _box(x: np.ndarray, y: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _lines(x: np.ndarray, y: np.ndarray, normals: Sequence[tuple[float, float]], offset: float) -> np.ndarray:
    return np.stack([a * x + b * y - offset for a, b in normals])


# Signed distances (negative inside) in the shape's own frame, where it fills about the unit disk.
_OUTLINES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disk": lambda x, y: _length(x, y) - 0.85,
    "ring": lambda x, y: np.abs(_length(x, y) - 0.72) - 0.22,
    "rectangle": lambda x, y: _box(x, y, 0.95, 0.5),
    "triangle": lambda x, y: _lines(x, y, _TRIANGLE, 0.52).max(axis=0),
    "cross": lambda x, y: np.minimum(_box(x, y, 1.05, 0.2), _box(x, y, 0.2, 1.05)),
    # A pentagram is where at least four of its five lines are not crossed.
    "star": lambda x, y: np.partition(_lines(x, y, _PENTAGRAM, 0.36), 3, axis=0)[3],
    "crescent": lambda x, y: np.maximum(_length(x, y) - 0.95, 0.72 - _length(x - 0.5, y)),
    "bars": lambda x, y: _box(x, np.abs(y) - 0.52, 0.9, 0.24),
    "dots": lambda x, y: np.minimum(_length(np.abs(x) - 0.52, y + 0.3), _length(x, y - 0.6)) - 0.4,
    "hourglass": lambda x, y: np.maximum((np.abs(x) - np.abs(y)) * _SQRT_HALF - 0.08, np.abs(y) - 0.8),
}


def load(
    split: str, *, seed: int = 0, cache_dir: str | os.PathLike[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a split of the data set, or reads it from the cache.

    Args:
      split: "train" (10,000 images) or "test" (2,000), from different random streams.
      seed: Other seeds give other images of the same kind; >= 0.
      cache_dir: Folder for the cache; default `$XDG_CACHE_HOME/tf_simclr`, or `~/.cache/tf_simclr`. If it cannot be
        written, the log warns, and the images are drawn again next time (about two seconds). So they are, without a
        word, for a user without a home.

    Returns:
      Images uint8 [N, 32, 32, 3] and labels int64 [N], positions in `CLASS_NAMES`; all classes are equally frequent.

    Raises:
      ValueError: If the split is unknown or the seed negative.
    """
    if split not in NUM_EXAMPLES:
        raise ValueError(f"split of the shapes data must be train or test. Received: {split}")
    if seed < 0:
        raise ValueError(f"seed of the shapes data must not be negative. Received: {seed}")
    if cache_dir is None:
        cache_dir = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "tf_simclr")
    path = pathlib.Path(cache_dir) / f"shapes_v{_VERSION}_seed{seed}_{split}.npz"
    try:
        with np.load(path) as cached:
            return cached["images"], cached["labels"]
    except FileNotFoundError:
        pass
    except files.DAMAGED as error:
        logging.warning("Drawing the shapes data again, because its cache %s cannot be read: %s", path, error)
    images, labels = draw(NUM_EXAMPLES[split], np.random.Generator(np.random.PCG64([_VERSION, seed, _STREAMS[split]])))
    if str(cache_dir).startswith("~"):
        return images, labels
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as beside:
            np.savez(beside, images=images, labels=labels)
    except OSError as error:
        logging.warning("The shapes data is not cached, because its cache %s cannot be written: %s", path, error)
    return images, labels


def draw(num_examples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws images uint8 [N, 32, 32, 3] and labels int64 [N]; class counts differ by at most one."""
    labels = rng.permutation(np.arange(num_examples, dtype=np.int64) % len(CLASS_NAMES))
    blocks = [_draw_block(labels[start : start + _BLOCK], rng) for start in range(0, num_examples, _BLOCK)]
    return np.concatenate(blocks), labels


def _draw_block(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = len(labels)
    offsets = np.arange(IMAGE_SIZE_PX, dtype=np.float32) - np.float32((IMAGE_SIZE_PX - 1) / 2)
    x, y = offsets[None, None, :], offsets[None, :, None]
    background, foreground = _two_colors(rng, n)
    image = _textured(rng, background, x, y)
    image = _with_clutter(rng, image, x, y, _MOST_BEHIND)
    image = _blend(image, _textured(rng, foreground, x, y), _coverage(rng, labels, x, y))
    image = _with_clutter(rng, image, x, y, _MOST_IN_FRONT)
    slope_x, slope_y = _uniform(rng, (2, n, 1, 1), -_LIGHTING, _LIGHTING) / IMAGE_SIZE_PX
    image *= (1 + slope_x * x + slope_y * y)[..., None]
    amplitude = _uniform(rng, (n, 1, 1, 1), *_NOISE)
    image += amplitude * (rng.random(image.shape, np.float32) + rng.random(image.shape, np.float32) - 1)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _uniform(rng: np.random.Generator, shape: int | tuple[int, ...], low: float, high: float) -> np.ndarray:
    return rng.random(shape, np.float32) * np.float32(high - low) + np.float32(low)


def _directions(rng: np.random.Generator, n: int) -> np.ndarray:
    """Unit vectors [2, n, 1, 1] of uniform angle: the first of eight points that lies in the unit disk, normalised."""
    points = _uniform(rng, (2, 8, n, 1, 1), -1, 1)
    first = np.argmax(points[0] ** 2 + points[1] ** 2 <= 1, axis=0)[None, None]
    point = np.take_along_axis(points, first, axis=1)[:, 0]
    return point / np.maximum(_length(point[0], point[1]), np.float32(1e-3))


def _color(rng: np.random.Generator, lightness: np.ndarray, tint_range: float = _TINT) -> np.ndarray:
    """RGB [n, 3] whose mean is the lightness [n], with a random tint."""
    tint = _uniform(rng, (len(lightness), 3), -tint_range / 2, tint_range / 2)
    mean = (tint[:, 0] + tint[:, 1] + tint[:, 2]) / 3
    return lightness[:, None] + tint - mean[:, None]


def _two_colors(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours [n, 3] of background and shape. Each has the same distribution; either may be the lighter one."""
    span = np.float32(_LIGHTNESS[1] - _LIGHTNESS[0])
    background = _uniform(rng, n, 0, span)
    foreground = background + _uniform(rng, n, _MIN_CONTRAST, span - _MIN_CONTRAST)
    foreground = np.where(foreground > span, foreground - span, foreground)
    return _color(rng, background + _LIGHTNESS[0]), _color(rng, foreground + _LIGHTNESS[0])


def _textured(rng: np.random.Generator, color: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Images float32 [n, 32, 32, 3] of a colour that is flat or varies in one of four patterns."""
    n = len(color)
    kind = rng.integers(0, 5, n)[:, None, None]
    cosine, sine = _directions(rng, n)
    period = _uniform(rng, (n, 1, 1), *_TEXTURE_PERIOD_PX)
    phase_u, phase_v = _uniform(rng, (2, n, 1, 1), 0, 1)
    u, v = cosine * x + sine * y, cosine * y - sine * x
    wave_u, wave_v = _triangle_wave(u / period + phase_u), _triangle_wave(v / period + phase_v)
    blotches = _upsampled(_uniform(rng, (n, 6, 6), -1.5, 1.5))
    stripes, checker = np.clip(3 * wave_u, -1, 1), np.clip(4 * wave_u * wave_v, -1, 1)
    pattern = np.choose(kind, [np.float32(0), u / 16, stripes, checker, blotches])
    change = _color(rng, _uniform(rng, n, -_TEXTURE_CONTRAST, _TEXTURE_CONTRAST), _TEXTURE_TINT)
    return color[:, None, None] + pattern[..., None] * change[:, None, None]


def _triangle_wave(phase: np.ndarray) -> np.ndarray:
    return 4 * np.abs(phase - np.floor(phase) - np.float32(0.5)) - 1


def _upsampled(coarse: np.ndarray) -> np.ndarray:
    """Bilinear interpolation of [n, 6, 6] to [n, 32, 32]."""
    position = np.arange(IMAGE_SIZE_PX, dtype=np.float32) * np.float32(5 / IMAGE_SIZE_PX)
    low = position.astype(np.int64)
    share = position - low.astype(np.float32)
    rows = coarse[:, low] * (1 - share)[:, None] + coarse[:, low + 1] * share[:, None]
    return rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share


def _coverage(rng: np.random.Generator, labels: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Share of every pixel that the shape covers, [n, 32, 32]: its edges are anti-aliased."""
    n = len(labels)
    cosine, sine = _directions(rng, n)
    center_x, center_y = _uniform(rng, (2, n, 1, 1), -_LARGEST_SHIFT_PX, _LARGEST_SHIFT_PX)
    radius = _uniform(rng, (n, 1, 1), *_RADIUS_PX)
    stretch = _uniform(rng, (n, 1, 1), *_STRETCH)
    u = (cosine * (x - center_x) + sine * (y - center_y)) / (radius * stretch)
    v = (cosine * (y - center_y) - sine * (x - center_x)) * stretch / radius
    distance = np.empty_like(u)
    for label, name in enumerate(CLASS_NAMES):
        members = labels == label
        distance[members] = _OUTLINES[name](u[members], v[members])
    return np.clip(np.float32(0.5) - distance * radius, 0, 1)


def _blend(image: np.ndarray, over: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    return image + (over - image) * coverage[..., None]


def _with_clutter(rng: np.random.Generator, image: np.ndarray, x: np.ndarray, y: np.ndarray, most: int) -> np.ndarray:
    """Draws up to `most` dots and strokes over every image."""
    n = len(image)
    number = rng.integers(0, most + 1, n)[:, None, None]
    for index in range(most):
        cosine, sine = _directions(rng, n)
        center_x, center_y = _uniform(rng, (2, n, 1, 1), -IMAGE_SIZE_PX / 2, IMAGE_SIZE_PX / 2)
        half_length = np.maximum(_uniform(rng, (n, 1, 1), -4, 5), 0)  # Nearly half of them are dots.
        half_width = _uniform(rng, (n, 1, 1), 0.6, 1.6)
        along = np.abs(cosine * (x - center_x) + sine * (y - center_y))
        across = cosine * (y - center_y) - sine * (x - center_x)
        distance = _length(np.maximum(along - half_length, 0), across) - half_width
        coverage = np.clip(np.float32(0.5) - distance, 0, 1) * (index < number)
        image = _blend(image, _color(rng, _uniform(rng, n, 0.1, 0.9))[:, None, None], coverage)
    return image

"""Pictures of some images: with the views that the run makes from them, and side by side with their near duplicates."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tf_simclr.augment import Augmentation
from tf_simclr.data.batches.views import crop_views
from tf_simclr.data.files.names import in_print
from tf_simclr.data.sources import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 2
_NAME_CHARACTERS = 44


def write_sheet(
    samples: list[Sample],
    augmentation: Augmentation,
    has_one_size: bool,
    path: pathlib.Path,
    small_views: Augmentation | None = None,
) -> None:
    """Writes a PNG file of images, each with its views of epoch 0 beside it, the small ones last."""
    # Importing Matplotlib takes a second and writes a cache of its fonts.
    from matplotlib.figure import Figure

    rows = -(-len(samples) // _COLUMNS)
    made = {"view": augmentation} | ({"small view": small_views} if small_views else {})
    titles = [f"{name} {number}" for name, one in made.items() for number in range(1, 1 + one.num_views)]
    width = 1 + len(titles)
    figure = Figure(figsize=(1.9 * width * _COLUMNS, 2.15 * rows), layout="constrained")
    axes = figure.subplots(rows, width * _COLUMNS, squeeze=False).reshape(rows * _COLUMNS, width)
    for panel in axes.flat:
        panel.set_axis_off()
    for row, sample in zip(axes, samples, strict=False):
        views = [view for one in made.values() for view in make_views(sample, one, has_one_size)]
        for panel, image in zip(row, [sample.image, *views], strict=True):
            panel.imshow(image)
        height, width, _ = sample.image.shape
        _set_title(row[0], sample.name, f"{width}x{height}")
        for title, panel in zip(titles, row[1:], strict=True):
            panel.set_title(title, fontsize=7)
    figure.savefig(path, dpi=100)


def make_views(sample: Sample, augmentation: Augmentation, has_one_size: bool) -> np.ndarray:
    """The views that the run makes from an image in epoch 0: float32 [V, S, S, 3] in [0, 1]."""
    image, keys = tf.constant(sample.image), tf.constant([[0, sample.number]], tf.int64)
    if not has_one_size:  # Like `train_dataset`, crop images of varying sizes one by one.
        image = crop_views(image, keys[0], augmentation)
    return augmentation(image[tf.newaxis], keys).numpy()


def write_groups(groups: Sequence[Sequence[tuple[np.ndarray, str, float]]], most: int, path: pathlib.Path) -> None:
    """Writes a PNG file of groups of images, those of a group side by side.

    Args:
      groups: Up to `most` images each: uint8 [S, S, 3], a caption, and the height of the image over its width.
      most: The largest number of images in a group.
      path: The file.
    """
    from matplotlib.figure import Figure

    rows = -(-len(groups) // _COLUMNS)
    figure = Figure(figsize=(2.6 * most * _COLUMNS, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, most * _COLUMNS, squeeze=False).reshape(rows * _COLUMNS, most)
    for panel in axes.flat:
        panel.set_axis_off()
    for number, (row, group) in enumerate(zip(axes, groups, strict=False), 1):
        for panel, (image, caption, ratio) in zip(row, group, strict=False):
            panel.imshow(image, aspect=ratio)
            name, facts = caption.rsplit("\n", 1)
            _set_title(panel, name, facts, f"{number}. ")
    figure.savefig(path, dpi=100)


def _set_title(panel: "Axes", name: str, facts: str, number: str = "") -> None:
    """The end of a name, in which $ is no mathematics, above what is known of the image."""
    title = f"{number}{in_print(name[-_NAME_CHARACTERS:])}\n{facts}"
    panel.set_title(title, fontsize=7, loc="left", parse_math=False)

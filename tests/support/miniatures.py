"""The data sets of the transfer suite in miniature, with TFDS's own features and splits, written without network."""

import os
import pathlib

import numpy as np
import tensorflow as tf

from tf_simclr.evaluation.transfer.sets import SETS

CLASSES = 3
SIDE_PX = 8
# Images of each class in a split. Caltech-101 has the more that 30 a class are to train on.
COUNTS = {"train": 4, "validation": 3, "test": 2}
COUNTS_OF_CALTECH = {"train": 25, "test": 9}

# The splits that TFDS's builders make.
SPLITS = {
    "food101": ("train", "validation"),
    "cifar10": ("train", "test"),
    "cifar100": ("train", "test"),
    "sun397": ("train", "test"),
    "cars196": ("train", "test"),
    "voc": ("train", "validation", "test"),
    "dtd": ("train", "validation", "test"),
    "oxford_iiit_pet": ("train", "test"),
    "caltech101": ("train", "test"),
    "oxford_flowers102": ("train", "validation", "test"),
}


def pixels(label: int, number: int, split: str, side_px: int = SIDE_PX) -> np.ndarray:
    """An image that is the brighter the higher the class."""
    noise = np.random.default_rng([label, number, len(split)]).integers(0, 40, [side_px, side_px, 3])
    return (noise + 80 * label).astype(np.uint8)


def labels_of(label: int, number: int) -> list[int]:
    """For images of several classes: the class, twice, and for every second image the one after it."""
    return [label, label, *([(label + 1) % CLASSES] if number % 2 else [])]


def write_all(folder: pathlib.Path) -> None:
    """Writes every data set of the suite: what TFDS has as it prepares it, the others as folders of images."""
    for one in SETS:
        if one.tfds is not None:
            write_tfds(one.tfds, folder)
        else:
            write_folder(folder / one.name, splits=one.splits)


def write_folder(folder: pathlib.Path, splits) -> None:
    for split in splits:
        for label in range(CLASSES):
            (folder / split / f"class {label}").mkdir(parents=True)
            for number in range(COUNTS[split]):
                content = tf.io.encode_png(pixels(label, number, split)).numpy()
                (folder / split / f"class {label}" / f"{number}.png").write_bytes(content)


def write_tfds(name: str, folder: pathlib.Path) -> None:
    """Prepares a data set by TFDS's own builder, with its features and splits, but with images of ours."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=os.fspath(folder))
    splits = SPLITS[builder.name]
    counts = COUNTS_OF_CALTECH if builder.name == "caltech101" else COUNTS
    side_px = builder.info.features["image"].shape[0] or SIDE_PX

    def examples(split: str):
        for label in range(CLASSES):
            for number in range(counts[split]):
                known = {
                    "image": pixels(label, number, split, side_px),
                    "label": label,
                    "labels": labels_of(label, number),
                }
                features = builder.info.features.items()
                yield f"{label} {number}", {key: known.get(key, _any_of(kind)) for key, kind in features}

    builder._split_generators = lambda manager: {split: examples(split) for split in splits}
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_config=config)


def _any_of(kind):
    """Some value of a feature that the suite does not read."""
    import tensorflow_datasets as tfds

    if isinstance(kind, tfds.features.Text):
        return ""
    if isinstance(kind, tfds.features.Image):
        return np.zeros([SIDE_PX, SIDE_PX, 1], np.uint8)
    if isinstance(kind, tfds.features.BBoxFeature):
        return tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
    return 0 if isinstance(kind, tfds.features.ClassLabel) else []

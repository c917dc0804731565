"""The data sets of the transfer suite: what they are, where they lie, and what the paper reports on them.

Source: Chen et al. (2020), appendix B.8, which takes splits and metrics from Kornblith et al., "Do Better ImageNet
Models Transfer Better?" (2019); Table B.5 for the numbers of a ResNet-50.
"""

import dataclasses
import os
from typing import NamedTuple

from tf_simclr.data import sources
from tf_simclr.data.files import walk
from tf_simclr.data.sources import tfds

# The parts of a data set, under the names that their folders have.
TRAIN, VALIDATION, TEST = "train", "validation", "test"

# Metrics by the names that `metrics.probabilities.measure` gives them, with those in reports.
TOP_1, MEAN_PER_CLASS, MEAN_PRECISION = "top_1_accuracy", "mean_per_class_accuracy", "mean_average_precision"
METRICS = {TOP_1: "top-1", MEAN_PER_CLASS: "mean per class", MEAN_PRECISION: "11-point mAP"}


class Sizes(NamedTuple):
    """Classes and images of a data set; the images to train on include those of a validation split."""

    classes: int
    train: int
    test: int


class Paper(NamedTuple):
    """Linear evaluation of the paper's two ResNet-50, pretrained on ImageNet, in percent of the metric."""

    simclr: float
    supervised: float


@dataclasses.dataclass(frozen=True)
class TransferSet:
    """A data set of the suite.

    Attributes:
      name: Its name in result.json, and that of its folder.
      title: Its name in the paper.
      sizes: Those of the protocol.
      paper: What the paper reports.
      tfds: Its name in TFDS, with the configuration; None if TFDS does not have it.
      train: The TFDS split to train on.
      test: The TFDS split to test on.
      metric: The metric that the paper reports, by the name that `measure` gives it.
      has_validation: Whether a split of it is to choose hyper-parameters on; else, training images are held out.
      train_per_class: Trains on so many random images of every class and tests on the rest of them, if it is given.
      has_several_labels: Whether an image may have several classes.
      note: What else to know if it is missing.
    """

    name: str
    title: str
    sizes: Sizes
    paper: Paper
    tfds: str | None = None
    train: str = TRAIN
    test: str = TEST
    metric: str = TOP_1
    has_validation: bool = False
    train_per_class: int | None = None
    has_several_labels: bool = False
    note: str = ""

    @property
    def splits(self) -> dict[str, str]:
        """The TFDS splits of the parts that it is stored in."""
        splits = {TRAIN: self.train}
        if self.has_validation:
            splits[VALIDATION] = VALIDATION
        if self.train_per_class is None:
            splits[TEST] = self.test
        return splits

    def folders(self, data_dir: str) -> dict[str, str]:
        """Where its parts lie if they are folders of images, with a folder for each class."""
        return {part: os.path.join(data_dir, self.name, part) for part in self.splits}

    def advice(self, data_dir: str) -> str:
        """How to get it."""
        ways = [] if self.tfds is None else [f"tfds build {self.tfds} --data_dir={data_dir}"]
        if not self.has_several_labels:
            ways.append(f"put its images into {' and '.join(self.folders(data_dir).values())}, a folder a class")
        return ", or ".join(ways) + (f" ({self.note})" if self.note else "")


# In the paper's order. Pets has 3,669 test images; the 3,369 of Kornblith et al. are a slip.
SETS = (
    TransferSet("food101", "Food-101", Sizes(101, 75_750, 25_250), Paper(68.4, 72.3), "food101", test="validation"),
    TransferSet("cifar10", "CIFAR-10", Sizes(10, 50_000, 10_000), Paper(90.6, 93.6), "cifar10"),
    TransferSet("cifar100", "CIFAR-100", Sizes(100, 50_000, 10_000), Paper(71.6, 78.3), "cifar100"),
    TransferSet(
        "birdsnap", "Birdsnap", Sizes(500, 47_386, 2_443), Paper(37.4, 53.7),
        note="TFDS does not have it; its distribution lists the addresses of its images",
    ),
    TransferSet("sun397", "SUN397", Sizes(397, 19_850, 19_850), Paper(58.8, 61.9), "sun397/standard-part1-120k"),
    TransferSet(
        "cars", "Cars", Sizes(196, 8_144, 8_041), Paper(50.3, 66.7), "cars196",
        note="the address that TFDS loads it from no longer answers",
    ),
    TransferSet(
        "aircraft", "Aircraft", Sizes(100, 6_667, 3_333), Paper(50.3, 61.0), metric=MEAN_PER_CLASS, has_validation=True,
        note="TFDS does not have it: www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft, the variants",
    ),
    TransferSet(
        "voc2007", "VOC2007", Sizes(20, 5_011, 4_952), Paper(80.5, 82.8), "voc/2007",
        metric=MEAN_PRECISION, has_validation=True, has_several_labels=True,
    ),
    TransferSet("dtd", "DTD", Sizes(47, 3_760, 1_880), Paper(74.5, 74.9), "dtd", has_validation=True),
    TransferSet(
        "pets", "Pets", Sizes(37, 3_680, 3_669), Paper(83.6, 91.5), "oxford_iiit_pet", metric=MEAN_PER_CLASS
    ),
    TransferSet(
        "caltech101", "Caltech-101", Sizes(102, 3_060, 6_084), Paper(90.3, 94.5), "caltech101",
        train="train+test", metric=MEAN_PER_CLASS, train_per_class=30,
    ),
    TransferSet(
        "flowers", "Flowers", Sizes(102, 2_040, 6_149), Paper(91.2, 94.7), "oxford_flowers102",
        metric=MEAN_PER_CLASS, has_validation=True,
    ),
)  # fmt: skip


def open_set(one: TransferSet, data_dir: str, *, max_pixels: int) -> dict[str, sources.Source]:
    """Opens the parts of a data set: folders of images if they are there, else what TFDS has prepared.

    Nothing is downloaded.

    Args:
      one: The data set.
      data_dir: The folder that holds the suite.
      max_pixels: Images with more pixels count as broken.

    Returns:
      The parts by name, with the same class ids.

    Raises:
      FileNotFoundError: If it is missing; the error says how to get it.
      ValueError: If a part has no images, or has a class that the training images lack.
    """
    folders = one.folders(data_dir)
    if not one.has_several_labels and any(map(walk.is_folder, folders.values())):
        return _open_folders(one, folders, max_pixels)
    if one.tfds is None:
        raise FileNotFoundError(one.advice(data_dir))
    try:
        return {
            part: tfds.from_tfds(
                one.tfds, split, data_dir,
                several_labels=one.has_several_labels, download=False, max_pixels=max_pixels,
            )
            for part, split in one.splits.items()
        }  # fmt: skip
    except FileNotFoundError as error:
        raise FileNotFoundError(one.advice(data_dir)) from error


def _open_folders(one: TransferSet, folders: dict[str, str], max_pixels: int) -> dict[str, sources.Source]:
    for folder in folders.values():
        if not walk.is_folder(folder):
            raise FileNotFoundError(f"a part of it is there, but not {folder}")
    train = sources.from_folder(folders[TRAIN], max_pixels=max_pixels)
    if train.num_classes is None:
        raise ValueError(f"{one.title} needs a folder for each class. Received: {folders[TRAIN]!r}")
    rest = {
        part: sources.from_folder(folder, class_names=train.class_names, max_pixels=max_pixels)
        for part, folder in folders.items()
        if part != TRAIN
    }
    return {TRAIN: train, **rest}

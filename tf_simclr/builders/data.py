"""The images of a run, from its settings."""

import pathlib
from typing import Any, NamedTuple

from tf_simclr.data import sources
from tf_simclr.data.files.broken import BrokenFiles
from tf_simclr.data.sources import cache, shapes, tfds
from tf_simclr.settings import DataConfig, RunConfig


class Sources(NamedTuple):
    """The images of a run.

    Attributes:
      train: Images to train on.
      probe: Labelled images that the evaluation learns from: `train`, if that has labels.
      test: Labelled images to test on.
    """

    train: sources.Source
    probe: sources.Source
    test: sources.Source


def build_sources(config: RunConfig, folder: pathlib.Path) -> Sources:
    """Opens the images of a run.

    Args:
      config: The run.
      folder: The run's folder, which holds the list of broken files, `data_report.json`, and the cache on the disk.

    Raises:
      FileNotFoundError: If the folder does not exist.
      ValueError: If it holds no images or too many broken ones, the TFDS data set does not exist, or the cache does not
        fit.
    """
    data = config.data
    broken = BrokenFiles(folder / "data_report.json", data.max_broken_fraction)
    options: dict[str, Any] = {
        "image_feature": data.image_feature,
        "label_feature": data.label_feature,
        "max_pixels": data.max_pixels,
    }
    train, test = _open_sources(data, broken, options)
    probe = train
    if data.eval_data_dir is not None and train.num_classes is not None:
        test = sources.open_images(data.eval_data_dir, class_names=train.class_names, broken=broken, **options)
    elif data.eval_data_dir is not None:
        probe, test = sources.open_train_and_eval(data.eval_data_dir, broken=broken, **options)
    broken.write()
    broken.check()
    opened = (train, probe, test)
    kept = {id(source): cache.keep(source, data.cache, folder / "decoded_images") for source in opened}
    return Sources(*(kept[id(source)] for source in opened))


def _open_sources(
    data: DataConfig, broken: BrokenFiles, options: dict[str, Any]
) -> tuple[sources.Source, sources.Source]:
    if data.dataset == "shapes":
        train, evaluation = (
            sources.ArraySource(*shapes.load(split), shapes.CLASS_NAMES) for split in ("train", "test")
        )
        return train, evaluation
    if data.dataset == "folder":
        if data.data_dir is None:
            raise ValueError("--dataset=folder needs --data_dir, the folder of images. Received: none")
        if data.eval_data_dir is None:
            return sources.open_train_and_eval(data.data_dir, broken=broken, **options)
        train_folder, _ = sources.split_folders(data.data_dir)
        everything = sources.open_images(train_folder, broken=broken, **options)
        return everything, everything
    return (
        tfds.from_tfds(data.dataset, data.train_split, data.data_dir, broken=broken, **options),
        tfds.from_tfds(data.dataset, data.eval_split, data.data_dir, broken=broken, **options),
    )

"""What an export needs of a run's images, kept in the run's folder so that the images themselves may move away."""

import io
import pathlib
from typing import Any, NamedTuple

import numpy as np

from tf_simclr import builders, files
from tf_simclr.data import batches
from tf_simclr.settings import RunConfig

FILE = "export_inputs.npz"
# As many as the converters of other formats take; an export is verified with fewer.
MAX_IMAGES = 160


class ExportInputs(NamedTuple):
    """What an export needs of a run's images.

    Attributes:
      images: Test images as the encoder gets them, uint8 [n, S, S, 3], n <= MAX_IMAGES.
      num_examples: Number of training images.
      num_classes: Number of classes, or None without labels.
      class_names: The name of every class id, or None.
    """

    images: np.ndarray
    num_examples: int
    num_classes: int | None
    class_names: tuple[str, ...] | None


def of_sources(config: RunConfig, sources: builders.Sources) -> ExportInputs:
    """Takes them from the images.

    Raises:
      ValueError: If no test image can be decoded.
    """
    dataset = batches.eval_dataset(sources.test, image_size=config.data.image_size, batch_size=MAX_IMAGES)
    batch = next(iter(dataset), None)
    if batch is None:
        raise ValueError("An export is verified on test images, of which none can be decoded. Received: no image")
    images = np.rint(batch[2].numpy() * 255).astype(np.uint8)
    train = sources.train
    return ExportInputs(images, train.num_examples, train.num_classes, train.class_names)


def keep(inputs: ExportInputs, folder: pathlib.Path) -> None:
    """Writes them to a run's folder."""
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in inputs._asdict().items() if value is not None}
    with files.replacing(folder / FILE) as beside:
        np.savez(beside, **arrays)


def load(folder: pathlib.Path) -> ExportInputs | None:
    """Reads them from a run's folder; None if an earlier version made the run, or the file is damaged."""
    try:
        with np.load(io.BytesIO((folder / FILE).read_bytes())) as arrays:
            names = tuple(arrays["class_names"].tolist()) if "class_names" in arrays else None
            num_classes = int(arrays["num_classes"]) if "num_classes" in arrays else None
            return ExportInputs(arrays["images"], int(arrays["num_examples"]), num_classes, names)
    except files.DAMAGED:
        return None

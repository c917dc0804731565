"""A sheet of images, each with what every operator makes of it.

    python benchmarks/operators.py --output=docs/operators.png
    python benchmarks/operators.py --data_dir=flowers --image_size=96 --rows=10 --output=/tmp/operators.png

Each operator acts alone and on every image: whatever its share of the images is in training, here it is all of them.
Each image has its own random numbers, the same in every column that an operator is part of. The first column is the
image, the last is SimCLR's whole chain. Without --data_dir, the images are the embedded shapes.
"""

import argparse
import dataclasses
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.arguments import at_least_1  # noqa: E402
from tf_simclr.augment import (  # noqa: E402
    OPERATORS,
    SIMCLR_NAMES,
    WHOLE_IMAGE,
    Augmentation,
    Chain,
    example_keys,
    simclr_chain,
)
from tf_simclr.data.formats import decode  # noqa: E402
from tf_simclr.data.sources import open_images, shapes  # noqa: E402


def columns() -> dict[str, Chain]:
    """The chain of each column, by its title."""
    crop, *others = simclr_chain()
    alone = dict(zip(SIMCLR_NAMES[1:], others, strict=True)) | OPERATORS
    chains = {"image": (WHOLE_IMAGE,), "crop": (crop,)}
    chains |= {name: (WHOLE_IMAGE, dataclasses.replace(operator, probability=1.0)) for name, operator in alone.items()}
    return chains | {"SimCLR": simclr_chain()}


def read_images(data_dir: str | None, count: int, size: int) -> np.ndarray:
    """Images to show, uint8 [count, size, size, 3]: whole images, squeezed into squares, or shapes."""
    if data_dir is None:
        images, _ = shapes.draw(count, np.random.default_rng(0))
        return images
    images = [sample.image for sample in open_images(data_dir).sample(count)[:count]]
    return np.stack([decode.crop_and_resize(image, (0, 0, *image.shape[:2]), size).numpy() for image in images])


def main() -> None:
    """Draws the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data_dir", help="a folder of images, or another form that --data_dir of run.py takes")
    parser.add_argument("--image_size", type=at_least_1, default=shapes.IMAGE_SIZE_PX)
    parser.add_argument("--rows", type=at_least_1, default=3)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    arguments = parser.parse_args()

    images = read_images(arguments.data_dir, arguments.rows, arguments.image_size)
    keys = example_keys(0, 0, len(images))
    chains = columns()
    figure = Figure(figsize=(0.8 * len(chains), 0.8 * len(images) + 0.3), layout="constrained")
    axes = figure.subplots(len(images), len(chains), squeeze=False)
    for (title, chain), column in zip(chains.items(), axes.T, strict=True):
        views = Augmentation(arguments.image_size, branches=(chain,))(images, keys).numpy()
        column[0].set_title(title.replace("_", "\n"), fontsize=7)
        for panel, view in zip(column, views, strict=True):
            panel.set_axis_off()
            panel.imshow(view, interpolation="nearest")
    figure.savefig(arguments.output, dpi=100)


if __name__ == "__main__":
    main()

"""Pictures and settings for tests of `--mode=check`."""

import pathlib

import numpy as np
from PIL import Image

from tf_simclr.settings import RunConfig, override

SETTINGS = {
    "mode": "check",
    "data.dataset": "folder",
    "data.image_size": 16,
    "model.resnet_depth": 10,
    "model.width_multiplier": 0.1,
    "model.stem": "strided",
    "model.num_groups": 1,
    "optimizer.warmup_epochs": 1,
    "train.global_batch_size": 4,
    "train.epochs": 10,
    "train.precision": "float32",
    "augmentation.blur_probability": 0,
}


def photo(seed: int, size: tuple[int, int] = (60, 48)) -> Image.Image:
    """A picture with structure at every scale; two seeds have nothing in common."""
    rng = np.random.default_rng(seed)
    layers = [Image.fromarray(rng.integers(0, 256, [n, n, 3], np.uint8)).resize((120, 96), 3) for n in (4, 8, 32)]
    return Image.fromarray(np.mean([np.asarray(layer) for layer in layers], axis=0).astype(np.uint8)).resize(size)


def write(path: pathlib.Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def make_config(model_dir, data_dir, **changes):
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    return override(RunConfig(), SETTINGS | {"model_dir": str(model_dir), "data.data_dir": str(data_dir)} | changes)

"""What TensorBoard shows of an evaluation beside its scalars: HParams, and the map in the embedding projector."""

import pathlib
from typing import Any

import numpy as np
import pyarrow as pa

from tf_simclr import files, parquet
from tf_simclr.data.files.names import printable
from tf_simclr.evaluation import atlas
from tf_simclr.runs import writers
from tf_simclr.settings import SETTINGS, RunConfig, flatten, to_text

PROJECTOR_CONFIG, METADATA = "projector_config.pbtxt", "map_metadata.tsv"

# HParams shows these of every run, so that runs can be sorted by them.
_MAIN_SETTINGS = (
    "seed", "train_mode", "data.dataset", "augmentation.crop_min_area", "augmentation.color_jitter_strength",
    "model.encoder", "model.resnet_depth", "model.width_multiplier", "model.temperature",
    "optimizer.base_learning_rate", "optimizer.weight_decay", "train.global_batch_size", "train.epochs",
)  # fmt: skip
# What is known of a point, the label that the projector shows first.
_COLUMNS = ("label", "predicted", "path", "cluster")


def write_hparams(config: RunConfig, folder: pathlib.Path) -> None:
    """Writes the settings that HParams lists beside the scalars of the run, in place of those written before.

    They are the main ones and, of those that affect what is learned, all that differ from the defaults.
    """
    # Loading it takes a while, and a program that evaluates nothing does without.
    from tensorboard.plugins.hparams import api

    with writers.events(folder, ".hparams"):
        # Named by its folder: TensorBoard would take runs of one name for repetitions, and show their mean.
        api.hparams(describe_settings(config), trial_id=printable(str(folder)))


def describe_settings(config: RunConfig) -> dict[str, Any]:
    """The settings for `write_hparams`: numbers and truth values as they are, everything else as text."""
    defaults = flatten(RunConfig())
    return {
        name: value if isinstance(value, bool | int | float) else printable(to_text(value))
        for name, value in flatten(config).items()
        if name in _MAIN_SETTINGS or (value != defaults[name] and not SETTINGS[name].resumable)
    }


def write_projector(folder: pathlib.Path) -> None:
    """Hands the map of a run's folder to the embedding projector; removes what it knows of an older one."""
    config, path = folder / PROJECTOR_CONFIG, atlas.map_path(folder)
    table = parquet.read(path) if path.is_file() else None
    vectors = np.zeros([0]) if table is None else np.fromfile(path.with_name(atlas.VECTORS), "<f4")
    if table is None or not vectors.any():  # Zeros alone would be taken for text, and the plugin would fail.
        config.unlink(missing_ok=True)
        return
    files.write_text(path.with_name(METADATA), _metadata(table))
    sprite, features = atlas.read_metadata(table)["sprite"], path.parent.name
    files.write_text(
        config,
        f"""embeddings {{
  tensor_name: "representations"
  tensor_path: "{features}/{atlas.VECTORS}"
  tensor_shape: {len(table)}
  tensor_shape: {len(vectors) // len(table)}
  metadata_path: "{features}/{METADATA}"
  sprite {{
    image_path: "{features}/{sprite["file"]}"
    single_image_dim: {sprite["size_px"]}
    single_image_dim: {sprite["size_px"]}
  }}
}}
""",
    )


def _metadata(table: pa.Table) -> str:
    """Tab-separated lines about the points, below a line of titles; without columns that are empty."""
    known = [name for name in _COLUMNS if table[name].null_count < len(table)]
    rows = zip(*(table[name].to_pylist() for name in known), strict=True)
    lines = ["\t".join(printable("" if value is None else str(value)) for value in row) for row in rows]
    return "\n".join(["\t".join(known), *lines]) + "\n"

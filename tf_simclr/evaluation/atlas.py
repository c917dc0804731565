"""A map of the representations of some images, in a run's `features/map.parquet`: one row for each image.

The columns are `path` (the name of the image), `label` and `predicted` (names of classes, null where unknown), `x` and
`y` (t-SNE), `pca_x` and `pca_y`, `cluster` (k-means), `neighbors` (a struct of `ids`, rows of this file, the nearest
first, and `distances`, cosine) and `part` ("test" or "train"): what embedding-atlas takes. `thumbnails.jpg` beside it
holds small pictures of the images, in the same order, row by row.

The file's metadata has JSON under "map": `step` of the weights, `images` (how many the sample is from), `predicted_by`
(the protocol), `sprite` (file, size and columns of the thumbnails), `vectors` (the file of the representations, float32
[N, F]) and `key`, a digest of what the map follows from.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from absl import logging

from tf_simclr import builders, files, parquet
from tf_simclr.data import sources
from tf_simclr.data.files.names import in_print
from tf_simclr.data.sources import subsets
from tf_simclr.evaluation import layout, predictions, thumbnails
from tf_simclr.evaluation.cache import CachedFeatures, Images, code_of, digest_of, test_images
from tf_simclr.evaluation.encoders import this_encoder
from tf_simclr.evaluation.protocols import PROTOCOLS
from tf_simclr.models.trainer import EncoderTrainer
from tf_simclr.runs.predictions import predictions_path, read
from tf_simclr.runs.results import THIS, headline
from tf_simclr.settings import RunConfig

# The key in the file's metadata.
METADATA = b"map"
SPRITE, VECTORS = "thumbnails.jpg", "map_vectors.bin"

# The clusters of images without labels.
_CLUSTERS_WITHOUT_LABELS = 10
# The code that a map follows from, besides that of the representations.
_CODE = ("data/sources/subsets.py", "evaluation/atlas.py", "evaluation/layout.py", "evaluation/thumbnails.py")


def map_path(folder: pathlib.Path) -> pathlib.Path:
    """Where a run's folder keeps the map of its last evaluation."""
    return folder / "features" / "map.parquet"


def write(
    config: RunConfig, model: EncoderTrainer, opened: builders.Sources, folder: pathlib.Path
) -> pathlib.Path | None:
    """Writes the map of at most `eval.map_images` images, unless it is there; removes it if there is to be none.

    The images are test images, of every class as many as of any other; without labels, training images. The evaluation
    has encoded the test images before, and what it has predicted is in the map.

    Args:
      config: The run.
      model: Its model, as it was evaluated.
      opened: The run's images.
      folder: The run's folder.

    Returns:
      The file; None if there is to be none.
    """
    path, count = map_path(folder), config.eval.map_images
    if count is None:
        path.unlink(missing_ok=True)
        return None
    path.parent.mkdir(exist_ok=True)
    _, probe, test = opened
    has_labels = probe.num_classes is not None and test.num_classes is not None
    names = class_names(probe) if has_labels else ()
    images = test_images(config, test, len(names)) if has_labels else _some_of(opened.train, count)
    features = CachedFeatures(path.parent, this_encoder(config, model), images, config.eval.batch_size)
    step = int(model.optimizer.iterations.numpy())
    key = digest_of({"features": features.key, "count": count, "classes": names, "step": step, "code": code_of(*_CODE)})
    kept = _kept(path, key)
    total = images.num_examples if has_labels else opened.train.num_examples
    table = kept or _draw(features, count, names, {"step": step, "images": total, "key": key}, path)
    table = _with_predictions(table, folder, names)
    if not table.equals(kept, check_metadata=True):
        predictions.write_table(path, table)
    return path


def class_names(source: sources.Source) -> list[str]:
    """The names of a labelled source's classes, printable; their numbers, if they have none."""
    return [in_print(name) for name in source.class_names or map(str, range(source.num_classes or 0))]


def read_metadata(table: pa.Table) -> dict[str, Any]:
    """What the metadata of a map says."""
    return json.loads((table.schema.metadata or {}).get(METADATA, b"{}"))


def _some_of(source: sources.Source, count: int) -> Images:
    """So many images of a source without labels: its first ones, if their order is random."""
    if source.is_shuffled:
        return Images("map", source, 0, count)
    return Images("map", source.subset(subsets.spread(source.keys, None, count)), 0)


def _kept(path: pathlib.Path, key: str) -> pa.Table | None:
    """The map that has been made from the same."""
    if not all(one.is_file() for one in (path, path.with_name(SPRITE), path.with_name(VECTORS))):
        return None
    table = parquet.read(path)
    return table if read_metadata(table).get("key") == key else None


def _draw(
    features: CachedFeatures, count: int, names: Sequence[str], about: dict[str, Any], path: pathlib.Path
) -> pa.Table:
    """Makes the map without predictions, and writes the files beside it."""

    def choose(keys: np.ndarray, labels: np.ndarray) -> np.ndarray:
        if not names:
            return np.arange(len(keys))
        known = np.flatnonzero(labels >= 0)
        return known[subsets.spread([os.fsdecode(key) for key in keys[known]], labels[known], count)]

    found = features.sample(choose)
    logging.info("Drawing a map of %d images", len(found.keys))
    arranged = layout.lay_out(found.representations, len(names) or _CLUSTERS_WITHOUT_LABELS)
    path.unlink(missing_ok=True)  # The pictures are never those of another map.
    thumbnails.write(features.images.source, found.positions, path.with_name(SPRITE))
    with files.replacing(path.with_name(VECTORS)) as beside:
        found.representations.astype("<f4").tofile(beside)
    sprite = {"file": SPRITE, "size_px": thumbnails.SIZE_PX, "columns": thumbnails.columns_of(len(found.keys))}
    about |= {"sprite": sprite, "vectors": VECTORS, "predicted_by": None}
    ids, distances = (
        pa.ListArray.from_arrays(np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1], rows.ravel())
        for rows in (arranged.neighbors, arranged.distances)
    )
    table = pa.table(
        {
            "path": pa.array([in_print(os.fsdecode(key)) for key in found.keys], pa.string()),
            "label": _named(found.labels if names else None, names, len(found.keys)),
            "predicted": pa.nulls(len(found.keys), pa.string()),
            "x": arranged.tsne[:, 0],
            "y": arranged.tsne[:, 1],
            "pca_x": arranged.pca[:, 0],
            "pca_y": arranged.pca[:, 1],
            "cluster": arranged.clusters,
            "neighbors": pa.StructArray.from_arrays([ids, distances], ["ids", "distances"]),
            "part": ["test" if names else "train"] * len(found.keys),
        }
    )
    return table.replace_schema_metadata({METADATA: json.dumps(about)})


def _named(labels: np.ndarray | None, names: Sequence[str], count: int) -> pa.Array:
    """The names of classes, or nulls where nothing is known."""
    return pa.nulls(count, pa.string()) if labels is None else pa.array([names[label] for label in labels], pa.string())


def _with_predictions(table: pa.Table, folder: pathlib.Path, names: Sequence[str]) -> pa.Table:
    """The map with what the evaluation has predicted for its images."""
    if not names:
        return table
    found = read(predictions_path(folder))
    judges = [place.removeprefix(f"{THIS}/") for place in found if place.startswith(f"{THIS}/")]
    place = f"{THIS}/{headline([one for one in judges if one in PROTOCOLS] or judges)}"
    by_path = dict(zip(found[place].examples, found[place].predicted, strict=True))
    predicted = [names[by_path[path]] for path in table["path"].to_pylist()]
    about = {**read_metadata(table), "predicted_by": place.removeprefix("eval/")}
    number = table.column_names.index("predicted")
    table = table.set_column(number, "predicted", pa.array(predicted, pa.string()))
    return table.replace_schema_metadata({METADATA: json.dumps(about)})

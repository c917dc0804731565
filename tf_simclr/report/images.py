"""The map of representations that an evaluation keeps in `features/map.parquet`, and its form in the page."""

import base64
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from tf_simclr import parquet

# Coordinates in the page are whole numbers below this.
_GRID = 4096
# The key in the file's metadata.
_KEY = b"map"


@dataclasses.dataclass(frozen=True, eq=False)
class ImageMap:
    """A sample of images with the places of their representations, N images in all.

    Attributes:
      names: Their paths, [N].
      labels: Names of their classes, or None where unknown, [N].
      predicted: The same of the predictions, [N].
      layouts: Coordinates float [N, 2] by title.
      clusters: int [N].
      neighbors: Rows of the nearest images, nearest first, without the image itself, [N] lists.
      distances: Their cosine distances, [N] lists.
      step: That of the weights.
      part: The images that they are from: "test" or "train".
      total: How many images the sample is from.
      sprite: A JPEG file with their thumbnails row by row; None if missing.
      size_px: Height and width of a thumbnail.
      columns: Thumbnails in a row of the sprite.
    """

    names: Sequence[str]
    labels: Sequence[str | None]
    predicted: Sequence[str | None]
    layouts: Mapping[str, np.ndarray]
    clusters: np.ndarray
    neighbors: Sequence[Sequence[int]]
    distances: Sequence[Sequence[float]]
    step: int
    part: str
    total: int
    sprite: bytes | None
    size_px: int
    columns: int

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_labels(self) -> bool:
        """Whether the class of any image is known."""
        return any(label is not None for label in self.labels)


def read_map(path: pathlib.Path) -> ImageMap:
    """Reads `map.parquet` and the sprite beside it.

    Raises:
      KeyError, TypeError, ValueError, pyarrow.ArrowException: If it is none that an evaluation has written.
    """
    table = parquet.read(path)
    about = json.loads(table.schema.metadata[_KEY])
    columns = {name: table[name].to_pylist() for name in ("path", "label", "predicted", "neighbors", "part")}
    sprite = path.with_name(pathlib.PurePath(about["sprite"]["file"]).name)
    x, y, pca_x, pca_y, cluster = (table[name].to_numpy() for name in ("x", "y", "pca_x", "pca_y", "cluster"))
    return ImageMap(
        names=columns["path"],
        labels=columns["label"],
        predicted=columns["predicted"],
        layouts={"t-SNE": np.stack([x, y], axis=1), "PCA": np.stack([pca_x, pca_y], axis=1)},
        clusters=cluster,
        neighbors=[one["ids"] for one in columns["neighbors"]],
        distances=[one["distances"] for one in columns["neighbors"]],
        step=int(about["step"]),
        part=next(iter(columns["part"]), "test"),
        total=int(about["images"]),
        sprite=sprite.read_bytes() if sprite.is_file() else None,
        size_px=int(about["sprite"]["size_px"]),
        columns=int(about["sprite"]["columns"]),
    )


def to_page(images: ImageMap) -> Markup:
    """The map as JSON for a <script> element: without "<", so that no name ends the element."""
    classes = _names([*images.labels, *images.predicted])  # A class has one colour in both columns.
    columns = {"class": _coded(images.labels, classes)} if images.has_labels else {}
    if any(one is not None for one in images.predicted):
        columns["predicted"] = _coded(images.predicted, classes)
    clusters = [f"cluster {one}" for one in images.clusters.tolist()]
    columns["cluster"] = _coded(clusters, _names(clusters))
    content = {
        "names": list(images.names),
        "layouts": {title: _on_grid(points) for title, points in images.layouts.items()},
        "columns": columns,
        "neighbors": [list(row) for row in images.neighbors],
        "distances": [[round(float(one), 3) for one in row] for row in images.distances],
        "sprite": {"size": images.size_px, "columns": images.columns},
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704


def data_uri(content: bytes, kind: str) -> str:
    """The address of an image that holds the image itself; `kind` is "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _names(values: Sequence[str | None]) -> list[str]:
    return sorted({value for value in values if value is not None}, key=_by_number)


def _coded(values: Sequence[str | None], names: Sequence[str]) -> dict[str, Any]:
    codes: dict[str | None, int | None] = {name: code for code, name in enumerate(names)}
    return {"values": [codes.get(value) for value in values], "names": list(names)}


def _by_number(name: str) -> tuple[str, int]:
    """Sorts "cluster 10" behind "cluster 9"."""
    stem = name.rstrip("0123456789")
    number = name[len(stem) :]
    return stem, int(number[:18]) if number.isascii() and number else -1


def _on_grid(points: np.ndarray) -> dict[str, list[int]]:
    """Coordinates as whole numbers, in the middle of the grid and by one scale for both axes."""
    finite = np.nan_to_num(points.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = finite.min(axis=0), finite.max(axis=0)
    extent = max(float(np.max(high - low)), 1e-12)
    placed = np.rint((finite - (low + high) / 2) / extent * (_GRID - 1) + (_GRID - 1) / 2).astype(int)
    x, y = np.clip(placed, 0, _GRID - 1).T.tolist()
    return {"x": x, "y": y}

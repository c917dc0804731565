"""A source from Parquet files with a column of encoded images."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr.data.files import listing
from tf_simclr.data.files.broken import BrokenFiles
from tf_simclr.data.files.labels import to_class_name
from tf_simclr.data.formats.headers import MAX_PIXELS
from tf_simclr.data.sources.order import Steps
from tf_simclr.data.sources.record_files import RecordFileSource, choose_name, open_records

# Names that are common in Parquet files; the first one found is used.
IMAGE_COLUMNS = ("image", "img", "image_bytes", "bytes", "jpeg", "png", "jpg", "content")
LABEL_COLUMNS = ("label", "class", "fine_label", "target", "class_id")

_BATCH_ROWS = 256


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ParquetSource(RecordFileSource):
    """Parquet files, read batch by batch, with one row group in memory at a time.

    Attributes:
      image_column: The column of encoded images: bytes, or a struct with a field `bytes`, as Hugging Face writes it.
    """

    kind = "Parquet"

    image_column: str

    def read_file(self, file: tf.Tensor) -> tf.data.Dataset:
        read = functools.partial(_read_images, column=self.image_column)
        return tf.data.Dataset.from_generator(read, args=(file,), output_signature=tf.TensorSpec([], tf.string))

    def train_examples(self, steps: Steps, reports: bool = True) -> tf.data.Dataset:
        if not reports:
            raise ValueError(
                "tf.data services do not have this process's Python functions, which read Parquet files: "
                f"leave data.service out, or write TFRecord files. Received: {self.name!r}"
            )
        return super().train_examples(steps, reports)


def from_parquet(
    data_dir: str,
    *,
    class_names: Sequence[str] | None = None,
    image_feature: str | None = None,
    label_feature: str | None = None,
    max_pixels: int = MAX_PIXELS,
    broken: BrokenFiles | None = None,
) -> RecordFileSource:
    """Opens Parquet files and reads them once, to decode every image and count the classes.

    Args:
      data_dir: Files or patterns, comma-separated.
      class_names: The classes in the order of their ids; by default those in the label column.
      image_feature: The column of encoded images; by default the first of IMAGE_COLUMNS that a file has.
      label_feature: The column of the class, integers or strings; by default the first of LABEL_COLUMNS that a file
        has.
      max_pixels: Images with more pixels count as broken.
      broken: Collects the rows that cannot be used.

    Returns:
      A ParquetSource.

    Raises:
      FileNotFoundError: If a file does not exist.
      ValueError: If a file cannot be read or has no column of that name, there are no rows, or a class is not in
        `class_names`.
    """
    broken = broken if broken is not None else BrokenFiles()
    places = listing.split_places(data_dir)
    files = tuple(dict.fromkeys(file for place in places for file in listing.expand(place)))
    image_column, label_column = _choose_columns(files, data_dir, image_feature, label_feature)
    scans = [list(_scan(file, image_column, label_column)) for file in files]
    if not any(scans):
        raise ValueError(f"The Parquet files have no rows. Received: {data_dir!r}")
    return open_records(
        functools.partial(ParquetSource, image_column=image_column, max_pixels=max_pixels),
        files,
        scans,
        class_names=class_names,
        broken=broken,
        place=data_dir,
        missing=f"no bytes in the column {image_column}",
    )


def _open(file: str) -> Any:
    import pyarrow  # The import takes a second, which only users of Parquet files pay.

    from tf_simclr import parquet

    try:
        return parquet.open_file(file)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"The Parquet file cannot be read ({error}). Received: {file!r}") from error


def _choose_columns(
    files: Sequence[str], place: str, image_column: str | None, label_column: str | None
) -> tuple[str, str | None]:
    """The names of the image column, which all files must have, and of the label column, which some have."""
    of_files = {file: _columns(file) for file in files}
    columns = list(dict.fromkeys(name for names in of_files.values() for name in names))
    image = choose_name("image", image_column, IMAGE_COLUMNS, columns, f"{place} has no image column")
    label = choose_name("label", label_column, LABEL_COLUMNS, columns, f"{place} has no label column")
    if without := [file for file, names in of_files.items() if image not in names]:
        raise ValueError(f"All Parquet files must have the column {image} of images. Received: {without[0]!r}")
    return str(image), label


def _columns(file: str) -> list[str]:
    return _open(file).schema_arrow.names


def _rows(file: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for batch in _open(file).iter_batches(_BATCH_ROWS, columns=list(columns)):
        yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def _scan(file: str, image_column: str, label_column: str | None) -> Iterator[tuple[bool, str | None]]:
    """Yields for every row whether it has an image, and its class or None."""
    label_columns = [label_column] if label_column is not None and label_column in _columns(file) else []
    for image, *label in _rows(file, [image_column, *label_columns]):
        yield _bytes_of(image) is not None, to_class_name(label[0]) if label else None


def _read_images(file: bytes, column: str) -> Iterator[bytes]:
    """Yields the encoded images of a file, and b"" for a row without one, so that no other row moves."""
    for (image,) in _rows(os.fsdecode(np.asarray(file).item()), [column]):
        yield _bytes_of(image) or b""


def _bytes_of(value: Any) -> bytes | None:
    content = value.get("bytes") if isinstance(value, dict) else value
    return content if isinstance(content, bytes) else None

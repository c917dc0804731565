"""Embeds an archive of images into Parquet files (`--mode=embed`).

A file holds a fixed number of images in the archive's order, so that two runs make the same files, and a run that
starts again makes those that are missing.
"""

import itertools
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_simclr import builders, devices
from tf_simclr.evaluation import others
from tf_simclr.evaluation.archive import Archive, Batch
from tf_simclr.evaluation.encoders import FrozenEncoder
from tf_simclr.evaluation.features import make_encode
from tf_simclr.evaluation.progress import progress
from tf_simclr.runs import embedding_files, saved_models
from tf_simclr.runs.embedding_files import Rows
from tf_simclr.runs.saved_outputs import Place
from tf_simclr.settings import RunConfig

# Images that are handed over whole may be large.
_MAX_WHOLE = 16
# The two rates are measured for about so long each.
_CALIBRATION_SECONDS = 2.0


class Encoding(NamedTuple):
    """How images are embedded.

    Attributes:
      image_size: Side of the encoder's input in pixels; None if it takes PNG files.
      batch_size: Images in a batch.
      encode: From images to representations, float32 [b, F].
      num_features: F.
      dtype: The type to store.
    """

    image_size: int | None
    batch_size: int
    encode: Callable[[Any], np.ndarray]
    num_features: int
    dtype: np.dtype


class Embedded(NamedTuple):
    """The positions of images in the archive, int64 [b], and the images."""

    positions: np.ndarray
    rows: Rows


class Rates(NamedTuple):
    """Images/s of the encoder alone and of reading, decoding and preprocessing alone."""

    network: float
    decoding: float


def embed(config: RunConfig, strategy: tf.distribute.Strategy) -> str:
    """Embeds the images; returns the report for the terminal.

    Args:
      config: The run whose encoder is taken, unless `embed.encoder` names another one; `data` names the images.
      strategy: Encodes the images, except for SavedModels.

    Raises:
      FileNotFoundError: If there are no weights or no images.
      ValueError: If the folder holds embeddings of something else, or the encoder is none.
    """
    if config.embed.output_dir is None or "://" in config.embed.output_dir:
        raise ValueError(
            "--mode=embed needs --output_dir, a folder on this machine for the embeddings. "
            f"Received: {config.embed.output_dir or 'none'}"
        )
    folder = pathlib.Path(config.embed.output_dir)
    encoder = open_encoder(config, strategy)
    archive = Archive(builders.build_archive(config.data), config.embed.part)
    about = describe(config, encoder, archive)
    folder.mkdir(parents=True, exist_ok=True)
    embedding_files.check_same(folder, about)
    missing = _missing(folder, config.embed.part, archive.num_images)
    if not missing:
        return f"All {archive.num_images:,} embeddings are in {folder} already"
    encoding = make_encoding(config, encoder)
    rates = measure(archive, encoding, missing[0])
    total, broken, begun = sum(map(len, missing)), 0, time.monotonic()
    shown = progress(
        _embed(archive, encoding, missing), "images", done=archive.num_images - total, total=archive.num_images
    )
    for images, rows in zip(missing, _in_files(shown), strict=True):
        broken += sum(map(bool, rows.reasons))
        number = images.start // embedding_files.ROWS_PER_FILE
        embedding_files.write(embedding_files.path_of(folder, config.embed.part, number), rows, about)
    return _report(total, broken, time.monotonic() - begun, rates, folder)


def open_encoder(config: RunConfig, strategy: tf.distribute.Strategy) -> FrozenEncoder:
    """The encoder that a run or `embed.encoder` names. Of an export of this package, the signature for pixels."""
    if config.embed.encoder is None:
        return others.open_encoder(config.folder, config, strategy, name="embed", setting="model_dir")
    place, text = Place.parse(config.embed.encoder), config.embed.encoder
    if place.function is None and tf.io.gfile.exists(os.fsencode(os.path.join(place.path, saved_models.CARD))):
        text = f"{text}#encode"  # Images are cropped here, in parallel, just as the export does it.
    return others.open_encoder(text, config, strategy, name="embed", setting="embed.encoder")


def describe(config: RunConfig, encoder: FrozenEncoder, archive: Archive) -> dict[str, Any]:
    """What the embeddings follow from, as JSON, and where the model is."""
    number, count = config.embed.part
    about = {
        "model": {"image_size": encoder.image_size, **encoder.identity},
        "model_path": encoder.title if "://" in encoder.title else os.path.abspath(encoder.title),
        "dtype": config.embed.dtype,
        "shard": number,
        "shards": count,
        "images": archive.fingerprint(),
        "rows": embedding_files.ROWS_PER_FILE,
    }
    return json.loads(json.dumps(about))  # As it is read again.


def _missing(folder: pathlib.Path, shard: tuple[int, int], num_images: int) -> list[range]:
    """The positions of the images of every file that is not there yet."""
    size = embedding_files.ROWS_PER_FILE
    return [
        range(start, min(start + size, num_images))
        for start in range(0, num_images, size)
        if not embedding_files.path_of(folder, shard, start // size).exists()
    ]


def make_encoding(config: RunConfig, encoder: FrozenEncoder) -> Encoding:
    """Builds the encoder, and tries it on one image."""
    size, batch_size = encoder.image_size, config.eval.batch_size
    blank: Any = tf.zeros([1, size or 1, size or 1, 3])
    if size is None:
        blank, batch_size = tf.io.encode_png(tf.cast(blank, tf.uint8)), min(batch_size, _MAX_WHOLE)
    encode = make_encode(encoder.built, tf.TensorSpec([None, *blank.shape[1:]], blank.dtype))
    return Encoding(size, batch_size, encode, encode(blank).shape[1], np.dtype(config.embed.dtype))


def _embed(archive: Archive, encoding: Encoding, missing: list[range]) -> Iterator[Embedded]:
    """Embeds the images of the missing files, in pieces that belong to one file each."""
    for start, stop in _joined(missing):
        for batch in archive.batches(start, stop, encoding.image_size, encoding.batch_size):
            for piece in _cut(batch):
                yield Embedded(piece.positions, _rows(piece, encoding))


def _joined(ranges: list[range]) -> Iterator[tuple[int, int]]:
    """(start, stop) of ranges in order, where each joins those that follow on it."""
    for _, group in itertools.groupby(enumerate(ranges), lambda one: one[1].start // len(ranges[0]) - one[0]):
        members = [one for _, one in group]
        yield members[0].start, members[-1].stop


def _cut(batch: Batch) -> Iterator[Batch]:
    """The parts of a batch that belong to one file each."""
    numbers = batch.positions // embedding_files.ROWS_PER_FILE
    cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1), len(numbers)]
    intact = np.cumsum([0, *(not reason for reason in batch.reasons)])
    for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
        rows = slice(start, stop)
        yield Batch(
            batch.positions[rows],
            batch.paths[rows],
            batch.images[intact[start] : intact[stop]],
            batch.reasons[rows],
            batch.labels[rows],
        )


def _rows(batch: Batch, encoding: Encoding) -> Rows:
    """Embeds a batch."""
    reasons = np.array([*batch.reasons, None], object)[:-1]
    intact = np.flatnonzero(reasons == "")
    embeddings = np.zeros([len(reasons), encoding.num_features], encoding.dtype)
    if intact.size:
        with np.errstate(over="ignore"):  # The row says of a number that float16 cannot hold.
            embeddings[intact] = encoding.encode(batch.images)
    is_finite = np.isfinite(embeddings).all(axis=1)
    embeddings[~is_finite] = 0
    reasons[~is_finite] = "its embedding is not finite"
    return Rows(batch.paths, embeddings, reasons.tolist(), batch.labels)


def _in_files(embedded: Iterator[Embedded]) -> Iterator[Rows]:
    """Joins the images of every file."""
    for _, pieces in itertools.groupby(embedded, lambda one: one.positions[0] // embedding_files.ROWS_PER_FILE):
        paths, embeddings, reasons, labels = zip(*(piece.rows for piece in pieces), strict=True)
        yield Rows(
            list(itertools.chain(*paths)),
            np.concatenate(embeddings),
            list(itertools.chain(*reasons)),
            list(itertools.chain(*labels)),
        )


def measure(archive: Archive, encoding: Encoding, images: range) -> Rates:
    """Measures how fast the network and the decoding are alone, on the first of the images."""
    begun = time.monotonic()
    batches = archive.batches(images.start, images.stop, encoding.image_size, encoding.batch_size)
    batch = next(batches)
    decoding = len(batch.paths) / (time.monotonic() - begun)
    begun, count = time.monotonic(), 0
    for later in batches:  # The first one has to wait for the start.
        count += len(later.paths)
        decoding = count / (time.monotonic() - begun)
        if time.monotonic() - begun > _CALIBRATION_SECONDS:
            break
    begun, count = time.monotonic(), 0
    while len(batch.images):
        encoding.encode(batch.images)
        count += len(batch.images)
        if time.monotonic() - begun > _CALIBRATION_SECONDS:
            break
    return Rates(count / (time.monotonic() - begun), decoding)


def _report(total: int, broken: int, seconds: float, rates: Rates, folder: pathlib.Path) -> str:
    lines = [f"Embedded {total:,} images at {total / seconds:,.0f} images/s ({broken:,} of them broken): {folder}"]
    if all(rates):
        limit = "network" if rates.network < rates.decoding else "decoding"
        shared = f"; sharing this machine's cores, at most {1 / sum(1 / rate for rate in rates):,.0f} together"
        lines.append(
            f"The {limit} was the limit: alone, the network makes {rates.network:,.0f} images/s and decoding "
            f"{rates.decoding:,.0f}{'' if devices.on_accelerator() else shared}"
        )
    return "\n".join(lines)

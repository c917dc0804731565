"""A look at every image of a source: sizes, formats, classes, broken ones, and what tells duplicates."""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_simclr.data.batches.streaming import lost_records
from tf_simclr.data.formats import decode
from tf_simclr.data.quality.broken import broken_reason
from tf_simclr.data.quality.duplicates import GREY_SIZE_PX, Looks, describe, near_groups, to_grey
from tf_simclr.data.sources import ArraySource, FileSource, Source
from tf_simclr.data.sources.streams import TfdsSource, TfrecordSource

_BATCH = 256
_SIGNATURE_BYTES = 16
_SIGNATURES = {b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WebP"}


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """What was found in the N images of a source that can be decoded.

    Attributes:
      names: object [N], path of every image, FILE#record=INDEX of a record, or position in an array.
      heights: int32 [N], in pixels.
      widths: int32 [N].
      labels: int64 [N], or None.
      class_names: name of every class id, or None.
      formats: number of images by format; of images in memory, by the suffix of their names.
      fingerprints: uint64 [N], equal for equal pixels.
      looks: perceptual hashes.
    """

    names: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    labels: np.ndarray | None
    class_names: tuple[str, ...] | None
    formats: dict[str, int]
    fingerprints: np.ndarray
    looks: Looks


class Sample(NamedTuple):
    """One image of a source: its number in the run, see `pipeline.train_dataset`, its name and pixels [H, W, 3]."""

    number: int
    name: str
    image: np.ndarray


def survey(source: Source, watch: Callable[[int], Any] = lambda count: None) -> Survey:
    """Decodes every image of a source once.

    Args:
      source: N images; what turns out to be broken is added to its broken files.
      watch: is called with the number of images that were looked at since the last call.

    Raises:
      ValueError: when no image can be decoded.
    """
    batches: list[dict[str, np.ndarray]] = []
    looks: list[Looks] = []
    formats: collections.Counter[str] = collections.Counter()
    broken: dict[str, str] = {}
    count = 0
    for batch in _batches(source):
        watch(len(batch["name"]))
        count += len(batch["name"])
        batch["name"] = np.array([os.fsdecode(name) for name in batch["name"]], object)
        if not isinstance(source, ArraySource):
            is_whole = batch["height"] > 0
            broken |= {batch["name"][i]: _reason(source, batch["handle"][i]) for i in np.flatnonzero(~is_whole)}
            batch = {name: column[is_whole] for name, column in batch.items() if name != "handle"}
        formats.update(_format(content) for content in batch.pop("signature"))
        looks.append(describe(batch.pop("grey")))
        batches.append(batch)
    if not isinstance(source, ArraySource):
        source.broken.add(broken)
    if isinstance(source, TfdsSource | TfrecordSource) and count < source.num_examples:
        source.broken.add(lost_records(source))
    if count == len(broken):
        raise ValueError(f"None of the images can be decoded. Received: {', '.join(list(broken)[:3])}")
    columns = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    return Survey(
        columns["name"],
        columns["height"],
        columns["width"],
        columns.get("label"),
        source.class_names,
        dict(formats.most_common()),
        # Of two images without a line in common, such as 2x1 and 1x2 pixels, the bytes alone may be equal.
        columns["fingerprint"].view(np.uint64)[:, 0] ^ columns["height"].astype(np.uint64),
        Looks(*(np.concatenate(column) for column in zip(*looks, strict=True))),
    )


def find_duplicates(surveys: Sequence[Survey]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Finds the images that are there more than once.

    Args:
      surveys: of one or more sources, whose images are counted through.

    Returns:
      (exact, near): groups of the positions of images, each int64 [at least 2] and increasing. The pixels of an exact
      group are equal. The images of a near group look nearly the same (see `duplicates.near_groups`), and not all of
      them are equal.
    """
    fingerprints = np.concatenate([survey.fingerprints for survey in surveys])
    looks = Looks(*(np.concatenate(column) for column in zip(*(survey.looks for survey in surveys), strict=True)))
    _, exact = np.unique(fingerprints, return_inverse=True)
    near = [group for group in _members(near_groups(looks)) if len(np.unique(fingerprints[group])) > 1]
    return _members(exact), near


def sample(source: Source, count: int) -> list[Sample]:
    """Some images from all over a source; of records, which are not to be had singly, the first ones."""
    positions = np.unique(np.linspace(0, source.num_examples - 1, count).astype(int))
    if isinstance(source, ArraySource):
        return [Sample(int(i), source.keys[i], source.images[i]) for i in positions]
    if isinstance(source, FileSource):
        handles = _handles(source.subset(positions)).map(
            lambda position, *handle: (tf.gather(positions, position), *handle)
        )
    else:
        handles = _handles(source).take(count)
    samples = handles.map(lambda number, name, handle, *label: (number, name, _try_decode(source, handle)[1]))
    found = ((int(number), os.fsdecode(name), image) for number, name, image in samples.as_numpy_iterator())
    return [Sample(*columns) for columns in found if columns[2].size]


def _batches(source: Source) -> Iterator[dict[str, np.ndarray]]:
    """The columns of a `Survey`, and grey images, signatures and handles, some images at a time."""
    if not isinstance(source, ArraySource):
        yield from _decoded(source).batch(_BATCH).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()
        return
    height, width = source.images.shape[1:3]
    for start in range(0, source.num_examples, _BATCH):
        images = source.images[start : start + _BATCH]
        count = len(images)
        names = source.keys[start : start + count]
        suffixes = [os.path.splitext(name)[1].lower() if source.names is not None else "in memory" for name in names]
        yield {
            "name": np.array([os.fsencode(name) for name in names], object),
            "signature": np.array([suffix.encode() for suffix in suffixes], object),
            "height": np.full(count, height, np.int32),
            "width": np.full(count, width, np.int32),
            "fingerprint": tf.fingerprint(images.reshape(count, -1)).numpy(),
            "grey": to_grey(images).numpy(),
        } | ({} if source.labels is None else {"label": source.labels[start : start + count]})


def _decoded(source: FileSource | TfdsSource | TfrecordSource) -> tf.data.Dataset:
    """What `_batches` returns, image by image; of a broken one the height is 0."""

    def look(number: tf.Tensor, name: tf.Tensor, handle: tf.Tensor, *label: tf.Tensor) -> dict[str, tf.Tensor]:
        signature, image = _try_decode(source, handle)
        height, width, _ = tf.unstack(tf.shape(image))
        is_whole = height > 0
        size = [GREY_SIZE_PX, GREY_SIZE_PX]
        columns = {
            "name": name,
            "handle": handle if isinstance(source, FileSource) else tf.where(is_whole, "", handle),
            "signature": signature,
            "height": height,
            "width": width,
            "fingerprint": tf.fingerprint(tf.reshape(image, [1, -1]))[0],
            "grey": tf.ensure_shape(tf.cond(is_whole, lambda: to_grey(image), lambda: tf.zeros(size)), size),
        }
        return columns | ({"label": label[0]} if label else {})

    return _handles(source).map(look, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _handles(source: FileSource | TfdsSource | TfrecordSource) -> tf.data.Dataset:
    """(number, name, handle, label) of every example, or without a label; the handle is a path, or encoded bytes."""
    if not isinstance(source, FileSource):
        return source.records()
    labels = () if source.labels is None else (source.labels,)
    path_at = source.paths.lookup()

    def find(number: tf.Tensor, *label: tf.Tensor) -> tuple[tf.Tensor, ...]:
        path = path_at(number)
        return number, path, path, *label

    return tf.data.Dataset.from_tensor_slices((np.arange(source.num_examples), *labels)).map(find)


def _try_decode(source: FileSource | TfdsSource | TfrecordSource, handle: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(first bytes, image uint8 [H, W, 3]); of what cannot be read or decoded ("", [0, 0, 3])."""

    def read(handle: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded = tf.io.read_file(handle) if isinstance(source, FileSource) else handle
        signature = tf.strings.substr(encoded, 0, _SIGNATURE_BYTES)
        return signature, decode.decode_image(encoded, source.max_pixels)

    image = tf.data.Dataset.from_tensors(handle).map(read).ignore_errors()
    nothing = tf.data.Dataset.from_tensors(("", tf.zeros([0, 0, 3], tf.uint8)))
    return image.concatenate(nothing).take(1).get_single_element()


def _reason(source: FileSource | TfdsSource | TfrecordSource, handle: bytes) -> str:
    read = functools.partial(tf.io.read_file if isinstance(source, FileSource) else tf.identity, handle)
    return broken_reason(read, source.max_pixels)


def _format(signature: bytes) -> str:
    """The format of a file by its first bytes; where images are in memory already, its suffix stands in their place."""
    known = [name for start, name in _SIGNATURES.items() if signature.startswith(start)]
    return known[0] if known else signature.decode()


def _members(groups: np.ndarray) -> list[np.ndarray]:
    """The positions in every group of at least two."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return [members for members in np.split(order, starts[1:]) if len(members) > 1]

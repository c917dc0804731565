"""Surveys every image of a source: sizes, formats, classes, broken images, and fingerprints of duplicates."""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from tf_simclr.data.quality import pixels
from tf_simclr.data.quality.duplicates import (
    MAX_PAIRS,
    MIN_CONTRAST,
    Looks,
    describe,
    near_pairs,
    split_series,
    stars,
    to_grey,
)
from tf_simclr.data.sources import Source

_SIGNATURES = {b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WebP"}
_PAIRS_AT_ONCE = 1 << 11  # Their images are in memory together, 48 KB each.


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """Facts about the N images of a source that can be decoded.

    Attributes:
      names: object [N], path of every image, FILE#record=INDEX of a record, or position in an array.
      heights: int32 [N], in pixels.
      widths: int32 [N].
      labels: int64 [N], -1 for an unknown one, or None.
      class_names: The name of every class id, or None.
      formats: Number of images by format; for images in memory, by the suffix of their names.
      fingerprints: uint64 [N], equal for equal pixels.
      looks: Perceptual hashes.
      source: The source.
      positions: int64 [N], the position of every image in the source.
    """

    names: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    labels: np.ndarray | None
    class_names: tuple[str, ...] | None
    formats: dict[str, int]
    fingerprints: np.ndarray
    looks: Looks
    source: Source
    positions: np.ndarray

    @property
    def is_labelled(self) -> np.ndarray:
        """Whether each image has a label, bool [N]."""
        return np.zeros(len(self.names), bool) if self.labels is None else self.labels >= 0


def survey(source: Source, watch: Callable[[int], Any] = lambda count: None) -> Survey:
    """Decodes every image of a source once.

    Args:
      source: N images; the broken ones are added to its broken files.
      watch: Called with the number of images inspected since the last call.

    Raises:
      ValueError: If no image can be decoded.
    """
    batches: list[dict[str, np.ndarray]] = []
    looks: list[Looks] = []
    formats: collections.Counter[str] = collections.Counter()
    broken: dict[str, str] = {}
    count = 0
    for batch in source.inspect(_look):
        watch(len(batch["name"]))
        count += len(batch["name"])
        batch["position"] = np.arange(count - len(batch["name"]), count)
        is_whole, reasons = batch["height"] > 0, batch.pop("reason")
        broken |= zip(batch["name"][~is_whole], reasons[~is_whole], strict=True)
        batch = {name: column[is_whole] for name, column in batch.items()}
        formats.update(_format(content) for content in batch.pop("signature"))
        looks.append(describe(batch.pop("grey")))
        batches.append(batch)
    source.broken.add(broken)
    if count < source.num_examples:
        source.broken.add(source.lost)
    source.broken.write()
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
        # Images of different shapes, such as 2x1 and 1x2 pixels, may have equal bytes.
        columns["fingerprint"].view(np.uint64)[:, 0] ^ columns["height"].astype(np.uint64),
        Looks(*(np.concatenate(column) for column in zip(*looks, strict=True))),
        source,
        columns["position"],
    )


def _look(images: tf.Tensor) -> dict[str, tf.Tensor]:
    """What identifies duplicates of images, uint8 [b, H, W, 3]: fingerprint uint8 [b, 8], grey float32 [b, 32, 32]."""
    pixels = tf.reshape(images, [tf.shape(images)[0], -1])
    return {"fingerprint": tf.fingerprint(pixels), "grey": to_grey(images)}


class Duplicates(NamedTuple):
    """Images that occur more than once, as groups of image positions, each int64 [at least 2] and increasing.

    Attributes:
      exact: The images of a group have equal pixels, of more than one colour.
      near: One image shows the same picture as each of the others, in other pixels: hash and details agree (see
        `duplicates` and `pixels`).
      series: Many images, each of which shows nearly the same as some other one (see `duplicates.split_series`).
    """

    exact: list[np.ndarray]
    near: list[np.ndarray]
    series: list[np.ndarray]


def find_duplicates(surveys: Sequence[Survey]) -> Duplicates:
    """Finds images that occur more than once.

    Args:
      surveys: Surveys of one or more sources; their images are numbered consecutively.
    """
    fingerprints = np.concatenate([survey.fingerprints for survey in surveys])
    looks = Looks(*(np.concatenate(column) for column in zip(*(survey.looks for survey in surveys), strict=True)))
    _, first, exact = np.unique(fingerprints, return_index=True, return_inverse=True)
    candidates = first[near_pairs(Looks(*(column[first] for column in looks)))]
    if len(candidates):
        logging.info("Comparing %d pairs of images that may show the same picture", len(candidates))
    if len(candidates) == MAX_PAIRS:
        logging.warning("More images look alike than can be compared: near duplicates may be missing from the findings")
    pairs, series = split_series(candidates[_show_the_same(surveys, candidates)])
    near, series = (
        [np.flatnonzero(np.isin(exact, exact[group])) for group in groups] for groups in (stars(pairs), series)
    )
    same = [group for group in _members(exact) if looks.contrasts[group[0]] >= MIN_CONTRAST]
    return Duplicates(same, near, series)


def _show_the_same(surveys: Sequence[Survey], pairs: np.ndarray) -> np.ndarray:
    """Whether the two images of each pair, int64 [n, 2], agree in their details, bool [n]."""
    shorter = np.concatenate([np.minimum(survey.heights, survey.widths) for survey in surveys])
    found = np.empty(len(pairs), bool)
    order = np.argsort(pairs[:, 0], kind="stable")
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        part = order[start : start + _PAIRS_AT_ONCE]
        images, places = np.unique(pairs[part], return_inverse=True)
        thumbnails = look_again(surveys, images, pixels.thumbnail)
        first, second = places.reshape(-1, 2).T
        found[part] = pixels.are_same(thumbnails, first, second, shorter[pairs[part]].min(axis=1))
    return found


def look_again(surveys: Sequence[Survey], images: np.ndarray, look: Callable[[tf.Tensor], tf.Tensor]) -> np.ndarray:
    """Decodes some images again.

    Args:
      surveys: Surveys of one or more sources; their images are numbered consecutively.
      images: int64 [n], increasing.
      look: Maps images of one size, uint8 [b, H, W, 3], to [b, ...] of one shape.

    Returns:
      What `look` makes of the images, [n, ...].
    """
    found = []
    ends = np.cumsum([len(survey.names) for survey in surveys])
    for survey, start, end in zip(surveys, (0, *ends), ends, strict=False):
        wanted = survey.positions[images[(images >= start) & (images < end)] - start]
        if wanted.size:
            found += [batch["look"] for batch in survey.source.inspect(lambda one: {"look": look(one)}, wanted)]
    return np.concatenate(found)


def _format(signature: bytes) -> str:
    """The format of a file by its first bytes; for an image in memory, its suffix instead."""
    known = [name for start, name in _SIGNATURES.items() if signature.startswith(start)]
    return known[0] if known else signature.decode()


def _members(groups: np.ndarray) -> list[np.ndarray]:
    """The positions in every group of at least two."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return [members for members in np.split(order, starts[1:]) if len(members) > 1]

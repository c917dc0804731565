"""Keeps representations in the `features/` of a run, under a key of all that they follow from.

What is there is not made again; what follows from something that has changed is, and takes the place of the old.
"""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from tf_simclr import files
from tf_simclr.data import batches, sources
from tf_simclr.evaluation.encoders import FrozenEncoder
from tf_simclr.evaluation.features import Encoded, Features, extract
from tf_simclr.evaluation.progress import progress
from tf_simclr.runs import lock
from tf_simclr.settings import RunConfig

# Representations are written after so many seconds or values (256 MiB): what a killed evaluation loses at most.
_PART_SECONDS = 60.0
_PART_ELEMENTS = 1 << 26

# Representations that go through another network at a time.
_DERIVED_AT_ONCE = 4096

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
# The code that representations follow from.
_EXTRACTION = (
    "augment/center.py", "data/batches/eval.py", "data/formats/*.py", "evaluation/features.py", "models/*.py",
    "runs/saved_models.py", "runs/saved_outputs.py",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """The images that an evaluation reads.

    Attributes:
      part: What they are for, such as "train".
      source: Where they come from.
      num_classes: Number of classes of their labels.
      limit: Reads the first so many alone, if it is given.
    """

    part: str
    source: sources.Source
    num_classes: int
    limit: int | None = None

    @property
    def num_examples(self) -> int:
        """How many there are, including those not yet known to be broken."""
        return min(self.source.num_examples, self.limit or self.source.num_examples)

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What changes if they do, as JSON."""
        return {**self.source.fingerprint(), "read": self.num_examples}


def labelled(part: str, source: sources.Source, num_classes: int, limit: int | None = None) -> Images:
    """The images of a source that have a label, where that is known before they are read."""
    if source.labels is not None and not source.is_labelled.all():
        source = source.subset(np.flatnonzero(source.is_labelled))
    return Images(part, source, num_classes, limit)


def test_images(config: RunConfig, source: sources.Source, num_classes: int) -> Images:
    """The labelled images that an evaluation tests on."""
    limit = None if config.eval.steps is None else config.eval.steps * config.eval.batch_size
    return labelled("test", source, num_classes, limit)


@dataclasses.dataclass(frozen=True, eq=False)
class CachedFeatures:
    """The representations of images under an encoder, extracted when they are first needed.

    Attributes:
      folder: The `features/` of a run.
      encoder: The encoder.
      images: The images.
      batch_size: How many to encode at a time.
    """

    folder: pathlib.Path
    encoder: FrozenEncoder
    images: Images
    batch_size: int

    @functools.cached_property
    def origin(self) -> dict[str, Any]:
        """What the representations follow from, as JSON."""
        return {
            "encoder": dict(self.encoder.identity),
            "image_size": self.encoder.image_size,
            "images": self.images.fingerprint,
            "code": code_of(*_EXTRACTION),
        }

    @functools.cached_property
    def key(self) -> str:
        """The digest of `origin`."""
        return digest_of(self.origin)

    @functools.cached_property
    def features(self) -> Features:
        """Those of the images that have a label.

        Raises:
          ValueError: If no image has one, or a feature is not finite.
        """
        found = _read(self._extracted())
        names = np.array([os.fsdecode(key) for key in found.keys], object)
        if found.labels.ndim == 2:  # All of them are known.
            return Features(found.representations, found.labels, self.images.num_classes, names, found.digests)
        is_labelled = found.labels >= 0
        if not is_labelled.any():
            raise ValueError("Evaluation needs images with labels. Received: images without labels")
        labels = np.maximum(found.labels, 0)
        features = Features(found.representations, labels, self.images.num_classes, names, found.digests)
        return features if is_labelled.all() else features.take(np.flatnonzero(is_labelled))

    def digests(self) -> np.ndarray:
        """Those of the pixels of the images that have a label, uint64 [N], without reading the representations."""
        columns = [_columns(path) for path in _parts(self._extracted())]
        labels, digests = (np.concatenate([column[name] for column in columns]) for name in ("labels", "digests"))
        return digests if labels.ndim == 2 else digests[labels >= 0]

    def sample(self, choose: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Encoded:
        """Some of the images, with a label or without, while one part of the representations is read at a time.

        Args:
          choose: Returns their row numbers, int64 [M] and increasing, for the names, bytes [N], and the labels of all.
        """
        paths = _parts(self._extracted())
        columns = [_columns(path) for path in paths]
        joined = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
        rows = choose(joined["keys"], joined["labels"])
        taken, start = [], 0
        for path, column in zip(paths, columns, strict=True):
            end = start + len(column["positions"])
            with np.load(path) as arrays:
                taken.append(arrays["representations"][rows[(rows >= start) & (rows < end)] - start])
            start = end
        return Encoded(**{name: values[rows] for name, values in joined.items()}, representations=np.concatenate(taken))

    def _extracted(self) -> pathlib.Path:
        """The folder of the representations, which are extracted unless that has been done."""
        place = self.folder / f"{self.encoder.name}_{self.images.part}_{self.key}"
        if not (place / "complete.json").is_file():
            place.mkdir(parents=True, exist_ok=True)
            with lock.hold(place):
                if self.encoder.base is None:
                    self._extract(place)
                else:
                    self._derive(place, self.encoder.base)
                files.write_json(place / "complete.json", self.origin)
            remove_older(place)
        return place

    def _extract(self, place: pathlib.Path) -> None:
        """Writes what is missing."""
        parts = _parts(place)
        start = _end_of(parts[-1]) if parts else 0
        total, title = self.images.num_examples, f"{self.images.part} images of {self.encoder.title}"
        dataset = batches.eval_dataset(
            self.images.source,
            image_size=self.encoder.image_size,
            batch_size=self.batch_size,
            start=start,
            stop=self.images.limit,
        )
        begun, number = time.monotonic(), len(parts)
        for part in _in_parts(progress(extract(self.encoder.built, dataset), title, done=start, total=total)):
            with files.replacing(place / f"part_{number:05}.npz") as beside:
                np.savez(beside, **part._asdict())
            number += 1
        if number == 0:
            raise ValueError("An evaluation needs at least one image that can be decoded. Received: none")
        logging.info("Encoded the %s at %.0f images/s", title, (total - start) / (time.monotonic() - begun))

    def _derive(self, place: pathlib.Path, base: FrozenEncoder) -> None:
        """Writes what the encoder makes of the representations of its base."""
        for path in _parts(dataclasses.replace(self, encoder=base)._extracted()):
            with np.load(path) as arrays:
                part = Encoded(**arrays)
            found = [
                np.asarray(self.encoder.built(part.representations[start : start + _DERIVED_AT_ONCE]), np.float32)
                for start in range(0, len(part.representations), _DERIVED_AT_ONCE)
            ]
            with files.replacing(place / path.name) as beside:
                np.savez(beside, **part._replace(representations=np.concatenate(found))._asdict())


def _in_parts(encoded: Iterator[Encoded]) -> Iterator[Encoded]:
    """Joins batches to what is written at a time."""
    gathered: list[Encoded] = []
    begun = time.monotonic()
    for batch in encoded:
        gathered.append(batch)
        size = sum(one.representations.size for one in gathered)
        if size >= _PART_ELEMENTS or time.monotonic() - begun >= _PART_SECONDS:
            yield _join(gathered)
            gathered, begun = [], time.monotonic()
    if gathered:
        yield _join(gathered)


def _join(parts: Sequence[Encoded]) -> Encoded:
    return Encoded(*map(np.concatenate, zip(*parts, strict=True)))


def _end_of(path: pathlib.Path) -> int:
    """The position after the last image of a part."""
    with np.load(path) as arrays:
        return int(arrays["positions"][-1]) + 1


def _parts(place: pathlib.Path) -> list[pathlib.Path]:
    return sorted(place.glob("part_*.npz"))


def _columns(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The columns of a part by name, without the representations."""
    with np.load(path) as arrays:
        return {name: arrays[name] for name in Encoded._fields if name != "representations"}


def _read(place: pathlib.Path) -> Encoded:
    """All parts, without holding one of them twice beside the whole."""
    paths = _parts(place)
    columns = [_columns(path).values() for path in paths]
    positions, keys, labels, digests = map(np.concatenate, zip(*columns, strict=True))
    representations, filled = np.empty([0, 0], np.float32), 0
    for path in paths:
        with np.load(path) as arrays:
            part = arrays["representations"]
        if filled == 0:
            representations = np.empty([len(positions), part.shape[1]], np.float32)
        representations[filled : filled + len(part)] = part
        filled += len(part)
    return Encoded(positions, keys, labels, digests, representations)


def digest_of(values: Mapping[str, Any]) -> str:
    """The digest of JSON values."""
    return files.digest(json.dumps(values, sort_keys=True).encode())


@functools.cache
def code_of(*patterns: str) -> str:
    """The digest of modules of this package, by the patterns of their paths in it."""
    paths = sorted({path for pattern in patterns for path in _PACKAGE.glob(pattern)})
    return files.digest(b"\0".join(path.read_bytes() for path in paths))


def remove_older(place: pathlib.Path) -> None:
    """Removes what was found before for the same purpose: names end with "_" and the key."""
    purpose = place.stem.rpartition("_")[0]
    for other in place.parent.iterdir():
        if other.stem.rpartition("_")[0] == purpose and other.stem != place.stem:
            shutil.rmtree(other) if other.is_dir() else other.unlink()

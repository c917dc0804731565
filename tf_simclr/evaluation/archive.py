"""All images of an archive, or one of several shards of them, in an order that never changes."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_simclr.data.batches import eval_dataset
from tf_simclr.data.files import archives
from tf_simclr.data.files.broken import RECORD_SEPARATOR
from tf_simclr.data.files.names import in_print
from tf_simclr.data.sources import Source, in_part


class Batch(NamedTuple):
    """Images in order, broken ones among them.

    Attributes:
      positions: int64 [b], of the images in the archive.
      paths: Their names, [b].
      images: Those that are intact, float32 [v, S, S, 3] in [0, 1], or PNG files, bytes [v].
      reasons: Why the others are broken, or "", [b].
      labels: The names of their classes, None where unknown, [b].
    """

    positions: np.ndarray
    paths: Sequence[str]
    images: np.ndarray
    reasons: Sequence[str]
    labels: Sequence[str | None]


class Archive:
    """The images of some sources, or the i-th of n shards of them. The hash of an image's key decides on its shard.

    Attributes:
      num_images: How many there are, with the broken ones.

    Args:
      sources: The sources, one after the other.
      shard: (i, n).
    """

    def __init__(self, sources: Sequence[Source], shard: tuple[int, int] = (0, 1)) -> None:
        self._sources = sources
        self._shard = shard
        self._positions = [
            in_part(source.keys, *shard) if shard[1] > 1 else np.arange(source.num_examples) for source in sources
        ]
        self._unreadable = [
            (_whole(path), source.broken.reason(path))
            for source in sources
            for path in self._ours(source.broken.paths())
        ]
        self.num_images = sum(map(len, self._positions)) + len(self._unreadable)

    def fingerprint(self) -> list[Any]:
        """What changes if an image does, as JSON."""
        return [source.fingerprint() for source in self._sources]

    def batches(self, start: int, stop: int, image_size: int | None, batch_size: int) -> Iterator[Batch]:
        """Decodes the images from `start` up to `stop` and preprocesses them as for an evaluation.

        Args:
          start: The position of the first image.
          stop: The position after the last one.
          image_size: Side S in pixels; None hands over the images as they are, as PNG files.
          batch_size: Images in a batch; the last one of a source has the remaining ones.

        Raises:
          ValueError: If records are missing.
        """
        first = 0
        for source, positions in zip(self._sources, self._positions, strict=True):
            wanted = positions[max(0, start - first) : max(0, stop - first)]
            if wanted.size:
                place = max(start, first)
                for batch in _read(source, wanted, image_size, batch_size):
                    yield batch._replace(positions=batch.positions + place)
            first += len(positions)
        rest = self._unreadable[max(0, start - first) : max(0, stop - first)]
        if rest:
            paths, reasons = zip(*rest, strict=True)
            yield Batch(np.arange(len(rest)) + max(start, first), paths, np.empty(0), reasons, [None] * len(rest))

    def _ours(self, paths: Sequence[str] | dict[str, str]) -> list[str]:
        """Those of the paths that are in this shard, sorted."""
        ordered = sorted(paths)
        return [ordered[position] for position in in_part(map(os.path.basename, ordered), *self._shard)]


def _read(source: Source, wanted: np.ndarray, image_size: int | None, batch_size: int) -> Iterator[Batch]:
    """Reads the images at the wanted positions of a source; positions count from the first of them."""
    part = source.subset(wanted) if len(wanted) < source.num_examples else source
    keys, places = part.keys, source.places
    done = 0
    for batch in eval_dataset(part, image_size=image_size, batch_size=batch_size).as_numpy_iterator():
        positions, found, images, labels = batch
        _check_keys(keys, positions, found)
        last = int(positions[-1]) + 1
        filled = _fill(source, places, wanted[done:last], wanted[positions], images, labels)
        yield filled._replace(positions=np.arange(done, last))
        done = last
    if done < len(wanted):
        nothing = np.empty(0, np.int64)
        filled = _fill(source, places, wanted[done:], nothing, np.empty(0), nothing)
        yield filled._replace(positions=np.arange(done, len(wanted)))


def _check_keys(keys: Sequence[str], positions: np.ndarray, found: np.ndarray) -> None:
    """Raises an error if records are missing, so that later ones have moved to their positions."""
    for place in (0, -1):
        key, expected = os.fsdecode(found[place]), keys[int(positions[place])]
        if key != expected:
            raise ValueError(
                "Records must not be missing, or those after them are taken for them: repair their file. "
                f"Received: {in_print(key)} in the place of {in_print(expected)}"
            )


def _fill(
    source: Source,
    places: Sequence[str],
    wanted: np.ndarray,
    read: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
) -> Batch:
    """The images that were read, and the broken ones between them."""
    names = source.class_names
    known = dict(zip(read.tolist(), labels.tolist(), strict=True)) if labels.ndim == 1 else {}
    if source.labels is not None and source.labels.ndim == 1:  # Those of broken images, too.
        known = dict(zip(wanted.tolist(), source.labels[wanted].tolist(), strict=True))
    paths = [places[position] for position in wanted.tolist()]
    reasons = [
        "" if fine else source.broken.reason(path) if path in source.broken else source.lost.get(path, "it is gone")
        for path, fine in zip(paths, np.isin(wanted, read), strict=True)
    ]
    classes = [known.get(position, -1) for position in wanted.tolist()]
    titles = [None if label < 0 else names[label] if names else str(label) for label in classes]
    return Batch(wanted, list(map(_whole, paths)), images, reasons, titles)


def _whole(name: str) -> str:
    """The path of a local file, of a member of an archive or of a record, from the root; any other name as it is."""
    return os.path.abspath(name) if os.path.lexists(archives.file_of(name.partition(RECORD_SEPARATOR)[0])) else name

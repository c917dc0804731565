"""All images of an archive, or one of several shards of them, in an order that never changes."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_simclr.augment import center
from tf_simclr.data.files.broken import RECORD_SEPARATOR
from tf_simclr.data.sources import Source, in_part


class Batch(NamedTuple):
    """Images in order, broken ones among them.

    Attributes:
      positions: int64 [b], of the images in the archive.
      paths: Their names, [b].
      images: float32 [b, S, S, 3] in [0, 1], or PNG files, bytes [b]; of a broken image, anything.
      reasons: Why they are broken, or "", [b].
      labels: The names of their classes, None where unknown, [b].
    """

    positions: np.ndarray
    paths: Sequence[str]
    images: np.ndarray | None
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
          ValueError: If images have vanished from a source while it was read.
        """

        def look(images: tf.Tensor) -> dict[str, tf.Tensor]:
            if image_size is None:  # Without compression, which would take longer than most encoders.
                return {"image": tf.io.encode_png(images, compression=0)}
            return {"image": center.preprocess_for_eval(images, image_size)}

        first = 0
        for source, positions in zip(self._sources, self._positions, strict=True):
            wanted = positions[max(0, start - first) : max(0, stop - first)]
            if wanted.size:
                place = max(start, first)
                for batch in self._read(source, wanted, look, batch_size):
                    yield batch._replace(positions=batch.positions + place)
            first += len(positions)
        rest = self._unreadable[max(0, start - first) : max(0, stop - first)]
        if rest:
            paths, reasons = zip(*rest, strict=True)
            yield Batch(np.arange(len(rest)) + max(start, first), paths, None, reasons, [None] * len(rest))

    def _read(
        self,
        source: Source,
        wanted: np.ndarray,
        look: Callable[[tf.Tensor], dict[str, tf.Tensor]],
        batch_size: int,
    ) -> Iterator[Batch]:
        """Reads some images of a source; positions count from the first of them."""
        names, count = source.class_names, 0
        only = wanted if len(wanted) < source.num_examples else None
        for columns in source.inspect(look, only, batch_size):
            labels = columns.get("label", np.full(len(columns["name"]), -1))
            yield Batch(
                count + np.arange(len(labels)),
                [_whole(name) for name in columns["name"]],
                columns["image"],
                list(columns["reason"]),
                [None if label < 0 else names[label] if names else str(label) for label in labels],
            )
            count += len(labels)
        if count < len(wanted):
            lost = [(path, source.lost[path]) for path in self._ours(source.lost)][: len(wanted) - count]
            if len(lost) < len(wanted) - count:
                raise ValueError(
                    f"Images must not vanish while they are read: {len(wanted) - count} of {len(wanted)} have. "
                    f"Received: {source.keys[int(wanted[0])]!r} and what follows it"
                )
            paths, reasons = zip(*lost, strict=True)
            yield Batch(count + np.arange(len(lost)), paths, None, reasons, [None] * len(lost))

    def _ours(self, paths: Sequence[str] | dict[str, str]) -> list[str]:
        """Those of the paths that are in this shard, sorted."""
        ordered = sorted(paths)
        return [ordered[position] for position in in_part(map(os.path.basename, ordered), *self._shard)]


def _whole(name: str) -> str:
    """The path of a local file, or of a record in one, from the root; any other name as it is."""
    return os.path.abspath(name) if os.path.lexists(name.partition(RECORD_SEPARATOR)[0]) else name

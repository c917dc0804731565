"""Shows how far a pass over images has come."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

import numpy as np
from absl import logging
from tqdm import tqdm

_LOG_EVERY_SECONDS = 10.0


class _Batch(Protocol):
    @property
    def positions(self) -> np.ndarray:
        """The positions of its images, int64 [b]."""


_B = TypeVar("_B", bound=_Batch)


def progress(batches: Iterable[_B], title: str, *, done: int, total: int) -> Iterator[_B]:
    """Passes batches on; a terminal shows a bar with images/s and the time left, a log gets a line now and then.

    Args:
      batches: What was found for the next images.
      title: What is encoded, such as "test images of this encoder".
      done: Images that were encoded before.
      total: Images in all.
    """
    with tqdm(total=total, initial=done, unit="image", desc=title, disable=not sys.stderr.isatty()) as bar:
        start = logged = time.monotonic()
        first = done
        for batch in batches:
            done += len(batch.positions)
            bar.update(len(batch.positions))
            now = time.monotonic()
            if bar.disable and now - logged >= _LOG_EVERY_SECONDS:
                rate, logged = (done - first) / (now - start), now
                left = tqdm.format_interval((total - done) / rate)
                logging.info("Encoded %d of %d %s, %.0f images/s, %s left", done, total, title, rate, left)
            yield batch

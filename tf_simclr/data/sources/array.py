"""A source of decoded images in memory."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr.data.files.broken import BrokenFiles
from tf_simclr.data.sources.base import INSPECTED_AT_ONCE, Sample, Source, check_labels
from tf_simclr.data.sources.order import Steps, index_batches


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource(Source):
    """Images of one size, decoded, in memory.

    Attributes:
      images: uint8 [N, H, W, 3].
      labels: int64 [N] in [0, number of classes), -1 for an unknown one, or None.
      class_names: The name of every class id, or None.
      names: For images read from files, the path of each relative to its folder.
      skipped: (path, reason) of every file that could not be decoded.
      broken: Stays empty: decoded images do not break.
    """

    has_one_size = True

    images: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    broken: BrokenFiles = dataclasses.field(default_factory=BrokenFiles, init=False)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[-1] != 3 or self.images.dtype != np.uint8:
            raise ValueError(
                "The images of an ArraySource must be uint8 of shape [N, H, W, 3]. "
                f"Received: {self.images.dtype} {list(self.images.shape)}"
            )
        check_labels(self.labels, self.num_examples)

    @property
    def num_examples(self) -> int:
        return len(self.images)

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the images, or their positions if they have none."""
        return self.names if self.names is not None else tuple(map(str, range(self.num_examples)))

    def _identifying_bytes(self) -> Any:
        return np.ascontiguousarray(self.images).data

    def subset(self, indices: np.ndarray) -> "ArraySource":
        return dataclasses.replace(
            self,
            images=self.images[indices],
            labels=None if self.labels is None else self.labels[indices],
            names=None if self.names is None else tuple(self.names[i] for i in indices),
        )

    def train_examples(self, steps: Steps, reports: bool = True) -> tf.data.Dataset:
        columns = tuple(tf.constant(column) for column in self._columns())

        def gather(epoch: tf.Tensor, indices: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
            examples, _ = indices
            keys = tf.stack([tf.fill(tf.shape(examples), epoch), examples], axis=1)
            return keys, *(tf.gather(column, examples) for column in columns)

        return index_batches(self.num_examples, steps).map(gather)

    def eval_examples(self, start: int = 0) -> tf.data.Dataset:
        positions = np.arange(start, self.num_examples)
        keys = list(map(os.fsencode, self.keys[start:]))
        labels = np.full(self.num_examples, -1) if self.labels is None else self.labels
        return tf.data.Dataset.from_tensor_slices((positions, keys, self.images[start:], labels[start:]))

    def _columns(self) -> tuple[np.ndarray, ...]:
        return (self.images,) if self.labels is None else (self.images, self.labels)

    def sample(self, count: int) -> list[Sample]:
        positions = np.unique(np.linspace(0, self.num_examples - 1, count).astype(int))
        keys = self.keys
        return [Sample(int(i), keys[i], self.images[i]) for i in positions]

    def inspect(
        self, look: Callable[[tf.Tensor], dict[str, tf.Tensor]], only: np.ndarray | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        if only is not None:
            yield from self.subset(only).inspect(look)
            return
        height, width = self.images.shape[1:3]
        keys = self.keys
        for start in range(0, self.num_examples, INSPECTED_AT_ONCE):
            images = self.images[start : start + INSPECTED_AT_ONCE]
            count = len(images)
            names = keys[start : start + count]
            suffixes = [os.path.splitext(name)[1].lower() if self.names is not None else "in memory" for name in names]
            yield {
                "name": np.array(names, object),
                "signature": np.array([suffix.encode() for suffix in suffixes], object),
                "height": np.full(count, height, np.int32),
                "width": np.full(count, width, np.int32),
                "reason": np.full(count, "", object),
                **{name: column.numpy() for name, column in look(tf.constant(images)).items()},
                **({} if self.labels is None else {"label": self.labels[start : start + count]}),
            }

    def in_memory(self) -> "ArraySource":
        return self

    def sample_encoded(self, count: int) -> list[bytes]:
        return []

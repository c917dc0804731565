"""What sources of encoded images share: inspecting images and finding broken ones."""

import abc
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr.data.files.broken import broken_reason
from tf_simclr.data.formats import decode
from tf_simclr.data.sources.base import INSPECTED_AT_ONCE, Sample, Source

_SIGNATURE_BYTES = 16


def hold(contents: np.ndarray | None) -> tf.Tensor:
    """A copy of encoded images, object [N], for TensorFlow, string [N]; in no graph."""
    with tf.init_scope():
        return tf.constant(contents)


class EncodedSource(Source):
    """Images that are decoded as they are read, of any sizes and any number.

    Attributes:
      max_pixels: Images with more pixels count as broken.
    """

    has_one_size = False
    max_pixels: int

    def fingerprint(self) -> dict[str, Any]:
        return {**self.identity(), "max_pixels": self.max_pixels, "digest of the content": self._digest_of_content()}

    @abc.abstractmethod
    def _digest_of_content(self) -> str:
        """Changes if the content of an image does, as far as a look at the files tells."""

    @abc.abstractmethod
    def _handles(self, count: int | None = None) -> tf.data.Dataset:
        """Lists all examples in order, or about `count` of them, without decoding.

        Returns:
          Dataset of (number of the example int64 [], name string [], handle string [], label int64 []), without the
          label if there are none. A handle is what `_fetch` takes.
        """

    def _fetch(self, handle: tf.Tensor) -> tf.Tensor:
        """The encoded image, string [], that a handle stands for; by default the handle itself."""
        return handle

    def why_broken(self, handle: bytes) -> str:
        """Says in a few words why the image that a handle stands for cannot be decoded."""
        return broken_reason(functools.partial(self._fetch, tf.constant(handle)), self.max_pixels)

    def try_decode(self, handle: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(first bytes, image uint8 [H, W, 3]), or ("", [0, 0, 3]) if it cannot be read or decoded."""

        def read(handle: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            encoded = self._fetch(handle)
            return tf.strings.substr(encoded, 0, _SIGNATURE_BYTES), decode.decode_image(encoded, self.max_pixels)

        image = tf.data.Dataset.from_tensors(handle).map(read).ignore_errors()
        nothing = tf.data.Dataset.from_tensors(("", tf.zeros([0, 0, 3], tf.uint8)))
        return image.concatenate(nothing).take(1).get_single_element()

    def sample(self, count: int) -> list[Sample]:
        samples = self._handles(count).map(
            lambda number, name, handle, *label: (number, name, self.try_decode(handle)[1])
        )
        found = ((int(number), os.fsdecode(name), image) for number, name, image in samples.as_numpy_iterator())
        return [Sample(*columns) for columns in found if columns[2].size]

    def inspect(
        self, look: Callable[[tf.Tensor], dict[str, tf.Tensor]], only: np.ndarray | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        def inspect_one(
            number: tf.Tensor, name: tf.Tensor, handle: tf.Tensor, *label: tf.Tensor
        ) -> dict[str, tf.Tensor]:
            signature, image = self.try_decode(handle)
            height, width, _ = tf.unstack(tf.shape(image))
            is_whole = height > 0
            seen = tf.cond(is_whole, lambda: image, lambda: tf.zeros([1, 1, 3], tf.uint8))
            return {
                "name": name,
                "handle": tf.where(is_whole, "", handle),  # A handle may be a whole image.
                "signature": signature,
                "height": height,
                "width": width,
                **{name: column[0] for name, column in look(seen[tf.newaxis]).items()},
                **({"label": label[0]} if label else {}),
            }

        handles = self._handles()
        if only is not None:
            is_wanted = tf.constant(np.isin(np.arange(self.num_examples), only))
            handles = handles.enumerate().filter(lambda position, handle: tf.gather(is_wanted, position))
            handles = handles.map(lambda position, handle: handle)
        inspected = handles.map(inspect_one, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        for batch in inspected.batch(INSPECTED_AT_ONCE).prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
            batch["name"] = np.array([os.fsdecode(name) for name in batch["name"]], object)
            handles = batch.pop("handle")
            batch["reason"] = np.full(len(handles), "", object)
            for i in np.flatnonzero(batch["height"] == 0):
                batch["reason"][i] = self.why_broken(handles[i])
            yield batch

"""Representations of images under a frozen encoder."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_simclr.keras import keras


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """Representations of labelled images.

    Attributes:
      representations: float32 [N, F].
      labels: int64 [N] in [0, num_classes); or bool [N, num_classes], whether an image has a class, where it may have
        several.
      num_classes: Number of classes.
      keys: The names of the images, [N], as their source gives them; None if nobody needs them.
      digests: Of their pixels, uint64 [N]; empty if nobody needs them.
      is_validation: Which of the images choose hyper-parameters, bool [N]; None leaves that to the protocol.

    Raises:
      ValueError: If a label is out of range, or those of several classes have another shape or dtype.
    """

    representations: np.ndarray
    labels: np.ndarray
    num_classes: int
    keys: np.ndarray | None = None
    digests: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros([0], np.uint64))
    is_validation: np.ndarray | None = None

    def __post_init__(self) -> None:
        labels = self.labels
        if self.is_multi_label:
            if labels.dtype != bool or labels.shape[1] != self.num_classes:
                raise ValueError(
                    f"Labels of several classes must be bool [N, {self.num_classes}]. "
                    f"Received: {labels.dtype} {list(labels.shape)}"
                )
        elif len(labels) and (labels.min() < 0 or labels.max() >= self.num_classes):
            raise ValueError(f"Labels must lie in [0, {self.num_classes}). Received: {labels.min()} to {labels.max()}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have several classes."""
        return self.labels.ndim == 2

    def take(self, indices: np.ndarray) -> "Features":
        """Those of the images at `indices`, integers [M], in that order."""
        return dataclasses.replace(
            self,
            representations=self.representations[indices],
            labels=self.labels[indices],
            keys=None if self.keys is None else self.keys[indices],
            is_validation=None if self.is_validation is None else self.is_validation[indices],
            digests=self.digests[indices] if len(self.digests) else self.digests,
        )

    def count_in(self, others: "Features") -> int:
        """How many of these images are, pixel by pixel, among the others, where both have digests."""
        return int(np.isin(self.digests, others.digests).sum())


def check_one_label(train: Features, title: str) -> None:
    """Raises a `ValueError` for images with several labels, in the name of an evaluation that takes one."""
    if train.is_multi_label:
        raise ValueError(
            f"{title} takes one label for each image; images with several labels can be judged by linear and linear_45 "
            f"(eval.protocols). Received: labels {list(train.labels.shape)}"
        )


class Encoded(NamedTuple):
    """A batch of encoded images, one row for each.

    Attributes:
      positions: int64 [b], of the images in their source.
      keys: Their names, bytes [b].
      labels: int64 [b], -1 for an image without a label; or bool [b, C], as in `Features`.
      digests: uint64 [b], of the pixels that the encoder got.
      representations: float32 [b, F].
    """

    positions: np.ndarray
    keys: np.ndarray
    labels: np.ndarray
    digests: np.ndarray
    representations: np.ndarray


def extract(encoder: Callable[..., tf.Tensor], dataset: tf.data.Dataset) -> Iterator[Encoded]:
    """Encodes the images of a data set in inference mode; the encoder does not change.

    If the variables of the encoder are on several replicas, each of them encodes a share of every batch.

    Args:
      encoder: A `keras.Model`, or a function of the images alone, to representations [b, F] of any float dtype.
      dataset: Of `batches.eval_dataset`.

    Yields:
      The batches, in order.

    Raises:
      ValueError: If a feature is not finite.
    """
    encode = make_encode(encoder, dataset.element_spec[2])
    for positions, keys, images, labels in dataset:
        representations = encode(images)
        if not np.isfinite(representations).all():
            raise ValueError("The encoder must return finite features. Received: NaN or infinity in its output")
        digests = _digest(images).numpy().view(np.uint64)[:, 0]
        yield Encoded(positions.numpy(), keys.numpy().astype(np.bytes_), labels.numpy(), digests, representations)


@tf.function(reduce_retracing=True)
def _digest(images: tf.Tensor) -> tf.Tensor:
    """The hash of every image, or of its encoded bytes, uint8 [b, 8]."""
    if images.dtype != tf.string:
        images = tf.image.convert_image_dtype(images, tf.uint8)
    return tf.raw_ops.Fingerprint(data=images, method="farmhash64")


# The training and the test images of an encoder follow each other, and tracing it takes a second.
@functools.lru_cache(maxsize=1)
def make_encode(encoder: Callable[..., tf.Tensor], spec: tf.TensorSpec) -> Callable[[tf.Tensor], np.ndarray]:
    """Makes the function from images [b, ...] of the spec to representations, float32 [b, F]."""
    options = {"training": False} if isinstance(encoder, keras.Model) else {}
    strategy = getattr(encoder, "distribute_strategy", tf.distribute.get_strategy())
    replicas, size = strategy.num_replicas_in_sync, 0

    def encode_share(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(encoder(images, **options), tf.float32)

    if replicas == 1:
        # The batch axis stays open, so that a smaller last batch does not cause another trace.
        encode_batch = tf.function(encode_share, input_signature=[tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)])
        return lambda images: encode_batch(images).numpy()

    encode_on_replicas = tf.function(lambda shares: strategy.run(encode_share, args=(shares,)))

    def encode(images: tf.Tensor) -> np.ndarray:
        nonlocal size
        size = max(size, math.ceil(len(images) / replicas) * replicas)  # One for all batches: a TPU wants that.
        filled = tf.concat([images, tf.repeat(images[:1], size - len(images), axis=0)], axis=0)
        shares = tf.split(filled, replicas)
        by_replica = strategy.experimental_distribute_values_from_function(
            lambda context: shares[context.replica_id_in_sync_group]
        )
        found = strategy.experimental_local_results(encode_on_replicas(by_replica))
        return tf.concat(found, axis=0)[: len(images)].numpy()

    return encode

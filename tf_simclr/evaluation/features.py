"""Representations of a data set under a frozen encoder."""

import dataclasses

import numpy as np
import tensorflow as tf

from tf_simclr.keras import keras


@dataclasses.dataclass(frozen=True)
class Features:
    """Representations of labelled images.

    Attributes:
      representations: float32 [N, F].
      labels: int64 [N] in [0, num_classes).
      num_classes: Number of classes.

    Raises:
      ValueError: If a label is out of range.
    """

    representations: np.ndarray
    labels: np.ndarray
    num_classes: int

    def __post_init__(self) -> None:
        labels = self.labels
        if len(labels) and (labels.min() < 0 or labels.max() >= self.num_classes):
            raise ValueError(f"Labels must lie in [0, {self.num_classes}). Received: {labels.min()} to {labels.max()}")


def extract(encoder: keras.Model, dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray | None]:
    """Encodes every image of a data set, in order, in inference mode; the encoder does not change.

    Args:
      encoder: Maps images [b, S, S, 3], float32 in [0, 1], to representations [b, F] of any float dtype.
      dataset: Finite; yields batches (images, labels), or images alone.

    Returns:
      features: float32 [N, F].
      labels: int64 [N], or `None` if the data set has none.

    Raises:
      ValueError: If the data set is empty or a feature is not finite.
    """
    spec = dataset.element_spec
    labelled = isinstance(spec, tuple)
    image_spec = spec[0] if labelled else spec
    # The batch axis stays open, so that the smaller last batch does not cause another trace.
    signature = [tf.TensorSpec([None, *image_spec.shape[1:]], image_spec.dtype)]

    @tf.function(input_signature=signature)
    def encode(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(encoder(images, training=False), tf.float32)

    features, labels = [], []
    for batch in dataset:
        features.append(encode(batch[0] if labelled else batch).numpy())
        if labelled:
            labels.append(batch[1].numpy())
    if not features:
        raise ValueError("The data set to evaluate on must hold at least one image. Received: none")
    all_features = np.concatenate(features)
    if not np.isfinite(all_features).all():
        raise ValueError("The encoder must return finite features. Received: NaN or infinity in its output")
    return all_features, np.concatenate(labels).astype(np.int64) if labelled else None

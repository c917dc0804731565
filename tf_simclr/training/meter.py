"""Measures a model on held-out images: the numbers of `metrics.representation`, and kNN where labels exist.

It changes nothing of the run: no weight, no state of a metric or of the optimizer, and no random number.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import stats
from sklearn.neighbors import NearestNeighbors

from tf_simclr.augment import pixels
from tf_simclr.metrics import representation
from tf_simclr.models.simclr import SimCLR
from tf_simclr.training.held_out import HeldOut

NEIGHBORS = 10
# With fewer images of a class, most neighbours are of other classes, whatever the encoder.
_MIN_IMAGES_OF_A_CLASS = 10


class Meter:
    """Measures a model on held-out images."""

    def __init__(self, model: SimCLR, held_out: HeldOut, *, global_batch_size: int, encoded_at_once: int):
        """Makes the meter.

        Args:
          model: The model, whose encoder and head are used in inference mode.
          held_out: The images.
          global_batch_size: Images of a training step, whose contrastive accuracy is estimated.
          encoded_at_once: Images that are encoded at a time.
        """
        self._views = held_out.views
        self._num_candidate_views = model.pairs.num_candidate_views
        of_training = {
            "num_small_views": model.num_views - model.augmentation.num_views,
            "memory_size": getattr(model, "memory_size", 0),
            "collapse_loss": model.collapse_value(global_batch_size),
            "entropy_candidates": entropy_candidates(model, global_batch_size),
        }
        self._of_training = {name: value for name, value in of_training.items() if value}
        self._global_batch_size = global_batch_size
        self._encoded_at_once = encoded_at_once
        self._of_colors = representation.compare(representation.colors(held_out.views / np.float32(255)))
        labelled = _classified(held_out.labels)
        self._classified = held_out.images[labelled]
        self._labels = held_out.labels[labelled] if held_out.labels is not None else labelled
        self._encode_views, self._encode_images = (
            _make_encode(model, images.shape[-3:]) for images in (held_out.views, held_out.images)
        )

    @property
    def num_images(self) -> int:
        """Images whose views are compared."""
        return self._views.shape[1]

    def __call__(self, *, with_knn: bool) -> dict[str, Any] | None:
        """The numbers of a line of health.jsonl, or `None` if a feature is not finite.

        Args:
          with_knn: Whether to classify the images, if there are labels enough.
        """
        views = self._views
        features = self._apply(self._encode_views, views.reshape(-1, *views.shape[2:]))
        if not all(np.isfinite(one).all() for one in features):
            return None
        of_views, projections = (one.reshape(*views.shape[:2], -1) for one in features)
        values = representation.measure(
            of_views, projections, self._of_colors, self._global_batch_size, self._num_candidate_views
        )
        values |= self._of_training
        if with_knn and len(self._labels):
            representations, _ = self._apply(self._encode_images, self._classified)
            values["knn_top_1_accuracy"] = knn_accuracy(representations, self._labels)
        return values

    def _apply(self, encode: Callable[[tf.Tensor], list[tf.Tensor]], images: np.ndarray) -> list[np.ndarray]:
        """Representations, float32 [N, F], and projections, float32 [N, D], of images uint8 [N, S, S, 3]."""
        starts = range(0, len(images), self._encoded_at_once)
        found = [encode(tf.constant(images[start : start + self._encoded_at_once])) for start in starts]
        return [np.concatenate(column) for column in zip(*found, strict=True)]


def entropy_candidates(model: SimCLR, global_batch_size: int) -> int | None:
    """How many candidates the entropy of a training step is over, or `None` if the loss reports none.

    Of the large views' anchors, as in `SimCLR.collapse_value`; those of a memory count.
    """
    count = getattr(model.view_loss, "entropy_candidates", None)
    if count is None:
        return None
    return count(model.pairs.num_candidate_views, global_batch_size) + getattr(model, "memory_size", 0)


def _make_encode(model: SimCLR, shape: tuple[int, ...]) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    """The encoder and the head of a model in inference mode, for images uint8 [N, *shape]."""

    # The batch axis stays open, so that a smaller last batch does not cause another trace.
    @tf.function(input_signature=[tf.TensorSpec([None, *shape], tf.uint8)])
    def encode(images: tf.Tensor) -> list[tf.Tensor]:
        representations = model.encoder(pixels.to_unit(images), training=False)
        projections = model.projection_head(representations, training=False)
        return [tf.cast(representations, tf.float32), tf.cast(projections, tf.float32)]

    return encode


def knn_accuracy(representations: np.ndarray, labels: np.ndarray) -> float:
    """How often most of the nearest other images of an image are of its class, in [0, 1].

    Args:
      representations: float32 [N, F].
      labels: Integers [N] >= 0.
    """
    nearest = NearestNeighbors(n_neighbors=min(NEIGHBORS, len(labels) - 1), metric="cosine").fit(representations)
    votes = labels[nearest.kneighbors(return_distance=False)]  # Without itself.
    return float(np.mean(stats.mode(votes, axis=1).mode == labels))


def _classified(labels: np.ndarray | None) -> np.ndarray:
    """The positions of the images that kNN takes, int64 [N]; none if there are too few of a class."""
    labelled = np.flatnonzero(labels >= 0) if labels is not None else np.zeros([0], np.int64)
    num_classes = len(np.unique(labels[labelled])) if labels is not None else 0
    is_enough = num_classes > 1 and len(labelled) >= _MIN_IMAGES_OF_A_CLASS * num_classes
    return labelled if is_enough else labelled[:0]

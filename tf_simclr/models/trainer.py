"""The base class of models that train an encoder on augmented images."""

from typing import Any

import tensorflow as tf

from tf_simclr import distribute
from tf_simclr.augment import Augmentation, example_keys
from tf_simclr.keras import keras
from tf_simclr.models.serialization import deserialize, serialize


class EncoderTrainer(keras.Model):
    """An encoder and its augmentation, with the first and the last part of a training step.

    A subclass writes `train_step`: it makes the views of a batch (`make_views`), computes the gradients of its
    objective, and hands them to `update`.
    """

    def __init__(
        self, encoder: keras.Model, augmentation: Augmentation, image_size: int, metrics: list[str], **kwargs: Any
    ):
        """Makes the model.

        Args:
          encoder: Any Keras model from images, float [B, S, S, 3] in [0, 1], to representations [B, F].
          augmentation: How views are made.
          image_size: S, height and width in pixels of the images that the encoder is for.
          metrics: Names of the scalars that the subclass hands to `update`, which adds "learning_rate" and
            "gradient_norm".
          **kwargs: Arguments of `keras.Model`.
        """
        super().__init__(**kwargs)
        self.encoder = encoder
        self.image_size = image_size
        self.augmentation = augmentation
        names = [*metrics, "learning_rate", "gradient_norm"]
        self._trackers = {name: keras.metrics.Mean(name=name) for name in names}
        # The metrics are already means over all replicas. Keras would sum them over the workers of a strategy.
        self.distribute_reduction_method = "first"

    def symbolic_representation(self) -> tf.Tensor:
        """A symbolic output of the encoder, [None, F], on which the following layers are built.

        Building them creates all weights before the first step, so that a checkpoint can be restored.

        Raises:
          ValueError: If the encoder does not take images of `image_size` and views, or does not return [B, F].
        """
        for size in {self.image_size, self.augmentation.image_size}:
            representation = self.encoder(keras.Input([size, size, 3]))
        if representation.shape.rank != 2:
            raise ValueError(
                f"The encoder must map images to representations [B, F]. Received: shape {representation.shape}"
            )
        return representation

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._trackers.values())

    def with_keys(self, batch: tf.Tensor | dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """This replica's n images with the keys that determine their views.

        Args:
          batch: {"images", "keys"} as `Augmentation` takes them; or images alone, whose keys are then (step, position
            in the global batch).

        Returns:
          {"images", "keys"}.
        """
        if isinstance(batch, dict):
            return batch
        num_local = tf.shape(batch)[0]
        keys = example_keys(self.optimizer.iterations, distribute.replica_id() * num_local, num_local)
        return {"images": batch, "keys": keys}

    def make_views(self, batch: tf.Tensor | dict[str, tf.Tensor]) -> tf.Tensor:
        """The views that the next training step makes of a batch: float32 [V n, S, S, 3] in [0, 1], view after view."""
        batch = self.with_keys(batch)
        return self.augmentation(batch["images"], batch["keys"])

    def update(self, gradients: list[tf.Tensor | None], observed: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Ends a training step: sums the gradients over the replicas and updates weights and metrics.

        Args:
          gradients: This replica's gradient of every trainable variable; `None` where the objective does not reach it.
          observed: The value of every metric on this replica.

        Returns:
          The mean of every metric since the metrics were reset.
        """
        gradients = distribute.sum_gradients(gradients)
        observed["gradient_norm"] = tf.linalg.global_norm(gradients)
        self.optimizer.apply_gradients(
            zip(gradients, self.trainable_variables, strict=True), skip_gradients_aggregation=True
        )
        observed["learning_rate"] = self.optimizer.learning_rate
        for name, value in observed.items():
            self._trackers[name].update_state(value)
        return {name: tracker.result() for name, tracker in self._trackers.items()}

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, from which `from_config` rebuilds the model with new weights.

        Raises:
          NotImplementedError: If a part of the model, such as a subclassed encoder, has no config.
        """
        return {
            "name": self.name,
            "encoder": serialize(self.encoder),
            "augmentation": serialize(self.augmentation),
            "image_size": self.image_size,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "EncoderTrainer":
        with keras.saving.custom_object_scope(custom_objects or {}):
            return cls(**{name: deserialize(value) for name, value in config.items()})

"""What the models share that train an encoder on augmented images."""

from typing import Any

import tensorflow as tf

from tf_simclr import distribute
from tf_simclr.augment import Augmentation, example_keys
from tf_simclr.keras import keras


class EncoderTrainer(keras.Model):
    """An encoder, the augmentation of its images, and the end of a training step."""

    def __init__(
        self, encoder: keras.Model, augmentation: Augmentation, image_size: int, metrics: list[str], **kwargs: Any
    ):
        """Makes the model; `metrics` names the scalars that `update` gets, besides its own two."""
        super().__init__(**kwargs)
        self.encoder = encoder
        self.image_size = image_size
        self.augmentation = augmentation
        names = [*metrics, "learning_rate", "gradient_norm"]
        self._trackers = {name: keras.metrics.Mean(name=name) for name in names}
        # The metrics are already means over all replicas. Keras would add up those of the workers of a strategy.
        self.distribute_reduction_method = "first"

    def symbolic_representation(self) -> tf.Tensor:
        """What the encoder returns, for building the layers behind it.

        That creates all weights, so that a checkpoint can be restored before the first step.

        Raises:
          ValueError: If the encoder does not take images of this size, or the views, or does not return [B, F].
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
        """This replica's n images and their keys for the next step.

        Args:
          batch: {"images", "keys"} as `Augmentation` takes them, or images alone, whose keys are then the step and the
            position in the global batch.
        """
        if isinstance(batch, dict):
            return batch
        num_local = tf.shape(batch)[0]
        keys = example_keys(self.optimizer.iterations, distribute.replica_id() * num_local, num_local)
        return {"images": batch, "keys": keys}

    def make_views(self, batch: tf.Tensor | dict[str, tf.Tensor]) -> tf.Tensor:
        """The views that the next step makes of a batch: float32 [V n, S, S, 3], view after view."""
        batch = self.with_keys(batch)
        return self.augmentation(batch["images"], batch["keys"])

    def update(self, gradients: list[tf.Tensor | None], observed: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Ends a training step: one update of the weights against the gradient, and of the metrics.

        Args:
          gradients: Of every trainable variable, this replica's part of a sum over the replicas.
          observed: Value of every metric on this replica.

        Returns:
          Means of the metrics since they were reset.
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

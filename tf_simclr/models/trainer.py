"""The base class of models that train an encoder on augmented images."""

import functools
import os
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr import distribute
from tf_simclr.augment import Augmentation, content_keys, example_keys, pixels
from tf_simclr.keras import check_is_ours, keras
from tf_simclr.metrics import classification
from tf_simclr.models.arguments import check_precision, check_small_images
from tf_simclr.models.inputs import checking_inputs
from tf_simclr.models.loading import check_weights_file
from tf_simclr.models.serialization import check_config, deserialize, serialize

# What else Keras compiles, and this package's models do without.
_UNUSED = ("loss_weights", "weighted_metrics")


class EncoderTrainer(keras.Model):
    """An encoder and its augmentation, with the first and the last part of a training step.

    A subclass writes `train_step`: it makes the views of a batch (`make_views`), computes the gradients of its
    objective, and hands them to `update`. Its `test_step` hands the values of a batch to `observe`. It has a
    `projection_head` and a `classifier`, which may be None.

    Attributes:
      is_pretrained: Whether an evaluation judges the encoder, frozen, rather than the model's classifier.
      uses_head: Whether anything reads the projection head.
      needs_labels: Whether a model with classes cannot do without labels.
      small_views: Makes more views of the same images, in a model that compares them.
      teacher_width: Numbers that its teacher gives for an image, if it has one.
    """

    small_views: Augmentation | None = None
    is_pretrained = True
    uses_head = False
    needs_labels = True
    teacher_width: int | None = None
    projection_head: keras.layers.Layer
    classifier: Any

    fit = checking_inputs(keras.Model.fit)
    predict = checking_inputs(keras.Model.predict, is_prediction=True)
    train_on_batch = checking_inputs(keras.Model.train_on_batch)
    test_on_batch = checking_inputs(keras.Model.test_on_batch)
    predict_on_batch = checking_inputs(keras.Model.predict_on_batch, is_prediction=True)
    _evaluate = checking_inputs(keras.Model.evaluate)

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

        Raises:
          ValueError: If the encoder is of another Keras.
        """
        check_is_ours("The encoder", encoder)
        super().__init__(**kwargs)
        self.encoder = encoder
        self.image_size = image_size
        self.augmentation = augmentation
        self.num_classes: int | None = None  # of the labels, in a model that classifies
        names = [*metrics, "learning_rate", "gradient_norm"]
        self._trackers = {name: keras.metrics.Mean(name=name) for name in names}
        # The metrics are already means over all replicas. Keras would sum them over the workers of a strategy.
        self.distribute_reduction_method = "first"
        self._can_be_made_again = False  # until `save` has tried

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, metrics: Any = None, **kwargs: Any) -> None:
        """Sets the optimizer, as in every Keras model; loss and metrics are the model's own.

        Raises:
          ValueError: If there are other losses or metrics, or the optimizer is of another Keras, legacy or for float16.
        """
        check_is_ours("The optimizer", optimizer)
        if isinstance(optimizer, keras.optimizers.legacy.Optimizer):
            raise ValueError(
                "The optimizer must be of keras.optimizers, not of keras.optimizers.legacy, whose optimizers cannot "
                "take gradients that are summed already. Received: "
                f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
            )
        others = {"loss": loss, "metrics": metrics} | {name: kwargs.get(name) for name in _UNUSED}
        if given := [name for name, value in others.items() if value]:
            raise ValueError(
                "The model computes its own loss and metrics: compile it with an optimizer alone, and choose the loss "
                f"when you make the model. Received: {', '.join(given)}"
            )
        check_precision(optimizer, self._flatten_layers())
        super().compile(optimizer=optimizer, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as the saved one was; Keras does not where `compile` is overridden."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)  # whose state is loaded next

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        sums = [variable for tracker in self._trackers.values() for variable in tracker.variables]
        before = [variable.numpy() for variable in sums]
        try:
            return self._evaluate(*args, **kwargs)
        finally:  # The means of the training go on where they were.
            for variable, value in zip(sums, before, strict=True):
                variable.assign(value)

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        # Here, because Keras adds lines to what `call` raises. Symbolic inputs have no values yet.
        if isinstance(images, np.ndarray | tf.Tensor):
            images = pixels.to_unit(tf.convert_to_tensor(images))
            pixels.check_range(images)
        elif not hasattr(images, "dtype"):
            raise ValueError(
                "Images must be an array or a tensor, uint8 or float in [0, 1], [B, H, W, 3]: join a list by np.stack. "
                f"Received: {type(images).__module__}.{type(images).__qualname__}"
            )
        return super().__call__(images, *args, **kwargs)

    @property
    def compares_labels(self) -> bool:
        """Whether the model needs labels, of however many classes, besides those that it classifies."""
        return False

    def check_spec(
        self, images: tf.TensorSpec, is_prediction: bool = False, small_images: tf.TensorSpec | None = None
    ) -> None:
        """Raises a `ValueError` unless `fit` and `evaluate`, or `predict`, take images of this shape and dtype."""
        (pixels.check_spec if is_prediction else self.augmentation.check_spec)(images)
        if not is_prediction and self.small_views is not None and images.shape.rank != 4:
            check_small_images(self.small_views, small_images)

    def load_weights(
        self, filepath: Any, skip_mismatch: bool = False, by_name: bool = False, options: Any = None
    ) -> Any:
        """Loads weights as every Keras model does, but all of them or none.

        Raises:
          ValueError: If the file has the weights of another model; `skip_mismatch` and `by_name` load what fits.
        """
        if not (skip_mismatch or by_name):
            check_weights_file(self, filepath)
        return super().load_weights(filepath, skip_mismatch=skip_mismatch, by_name=by_name, options=options)

    def symbolic_representation(self) -> tf.Tensor:
        """A symbolic output of the encoder, [None, F], on which the following layers are built.

        Building them creates all weights before the first step, so that a checkpoint can be restored.

        Raises:
          ValueError: If the encoder does not take images of `image_size` and views, or does not return [B, F].
        """
        augmentations = [self.augmentation, *([self.small_views] if self.small_views else [])]
        for size in {self.image_size, *(augmentation.image_size for augmentation in augmentations)}:
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

    def with_lasting_keys(self, batch: tf.Tensor | dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The same for evaluation: the keys of images alone follow from their pixels, not from step and position."""
        return batch if isinstance(batch, dict) else {"images": batch, "keys": content_keys(batch)}

    def make_views(self, batch: tf.Tensor | dict[str, tf.Tensor]) -> tf.Tensor:
        """The views that the next training step makes of a batch: float32 [V n, S, S, 3] in [0, 1], view after view."""
        batch = self.with_keys(batch)
        return self.augmentation(batch["images"], batch["keys"])

    def make_small_views(self, batch: tf.Tensor | dict[str, tf.Tensor]) -> tf.Tensor | None:
        """The small views of the same batch: float32 [W n, s, s, 3] in [0, 1], view after view; `None` without any."""
        if self.small_views is None:
            return None
        batch = self.with_keys(batch)
        is_cropped = len(batch["images"].shape) == 5
        return self.small_views(batch["small_images" if is_cropped else "images"], batch["keys"])

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

    @staticmethod
    def at_least_one(batch: Any) -> tuple[Any, tf.Tensor]:
        """This replica's part of a batch, with an example of zeros if it has none, and how many it really has.

        The last batch of an evaluation may have fewer images than there are replicas, and not all layers take none.
        """
        num_local = tf.shape(tf.nest.flatten(batch)[0])[0]
        if distribute.num_replicas() == 1:
            return batch, num_local

        def fill(tensor: tf.Tensor) -> tf.Tensor:
            return tf.concat(
                [tensor, tf.zeros([tf.maximum(1 - num_local, 0), *tensor.shape[1:]], tensor.dtype)], axis=0
            )

        return tf.nest.map_structure(fill, batch), num_local

    def gather_labels(self, labels: tf.Tensor | None, weights: tf.Tensor | None) -> list[tf.Tensor | None]:
        """The labels, int64 [N], and weights, float32 [N], of the batch of all replicas, where there are any."""
        labels = None if labels is None else classification.flat_labels(labels)
        weights = None if weights is None else tf.reshape(tf.cast(weights, tf.float32), [-1])
        return [None if part is None else distribute.gather(part) for part in (labels, weights)]

    def observe(self, observed: dict[str, tuple[tf.Tensor, tf.Tensor]]) -> dict[str, tf.Tensor]:
        """Ends a step of an evaluation, which changes nothing but the metrics.

        Args:
          observed: By the name of the metric, its mean over the batch of all replicas, and over how many examples.

        Returns:
          The mean of every one of these metrics over the examples since the metrics were reset.
        """
        for name, (value, count) in observed.items():
            self._trackers[name].update_state(value, sample_weight=count)
        return {name: self._trackers[name].result() for name in observed}

    def save(self, filepath: Any, overwrite: bool = True, save_format: str | None = None, **kwargs: Any) -> None:
        """Saves the model in the format .keras, as every Keras model does, if it can be loaded again.

        Raises:
          NotImplementedError: If a part of the model, such as a subclassed encoder, has no config.
          ValueError: If a part cannot be made again from its config, or the file is not of that format.
        """
        if save_format != "keras" and not (save_format is None and os.fspath(filepath).endswith(".keras")):
            raise ValueError(
                "A model is saved in a file whose name ends in .keras: the other formats of Keras lose how it trains, "
                f"and export_encoder makes a SavedModel to serve. Received: {filepath}"
            )
        if not self._can_be_made_again:
            check_config(self)
            self._can_be_made_again = True
        super().save(filepath, overwrite=overwrite, save_format=save_format, **kwargs)

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

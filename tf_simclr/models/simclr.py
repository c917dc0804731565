"""The Keras model whose `train_step` is SimCLR."""

from typing import Any

import tensorflow as tf

from tf_simclr import distribute, metrics
from tf_simclr.augment import Augmentation
from tf_simclr.keras import keras
from tf_simclr.losses import nt_xent_logits
from tf_simclr.models.heads import ProjectionHead


class SimCLR(keras.Model):
    """Contrastive pretraining of an encoder: two views of every image, encoder f, projection head g, NT-Xent.

    `fit` takes images, or (images, labels) whose labels serve the online classifier alone. Images are uint8, or
    float in [0, 1], [B, H, W, 3]; or [B, 2, S, S, 3], two crops of every image. Calling the model on images, float
    [B, S, S, 3] in [0, 1], returns their representations, float32 [B, F].

    Under a strategy, every replica must get the same number of images: batches of a multiple of the replicas.
    """

    def __init__(
        self,
        encoder: keras.Model,
        projection_head: keras.layers.Layer | None = None,
        *,
        image_size: int,
        temperature: float = 0.1,
        normalize: bool = True,
        objective_weight: float = 1.0,
        augmentation: Augmentation | None = None,
        online_classifier: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        """Makes the model.

        Args:
          encoder: Any Keras model from images, float [B, S, S, 3] in [0, 1], to representations [B, F].
          projection_head: Layer from representations to projections; by default `ProjectionHead()`.
          image_size: S, height and width of the views in pixels.
          temperature: Divides the similarities in the loss, > 0.
          normalize: Whether projections are scaled to unit length before they are compared.
          objective_weight: Factor of the contrastive loss in the gradient. The reference's loss is the sum over the
            two views, twice the paper's mean, which 2.0 reproduces.
          augmentation: How views are made; by default `Augmentation(image_size)`, the paper's for ImageNet.
          online_classifier: Layer from representations to class logits, trained on the side on labelled batches.
            Its gradient does not reach the encoder.
          **kwargs: Those of `keras.Model`.

        Raises:
          ValueError: If the temperature is not positive or the augmentation makes views of another size.
        """
        super().__init__(**kwargs)
        if temperature <= 0:
            raise ValueError(f"temperature must be positive. Received: {temperature}")
        self.encoder = encoder
        self.projection_head = ProjectionHead() if projection_head is None else projection_head
        self.online_classifier = online_classifier
        self.image_size = image_size
        self.temperature = temperature
        self.normalize = normalize
        self.objective_weight = objective_weight
        self.augmentation = Augmentation(image_size) if augmentation is None else augmentation
        if self.augmentation.image_size != image_size:
            raise ValueError(
                f"The augmentation must make views of image_size {image_size}. Received: {self.augmentation.image_size}"
            )
        self._build_parts()
        names = ["loss", "contrastive_top_1_accuracy", "contrastive_entropy", "learning_rate", "gradient_norm"]
        if online_classifier is not None:
            names += ["classifier_loss", "classifier_top_1_accuracy"]
        self._trackers = {name: keras.metrics.Mean(name=name) for name in names}

    def _build_parts(self) -> None:
        """Creates all weights now, so that a checkpoint can be restored before the first step."""
        representation = self.encoder(keras.Input([self.image_size, self.image_size, 3]))
        if representation.shape.rank != 2:
            raise ValueError(
                f"The encoder must map images to representations [B, F]. Received: shape {representation.shape}"
            )
        self.projection_head(representation)
        if self.online_classifier is not None:
            self.online_classifier(representation)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._trackers.values())

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.encoder(images, training=training)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update of SimCLR (algorithm 1 of the paper) on this replica's part of the batch."""
        images, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        views = self.make_views(images)
        with tf.GradientTape() as tape:
            # Both views in one pass: batch-norm statistics are those of all 2n views together.
            representations = self.encoder(views, training=True)
            projections = self.projection_head(representations, training=True)
            logits, targets = nt_xent_logits(
                projections,
                self.temperature,
                normalize=self.normalize,
                gather=distribute.gather,
                replica_id=distribute.replica_id(),
            )
            cross_entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
            contrastive_loss = tf.reduce_mean(cross_entropies)
            objective = self.objective_weight * contrastive_loss + sum(self.losses)
            observed = {
                "loss": contrastive_loss,
                "contrastive_top_1_accuracy": metrics.contrastive_accuracy(logits, targets),
                "contrastive_entropy": metrics.contrastive_entropy(logits),
            }
            if self.online_classifier is not None:
                classifier_loss, accuracy = _classify(self.online_classifier, representations, labels)
                objective += classifier_loss
                observed |= {"classifier_loss": classifier_loss, "classifier_top_1_accuracy": accuracy}
            # Gradients are summed over the replicas; the objective is the mean over them.
            objective /= distribute.num_replicas()
        gradients = distribute.sum_gradients(tape.gradient(objective, self.trainable_variables))
        observed["gradient_norm"] = tf.linalg.global_norm(gradients)
        self.optimizer.apply_gradients(
            zip(gradients, self.trainable_variables, strict=True), skip_gradients_aggregation=True
        )
        observed["learning_rate"] = self.optimizer.learning_rate
        for name, value in observed.items():
            self._trackers[name].update_state(value)
        return {name: tracker.result() for name, tracker in self._trackers.items()}

    def make_views(self, images: tf.Tensor) -> tf.Tensor:
        """The views that the next step makes of this replica's images: float32 [2n, S, S, 3], views a then b."""
        num_local = tf.shape(images)[0]
        return self.augmentation(
            images,
            self.optimizer.iterations,
            first_example=distribute.replica_id() * num_local,
            global_batch_size=distribute.num_replicas() * num_local,
        )


def _classify(
    classifier: keras.layers.Layer, representations: tf.Tensor, labels: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Loss and accuracy of the online classifier on both views; the encoder gets no gradient from it."""
    if labels is None:
        raise ValueError("The online classifier needs batches of (images, labels). Received: images alone")
    labels = tf.tile(tf.reshape(tf.cast(labels, tf.int64), [-1]), [2])
    logits = classifier(tf.stop_gradient(representations), training=True)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    hits = tf.equal(tf.argmax(logits, axis=-1, output_type=labels.dtype), labels)
    return tf.reduce_mean(losses), tf.reduce_mean(tf.cast(hits, tf.float32))

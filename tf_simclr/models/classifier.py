"""Training on labels: fine-tuning, linear evaluation by gradient descent, and the supervised baseline."""

from typing import Any

import tensorflow as tf

from tf_simclr import distribute
from tf_simclr.augment import Augmentation, crop_and_flip, pixels
from tf_simclr.augment.center import preprocess_for_eval
from tf_simclr.keras import check_is_ours, keras
from tf_simclr.metrics import classification
from tf_simclr.models.heads import ProjectionHead, check_layer, head_outputs
from tf_simclr.models.serialization import serialize
from tf_simclr.models.trainer import EncoderTrainer


def prepare_to_test(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """Images as the evaluation of a run prepares them, float32 [n, S, S, 3] in [0, 1], without augmentation."""
    pixels.check_range(images)
    if images.shape.rank == 5:
        return pixels.to_unit(images[:, 0])  # one view, which is cropped already
    return preprocess_for_eval(pixels.to_unit(images), image_size)


@keras.saving.register_keras_serializable("tf_simclr")
class Classifier(EncoderTrainer):
    """An encoder f, the first layers of a projection head g, and a linear classifier on them.

    `fit` takes (images, labels): images as `SimCLR` does (one crop of every image if they are cropped already),
    labels integers [B] in [0, C), or -1 where the class is not known; `class_weight` and `sample_weight` count as in
    Keras. `evaluate` takes the same, without augmentation. Calling the model on images, uint8 or float in [0, 1],
    [B, S, S, 3], returns class logits, float32 [B, C].

    Freeze layers before the first step, by `ResNet.freeze` or `trainable = False`. Frozen batch norm runs in inference
    mode.

    Source: SimCLR, appendix B.5 (which fine-tunes from h) and SimCLR v2, section 3 (from a layer of the head).
    """

    is_pretrained = False
    metric_names: tuple[str, ...] = ("loss", "top_1_accuracy")

    def __init__(
        self,
        encoder: keras.Model,
        classifier: keras.layers.Layer,
        *,
        image_size: int,
        projection_head: ProjectionHead | None = None,
        classifier_layer: int = 0,
        augmentation: Augmentation | None = None,
        **kwargs: Any,
    ):
        """Makes the model.

        Args:
          encoder: Any tf_keras model from images, float [B, S, S, 3] in [0, 1], to representations [B, F].
          classifier: Layer from what it reads to class logits [B, C].
          image_size: S, height and width of the images in pixels.
          projection_head: The head that the encoder was pretrained with; by default none. Layers after
            `classifier_layer` are frozen: nothing depends on them.
          classifier_layer: What the classifier reads: 0 the representation, i the i-th layer of the projection head,
            -1 the last one.
          augmentation: How the images are augmented, with one view; by default crop and flip, as in the paper.
          **kwargs: Arguments of `keras.Model`.

        Raises:
          ValueError: If the projection head has no such layer, or a part is of another Keras.
        """
        check_is_ours("A head", projection_head, classifier)
        if augmentation is None:
            augmentation = crop_and_flip(Augmentation(image_size))
        super().__init__(encoder, augmentation, image_size, list(self.metric_names), **kwargs)
        self.projection_head = ProjectionHead(0) if projection_head is None else projection_head
        self.classifier = classifier
        self.classifier_layer = classifier_layer
        self.uses_head = classifier_layer != 0
        representation = self.symbolic_representation()
        self.projection_head(representation)
        check_layer(self.projection_head, classifier_layer)
        self.num_classes = self.classify(representation).shape[-1]
        if classifier_layer >= 0:
            self.projection_head.freeze_from(classifier_layer)
        self.built = True  # all weights exist

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self._logits(pixels.to_unit(images), training)

    def _logits(self, images: tf.Tensor, training: bool | None) -> tf.Tensor:
        return self.classify(self.encoder(images, training=training), training)

    def classify(self, representations: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Class logits, float32 [B, C], of representations [B, F]."""
        hidden = head_outputs(self.projection_head, representations, training)
        return self.classifier(hidden[self.classifier_layer], training=training)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update on this replica's part of the batch."""
        batch, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        views = self.make_views(batch)
        with tf.GradientTape() as tape:
            logits = self._logits(views, training=True)
            loss, accuracy = classification.classification_loss(logits, labels, weights, distribute.total)
            # Gradients are summed over the replicas; the objective is the mean over them.
            objective = (loss + sum(self.losses)) / distribute.num_replicas()
        gradients = tape.gradient(objective, self.trainable_variables)
        return self.update(gradients, {"loss": loss, "top_1_accuracy": accuracy})

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Loss and accuracy on the images as the evaluation of a run prepares them, without augmentation."""
        batch, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        images, num_local = self.at_least_one(batch["images"] if isinstance(batch, dict) else batch)
        images = prepare_to_test(images, self.image_size)
        labels, weights = self.gather_labels(labels, weights)
        logits = distribute.gather(self._logits(images, training=False)[:num_local])
        loss, accuracy = classification.classification_loss(logits, labels, weights)
        num_known = classification.count_known(labels)
        return self.observe({"loss": (loss, num_known), "top_1_accuracy": (accuracy, num_known)})

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "classifier": serialize(self.classifier),
            "projection_head": serialize(self.projection_head),
            "classifier_layer": self.classifier_layer,
        }

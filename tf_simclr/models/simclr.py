"""The Keras model whose `train_step` is SimCLR."""

import dataclasses
import functools
from typing import Any

import tensorflow as tf

from tf_simclr import distribute, gradient_cache
from tf_simclr.augment import Augmentation, pixels
from tf_simclr.keras import check_is_ours, keras
from tf_simclr.losses import Loss, Pairs
from tf_simclr.metrics import classification
from tf_simclr.models.arguments import check_optimizer, check_small_views, choose_loss, choose_pairs
from tf_simclr.models.heads import ProjectionHead, check_layer, head_outputs
from tf_simclr.models.inputs import check_has_classes
from tf_simclr.models.serialization import serialize
from tf_simclr.models.trainer import EncoderTrainer


@keras.saving.register_keras_serializable("tf_simclr")
class SimCLR(EncoderTrainer):
    """Contrastive pretraining of an encoder f with a projection head g.

    A training step makes V views of every image, encodes and projects all of them in one pass, compares the
    projections with the loss, and updates encoder and head. `train_step` reads in this order. Small views, if there are
    any, are more views of the same images (multi-crop); they go through the encoder in a pass of their own.

    `fit` takes images, or (images, labels), where only the online classifier uses the labels, and a loss such as
    `losses.SupCon`. Images are uint8, or float in [0, 1], [B, H, W, 3]; or [B, V, S, S, 3], V crops of every image. In
    place of images it also takes {"images", "keys"}, with keys int64 [B, 2], (epoch, example), which determine the
    views; with crops of every image and small views also "small_images", [B, W, s, s, 3]. `evaluate` takes the same.
    Calling the model on images, uint8 or float in [0, 1], [B, S, S, 3], returns their representations, float32 [B, F].
    A label of -1 says that the class is not known. `class_weight` and `sample_weight` are the online classifier's.

    Under a strategy, the batch size must be a multiple of the number of replicas, so that every replica gets the same
    number of images.

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (2020), algorithm 1.
    Small views: Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments" (2020).
    """

    uses_head = True

    def __init__(
        self,
        encoder: keras.Model,
        projection_head: keras.layers.Layer | None = None,
        *,
        image_size: int,
        loss: Loss | None = None,
        temperature: float | None = None,
        objective_weight: float = 1.0,
        augmentation: Augmentation | None = None,
        small_views: Augmentation | None = None,
        small_view_pairs: str = "large",
        online_classifier: keras.layers.Layer | None = None,
        classifier_layer: int = 0,
        microbatch_size: int = 0,
        **kwargs: Any,
    ):
        """Makes the model.

        Args:
          encoder: Any tf_keras model from images, float [B, S, S, 3] in [0, 1], to representations [B, F].
          projection_head: Layer from representations to projections; by default `ProjectionHead()`.
          image_size: S, height and width in pixels of the images that the encoder is evaluated and exported with. Views
            may have another size, if the encoder takes both: see `augmentation`.
          loss: Compares the projections, see `losses.Loss`; by default `NTXent()`.
          temperature: Short for `loss=NTXent(temperature)`.
          objective_weight: Factor of the loss in the gradient. The reference's loss is the sum over the two views,
            twice the paper's mean, which 2.0 reproduces.
          augmentation: How views are made; by default `Augmentation(image_size)`, the paper's for ImageNet.
          small_views: How W more views of every image are made, of another size: smaller ones, of smaller crops. Its
            `first_view` must be beyond the views of `augmentation`; `augment.FIRST_SMALL_VIEW` is.
          small_view_pairs: What small views are compared with: "large", only the views of `augmentation`, for which
            they are no candidates themselves, or "all", every other view.
          online_classifier: Layer from representations to class logits, trained on the side on labelled batches.
            Its gradient does not reach the encoder.
          classifier_layer: What the online classifier reads: 0 the representation, i the i-th layer of a
            `ProjectionHead`, -1 the projections.
          microbatch_size: Images that the encoder takes at a time on each replica. The gradient is still that of the
            whole batch, and the memory about that of the micro-batch; 0 takes the whole batch at once. See
            `gradient_cache.compute_gradients` for what happens to batch norm.
          **kwargs: Arguments of `keras.Model`.

        Raises:
          ValueError: If both a loss and a temperature are given, the temperature is not positive, the augmentation
            makes fewer than two views, the small ones have random numbers of the others, the encoder does not take
            images of all sizes or does not return [B, F], the projection head has no such layer, or a layer cannot be
            called in micro-batches.
        """
        if microbatch_size < 0:
            raise ValueError(f"microbatch_size must be positive, or 0 for none. Received: {microbatch_size}")
        check_is_ours("A head", projection_head, online_classifier)
        view_loss = choose_loss(loss, temperature)
        names = ["loss", *view_loss.metric_names]
        if online_classifier is not None:
            names += ["classifier_loss", "classifier_top_1_accuracy"]
        super().__init__(encoder, augmentation or Augmentation(image_size), image_size, names, **kwargs)
        self.small_views = check_small_views(small_views, small_view_pairs, self.augmentation)
        self.small_view_pairs = small_view_pairs
        self.pairs = choose_pairs(self.augmentation, self.small_views, small_view_pairs)
        self.projection_head = ProjectionHead() if projection_head is None else projection_head
        self.online_classifier = online_classifier
        self.classifier_layer = classifier_layer
        self.view_loss = view_loss  # `loss` is what Keras compiled
        self.objective_weight = objective_weight
        self.microbatch_size = microbatch_size
        self._build_layers()
        if microbatch_size:
            gradient_cache.check_layers([encoder, self.projection_head], distribute.num_replicas())

    def _build_layers(self) -> None:
        """Creates all weights, and with them the shapes of what `encode_views` returns."""
        representation = self.symbolic_representation()
        self.projection_head(representation)
        if self.online_classifier is not None:
            check_layer(self.projection_head, self.classifier_layer)
            self.num_classes = self.classify(representation).shape[-1]
        outputs = self._select(head_outputs(self.projection_head, representation))
        self._output_specs = [tf.TensorSpec(output.shape, output.dtype) for output in outputs]
        self.built = True

    @property
    def compares_labels(self) -> bool:
        return getattr(self.view_loss, "uses_labels", False)

    @property
    def classifier(self) -> keras.layers.Layer | None:
        """The online classifier, under its name in a `Classifier`."""
        return self.online_classifier

    @property
    def num_views(self) -> int:
        """V, the views of an image, the small ones among them."""
        return self.augmentation.num_views + (self.small_views.num_views if self.small_views else 0)

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, metrics: Any = None, **kwargs: Any) -> None:
        """As in `EncoderTrainer`; an optimizer that accumulates gradients over steps is a `ValueError`, too."""
        check_optimizer(optimizer)
        super().compile(optimizer, loss, metrics, **kwargs)

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.encoder(pixels.to_unit(images), training=training)

    def classify(self, representations: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Class logits of the online classifier, float32 [B, C], of representations [B, F]."""
        if self.online_classifier is None:
            raise ValueError("The model must have an online classifier. Received: None")
        hidden = head_outputs(self.projection_head, representations, training)
        return self.online_classifier(hidden[self.classifier_layer], training=training)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update on this replica's part of the batch: encode the views, compare them, update the weights."""
        batch, labels, weights = self._unpack(data)
        batch = self.with_keys(batch)
        if self.microbatch_size:
            gradients, observed = gradient_cache.compute_gradients(
                self.encode_views,
                lambda outputs: self.compare_views(outputs, labels, weights),
                batch,
                self.trainable_variables,
                states=self.moving_averages(),
                output_specs=self._output_specs,
                microbatch_size=self.microbatch_size,
            )
        else:
            with tf.GradientTape() as tape:
                objective, observed = self.compare_views(self.encode_views(batch), labels, weights)
            gradients = tape.gradient(objective, self.trainable_variables)
        return self.update(gradients, observed)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Loss and accuracies on views that follow from the images, with the encoder in inference mode."""
        batch, labels, weights = self._unpack(data)
        batch, num_local = self.at_least_one(self.with_lasting_keys(batch))
        # Replicas may have different numbers of images: each of them compares the views of all.
        pairs = self.pairs
        everywhere = Pairs(self.num_views, distribute.gather)
        outputs = [output[: pairs.num_views * num_local] for output in self._encode_to_test(batch)]
        outputs = [everywhere.of_all_replicas(output) for output in outputs]
        labels, weights = self.gather_labels(labels, weights)
        if self.compares_labels:
            pairs = dataclasses.replace(pairs, labels=labels)
        observed = self._observe(outputs, pairs, labels, weights, training=False)
        num_images = tf.shape(outputs[0])[0] // pairs.num_views
        counts = {name: num_images for name in observed}
        if self.online_classifier is not None:
            num_known = classification.count_known(labels)
            counts |= {"classifier_loss": num_known, "classifier_top_1_accuracy": num_known}
        return self.observe({name: (value, counts[name]) for name, value in observed.items()})

    def _unpack(self, data: Any) -> tuple[Any, tf.Tensor | None, tf.Tensor | None]:
        """Images of a batch, and labels and weights if something uses them."""
        batch, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        if weights is not None:
            check_has_classes(self.num_classes)
        return batch, labels if self.compares_labels or self.online_classifier is not None else None, weights

    def encode_views(self, batch: dict[str, tf.Tensor], training: bool = True) -> list[tf.Tensor]:
        """Encodes the views of a batch for `compare_views`.

        All views of one size go through the encoder in one pass, so batch-norm statistics cover all of them together.
        The head takes the representations of all views in one pass.

        Returns:
          The projections [V n, D], view after view, the small ones last; with an online classifier also its input,
          [V n, F], which stops the gradient.
        """
        representations = self.encoder(self.make_views(batch), training=training)
        if self.small_views is not None:
            small = self.encoder(self.make_small_views(batch), training=training)
            representations = tf.concat([representations, small], axis=0)
        return self._select(head_outputs(self.projection_head, representations, training=training))

    def _encode_to_test(self, batch: dict[str, tf.Tensor]) -> list[tf.Tensor]:
        """What `encode_views` returns in inference mode."""
        encode = functools.partial(self.encode_views, training=False)
        if not self.microbatch_size:
            return encode(batch)
        return gradient_cache.encode_all(
            encode, batch, output_specs=self._output_specs, microbatch_size=self.microbatch_size
        )

    def _select(self, hidden: list[tf.Tensor]) -> list[tf.Tensor]:
        """Picks what `encode_views` returns from the outputs of all layers of the head."""
        if self.online_classifier is None:
            return hidden[-1:]
        return [hidden[-1], tf.stop_gradient(hidden[self.classifier_layer])]

    def compare_views(
        self, outputs: list[tf.Tensor], labels: tf.Tensor | None, weights: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Computes the objective and the metrics from the outputs of `encode_views`.

        Returns:
          objective: This replica's share, whose gradients are summed over the replicas: the weighted loss, penalties
            and the loss of the online classifier, divided by the number of replicas.
          observed: The value of every metric on this replica, not divided.
        """
        observed = self._observe(outputs, self.pairs_to_train(labels), labels, weights, training=True)
        objective = self.objective_weight * observed["loss"] + sum(self.losses)
        if self.online_classifier is not None:
            objective += observed["classifier_loss"]
        return objective / distribute.num_replicas(), observed

    def pairs_to_train(self, labels: tf.Tensor | None) -> Pairs:
        """What the loss compares in a training step of this replica, whose images have these labels."""
        pairs = dataclasses.replace(self.pairs, gather=distribute.gather, replica_id=distribute.replica_id())
        return dataclasses.replace(pairs, labels=classification.flat_labels(labels)) if self.compares_labels else pairs

    def _observe(
        self,
        outputs: list[tf.Tensor],
        pairs: Pairs,
        labels: tf.Tensor | None,
        weights: tf.Tensor | None,
        training: bool,
    ) -> dict[str, tf.Tensor]:
        """The value of every metric; in training, the mean over the replicas is that of the whole batch."""
        loss, metrics = self.view_loss(outputs[0], pairs)
        observed = {"loss": loss, **metrics}
        if self.online_classifier is not None:
            logits = self.online_classifier(outputs[1], training=training)
            total = [distribute.total] if training else []
            classifier_loss, accuracy = classification.classification_loss(logits, labels, weights, *total)
            observed |= {"classifier_loss": classifier_loss, "classifier_top_1_accuracy": accuracy}
        return observed

    def collapse_value(self, global_batch_size: int) -> float | None:
        """The loss when all projections are equal, or `None` if the loss has no such value.

        That of the large views' anchors, where small views are no candidates: theirs have at most one candidate more.
        """
        return self.view_loss.collapse_value(self.pairs.num_candidate_views, global_batch_size)

    def moving_averages(self) -> list[tf.Variable]:
        """The variables that a training pass through encoder and head updates: the moving averages of batch norm."""
        variables = [*self.encoder.variables, *self.projection_head.variables]
        return [variable for variable in variables if variable.dtype.is_floating and not variable.trainable]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "projection_head": serialize(self.projection_head),
            "loss": serialize(self.view_loss),
            "objective_weight": self.objective_weight,
            "small_views": serialize(self.small_views),
            "small_view_pairs": self.small_view_pairs,
            "online_classifier": serialize(self.online_classifier),
            "classifier_layer": self.classifier_layer,
            "microbatch_size": self.microbatch_size,
        }

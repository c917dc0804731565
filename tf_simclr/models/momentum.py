"""SimCLR with negatives of earlier steps: the momentum encoder and the memory of SimCLR v2."""

import dataclasses
from typing import Any

import tensorflow as tf

from tf_simclr import distribute, gradient_cache
from tf_simclr.keras import keras
from tf_simclr.losses import Pairs
from tf_simclr.models.simclr import SimCLR


@keras.saving.register_keras_serializable("tf_simclr")
class MomentumSimCLR(SimCLR):
    """SimCLR in which every anchor has the projections of earlier images as further negatives.

    A moving average follows the weights of encoder and head. After every step, it encodes the first view of each image
    of the batch, and the projections enter a queue, the memory, in place of the oldest ones. Anchors and the candidates
    of the batch stay the projections of the encoder itself. Evaluation, export and `evaluate` do without both.

    The queue starts with random unit vectors, as a queue that is used as far as it is filled would change its shape
    with every step, for which XLA compiles anew. They are gone after memory_size images.

    The moving average encodes in training mode: the statistics of batch norm are those of its own batch of first views,
    as the candidates of the batch have those of theirs. In inference mode, the moving statistics would lag behind the
    weights, and the negatives of the queue would differ from the others in scale. Its own moving statistics still
    follow those of the encoder, as its weights do. In either mode, an anchor shares its batch's statistics with its
    positive but not with the queue, so the queue's negatives are the easier ones; many images per statistic make that
    difference small.

    Source: Chen et al., "Big Self-Supervised Models are Strong Semi-Supervised Learners" (2020), section 2 and appendix
    D, after He et al., "Momentum Contrast for Unsupervised Visual Representation Learning" (2019). The paper does not
    say how the queue and the batch go together.
    """

    def __init__(
        self,
        encoder: keras.Model,
        projection_head: keras.layers.Layer | None = None,
        *,
        image_size: int,
        memory_size: int,
        memory_momentum: float = 0.999,
        **kwargs: Any,
    ):
        """Makes the model.

        Args:
          encoder: As in `SimCLR`.
          projection_head: As in `SimCLR`.
          image_size: As in `SimCLR`.
          memory_size: M >= 1, the projections in the queue. If it holds most of the data set's images, it holds many
            images of the next batch, whose earlier projections are then false negatives.
          memory_momentum: Share of the moving average that a step keeps, in [0, 1].
          **kwargs: The other arguments of `SimCLR`.

        Raises:
          ValueError: If a value is out of its range, the loss compares images by their classes, which the queue does
            not know, or `SimCLR` refuses an argument.
        """
        if memory_size < 1:
            raise ValueError(f"memory_size must be at least 1. Received: {memory_size}")
        if not 0 <= memory_momentum <= 1:
            raise ValueError(f"memory_momentum must be between 0 and 1. Received: {memory_momentum}")
        super().__init__(encoder, projection_head, image_size=image_size, **kwargs)
        if self.compares_labels:
            raise ValueError(
                "With memory_size, the loss must not compare images by their classes, which are not known in the "
                f"memory: choose another loss, or no memory. Received: {type(self.view_loss).__name__}"
            )
        self.memory_size = memory_size
        self.memory_momentum = memory_momentum
        # Weights files and `runs.weights` know both by these names.
        self.momentum_weights = [_copy_of(variable) for variable in self.followed]
        projections = self._output_specs[0]
        rows = keras.initializers.RandomNormal()([memory_size, projections.shape[-1]], projections.dtype)
        self.memory = tf.Variable(tf.math.l2_normalize(rows, axis=-1), trainable=False, name="memory/queue")

    @property
    def followed(self) -> list[tf.Variable]:
        """The weights and moving statistics of encoder and head, in the order of `momentum_weights`."""
        variables = [*self.encoder.variables, *self.projection_head.variables]
        return [variable for variable in variables if variable.dtype.is_floating]

    def follow_anew(self) -> None:
        """Sets the moving average to the present weights; call it outside of a replica's computation."""
        for average, variable in zip(self.momentum_weights, self.followed, strict=True):
            average.assign(variable.read_value())

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """A step of SimCLR, then one of the moving average and of the queue."""
        batch, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        batch = self.with_keys(batch)
        metrics = super().train_step((batch, labels, weights))
        for average, variable in zip(self.momentum_weights, self.followed, strict=True):
            average.assign(self.memory_momentum * average + (1 - self.memory_momentum) * variable)
        rows = distribute.gather(self._encode_by_average(batch))
        self.memory.assign(tf.concat([self.memory, rows], axis=0)[-self.memory_size :])
        return metrics

    def pairs_to_train(self, labels: tf.Tensor | None) -> Pairs:
        return dataclasses.replace(super().pairs_to_train(labels), memory=self.memory.read_value())

    def _encode_by_average(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """The projections [n, D] of the first views of this replica's images by the moving average.

        Encoder and head borrow its weights, so that it needs no second network. It leaves no trace in them.
        """
        followed = self.followed
        own = [variable.read_value() for variable in followed]
        for variable, average in zip(followed, self.momentum_weights, strict=True):
            variable.assign(average.read_value())
        if self.microbatch_size:
            (rows,) = gradient_cache.encode_all(
                self._encode_first_views,
                batch,
                output_specs=self._output_specs[:1],
                microbatch_size=self.microbatch_size,
            )
        else:
            (rows,) = self._encode_first_views(batch)
        for variable, value in zip(followed, own, strict=True):
            variable.assign(value)
        return rows

    def _encode_first_views(self, batch: dict[str, tf.Tensor]) -> list[tf.Tensor]:
        """The projections [n, D] of the first views of some images, alone in a list."""
        first = dataclasses.replace(self.augmentation, branches=self.augmentation.branches[:1])
        images = batch["images"]
        views = first(images[:, :1] if images.shape.rank == 5 else images, batch["keys"])
        return [self.projection_head(self.encoder(views, training=True), training=True)]

    def collapse_value(self, global_batch_size: int) -> float | None:
        # It would depend on how far the queue has collapsed.
        return None

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"memory_size": self.memory_size, "memory_momentum": self.memory_momentum}


def _copy_of(variable: tf.Variable) -> tf.Variable:
    """A variable of the same value that is no parameter, and as much shared by the replicas."""
    return tf.Variable(
        variable.read_value,
        trainable=False,
        name=f"ema_model/{variable.name.removesuffix(':0')}",
        synchronization=variable.synchronization,
        aggregation=variable.aggregation,
    )

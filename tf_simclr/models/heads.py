"""The layers on top of the encoder during training: the projection head g and the linear classifier."""

from typing import Any

import tensorflow as tf

from tf_simclr.keras import keras
from tf_simclr.models.layers import BatchNormalization


@keras.saving.register_keras_serializable("tf_simclr")
class ProjectionHead(keras.layers.Layer):
    """Multi-layer perceptron from representations h [B, F] to projections z [B, D], float32.

    Every layer is a dense layer without bias, then batch norm; all but the last have the hidden width and end in a
    ReLU, and the last one's batch norm has no offset. One layer is the linear head of the paper, zero layers are the
    identity.

    Source: SimCLR, section 4.2; SimCLR v2, section 3 (three layers); normalised as in the reference.
    """

    def __init__(
        self,
        num_layers: int = 3,
        output_dim: int = 128,
        *,
        hidden_dim: int | None = None,
        synchronized: bool = False,
        batch_norm_momentum: float = 0.9,
        l2: float = 0.0,
        frozen_from: int | None = None,
        **kwargs: Any,
    ):
        """Makes the head.

        Args:
          num_layers: 0 (identity), 1 (linear), 2 (SimCLR), 3 (SimCLR v2 and the reference's default) or more.
          output_dim: D, the width of the last layer.
          hidden_dim: The width of the layers before it; by default F, that of the representations.
          synchronized: Whether batch-norm statistics cover the batches of all replicas together.
          batch_norm_momentum: Share of the moving averages that a step keeps.
          l2: Coefficient of an L2 penalty, l2 / 2 * |w|^2, on every kernel. Keras adds it to the loss.
          frozen_from: The first frozen layer, counted from 0, see `freeze_from`; `None` if all layers learn.
          **kwargs: Arguments of `keras.layers.Layer`. The head computes in float32 unless `dtype` says otherwise:
            it is small, and the loss divides its output by a small temperature.

        Raises:
          ValueError: If a size is out of range.
        """
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        if num_layers < 0:
            raise ValueError(f"num_layers must not be negative. Received: {num_layers}")
        if output_dim < 1:
            raise ValueError(f"output_dim must be positive. Received: {output_dim}")
        if hidden_dim is not None and hidden_dim < 1:
            raise ValueError(f"hidden_dim must be positive, or None. Received: {hidden_dim}")
        self.num_layers = num_layers
        self.output_dim = output_dim
        self.hidden_dim = hidden_dim
        self.synchronized = synchronized
        self.batch_norm_momentum = batch_norm_momentum
        self.l2 = l2
        self.frozen_from = frozen_from

    def build(self, input_shape: Any) -> None:
        width = self.hidden_dim or int(input_shape[-1])
        self._layers_in_order: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []
        for index in range(self.num_layers):
            is_last = index == self.num_layers - 1
            dense = keras.layers.Dense(
                self.output_dim if is_last else width,
                use_bias=False,
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
                kernel_regularizer=keras.regularizers.L2(self.l2 / 2) if self.l2 else None,
                dtype=self.dtype_policy,
            )
            batch_norm = BatchNormalization(
                momentum=self.batch_norm_momentum,
                epsilon=1e-5,
                center=not is_last,
                synchronized=self.synchronized,
                dtype=self.dtype_policy,
            )
            self._layers_in_order.append((dense, batch_norm))
        if self.frozen_from is not None:
            self.freeze_from(self.frozen_from)
        if not self.trainable:  # Nor are the layers, which are new.
            self._freeze_layers(0)
        super().build(input_shape)

    def call(self, representations: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.hidden_outputs(representations, training)[-1]

    def hidden_outputs(self, representations: tf.Tensor, training: bool | None = None) -> list[tf.Tensor]:
        """The representations, then the output of every layer; the last one is the projections."""
        outputs = [representations]
        for index, (dense, batch_norm) in enumerate(self._layers_in_order):
            output = batch_norm(dense(outputs[-1]), training=training)
            outputs.append(tf.nn.relu(output) if index < self.num_layers - 1 else output)
        return outputs

    @property
    def kernels(self) -> list[tf.Variable]:
        """The kernels of the dense layers, in order."""
        return [dense.kernel for dense, _ in self._layers_in_order]

    def freeze_from(self, first_layer: int) -> None:
        """Freezes the layers from `first_layer` on, counted from 0. Their batch norm then runs in inference mode."""
        self.frozen_from = first_layer if self.frozen_from is None else min(first_layer, self.frozen_from)
        self._freeze_layers(first_layer)

    def _freeze_layers(self, first_layer: int) -> None:
        for layer in sum(self._layers_in_order[first_layer:], ()):
            layer.trainable = False

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            num_layers=self.num_layers,
            output_dim=self.output_dim,
            hidden_dim=self.hidden_dim,
            synchronized=self.synchronized,
            batch_norm_momentum=self.batch_norm_momentum,
            l2=self.l2,
            frozen_from=self.frozen_from,
        )
        return config

    def save_own_variables(self, store: dict[str, Any]) -> None:
        # Keras does not look for layers in a list of pairs.
        store.update({str(index): weight.numpy() for index, weight in enumerate(self._weights_in_order())})

    def load_own_variables(self, store: dict[str, Any]) -> None:
        for index, weight in enumerate(self._weights_in_order()):
            weight.assign(store[str(index)])

    def _weights_in_order(self) -> list[tf.Variable]:
        """All weights, in the order of `weights` while no layer is frozen."""
        layers = sum(self._layers_in_order, ())
        kinds = [layer._trainable_weights for layer in layers] + [layer._non_trainable_weights for layer in layers]
        return sum(kinds, [])


def head_outputs(head: keras.layers.Layer, representations: tf.Tensor, training: bool | None = None) -> list[tf.Tensor]:
    """The representations [B, F], then the output of a projection head: of each layer if it is a `ProjectionHead`."""
    if isinstance(head, ProjectionHead):
        return head.hidden_outputs(representations, training)
    return [representations, head(representations, training=training)]


def num_layers(head: keras.layers.Layer) -> int:
    """How many outputs `head_outputs` returns besides the representations."""
    return head.num_layers if isinstance(head, ProjectionHead) else 1


def check_layer(head: keras.layers.Layer, layer: int) -> None:
    """Raises a `ValueError` unless `layer` is the number of one of `head_outputs`, or -1."""
    last = num_layers(head)
    if not -1 <= layer <= last:
        raise ValueError(
            f"classifier_layer must be between -1 and {last}, the number of layers of the head. Received: {layer}"
        )


def linear_classifier(
    num_classes: int, *, l2: float = 0.0, bias_l2: float = 0.0, zero_init: bool = False
) -> keras.layers.Dense:
    """Dense layer from representations [B, F] to class logits, float32 [B, num_classes].

    The initial values are the reference's.

    Args:
      num_classes: Number of classes, > 0.
      l2: Coefficient of an L2 penalty, l2 / 2 * |w|^2, on the kernel. Keras adds it to the loss.
      bias_l2: The same for the bias.
      zero_init: Whether the kernel starts as zero.
    """
    return keras.layers.Dense(
        num_classes,
        kernel_initializer="zeros" if zero_init else keras.initializers.RandomNormal(stddev=0.01),
        kernel_regularizer=keras.regularizers.L2(l2 / 2) if l2 else None,
        bias_regularizer=keras.regularizers.L2(bias_l2 / 2) if bias_l2 else None,
        dtype="float32",
        name="linear_classifier",
    )

"""The layers of a ResNet."""

from typing import Any

import tensorflow as tf

from tf_simclr.keras import keras
from tf_simclr.models.convolution import Conv2D


@keras.saving.register_keras_serializable("tf_simclr")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch norm, with the variance of the batch in its moving average, without Bessel's correction.

    Keras' fused kernel, which it uses for images on one replica, multiplies the variance by n / (n - 1) before it
    enters the moving average; its synchronised batch norm does not, nor does the reference. The difference matters
    where n, the batch size times the pixels, is small.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._bessels_correction_test_only = False


@keras.saving.register_keras_serializable("tf_simclr")
class TwoStreams(keras.layers.Layer):
    """Splits the channels [..., 2 C] into two streams [..., C]; `softmax` applies one over the two, in float32."""

    def __init__(self, softmax: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.softmax = softmax

    def call(self, inputs: tf.Tensor) -> list[tf.Tensor]:
        streams = tf.split(inputs, 2, axis=-1)
        if self.softmax:
            share = tf.sigmoid(tf.cast(streams[0], tf.float32) - tf.cast(streams[1], tf.float32))
            streams = [tf.cast(weights, inputs.dtype) for weights in (share, 1.0 - share)]
        return streams

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"softmax": self.softmax}


class LayerFactory:
    """Makes the layers of one network, with its settings."""

    def __init__(
        self,
        synchronized: bool,
        batch_norm_momentum: float,
        l2: float,
        dtype: Any,
        sk_ratio: float | None,
        se_ratio: float | None,
    ):
        self._synchronized = synchronized
        self._momentum = batch_norm_momentum
        self._regularizer = keras.regularizers.L2(l2 / 2) if l2 else None
        self._dtype = dtype
        self.sk_ratio = sk_ratio or 0.0
        self.se_ratio = se_ratio or 0.0

    def convolution(
        self, inputs: tf.Tensor, filters: int, kernel_size: int, stride: int = 1, *, use_bias: bool = False
    ) -> tf.Tensor:
        if stride > 1 and kernel_size > 1:
            inputs = self.pad(inputs, kernel_size)
        return Conv2D(
            filters,
            kernel_size,
            strides=stride,
            padding="same" if stride == 1 else "valid",
            use_bias=use_bias,
            kernel_initializer=keras.initializers.VarianceScaling(),
            kernel_regularizer=self._regularizer,
            bias_regularizer=self._regularizer,
            dtype=self._dtype,
        )(inputs)

    def pad(self, inputs: tf.Tensor, kernel_size: int) -> tf.Tensor:
        """Pads with the zeros that a strided kernel needs, independent of the image size."""
        before = (kernel_size - 1) // 2
        after = kernel_size - 1 - before
        return keras.layers.ZeroPadding2D([(before, after), (before, after)], dtype=self._dtype)(inputs)

    def batch_norm(self, inputs: tf.Tensor, *, relu: bool = True, zero_scale: bool = False) -> tf.Tensor:
        outputs = BatchNormalization(
            momentum=self._momentum,
            epsilon=1e-5,
            gamma_initializer="zeros" if zero_scale else "ones",
            synchronized=self._synchronized,
            dtype=self._dtype,
        )(inputs)
        return self.relu(outputs) if relu else outputs

    def relu(self, inputs: tf.Tensor) -> tf.Tensor:
        return keras.layers.ReLU(dtype=self._dtype)(inputs)

    def average_pool(self, inputs: tf.Tensor, stride: int) -> tf.Tensor:
        padding = "same" if stride == 1 else "valid"
        return keras.layers.AveragePooling2D(2, strides=stride, padding=padding, dtype=self._dtype)(inputs)

    def max_pool(self, inputs: tf.Tensor) -> tf.Tensor:
        return keras.layers.MaxPooling2D(3, strides=2, padding="same", dtype=self._dtype)(inputs)

    def mean(self, inputs: tf.Tensor) -> tf.Tensor:
        return keras.layers.GlobalAveragePooling2D(keepdims=True, dtype=self._dtype)(inputs)

    def sigmoid(self, inputs: tf.Tensor) -> tf.Tensor:
        return keras.layers.Activation("sigmoid", dtype=self._dtype)(inputs)

    def add(self, *inputs: tf.Tensor) -> tf.Tensor:
        return keras.layers.Add(dtype=self._dtype)(inputs)

    def multiply(self, *inputs: tf.Tensor) -> tf.Tensor:
        return keras.layers.Multiply(dtype=self._dtype)(inputs)

    def split_streams(self, inputs: tf.Tensor) -> list[tf.Tensor]:
        return TwoStreams(dtype=self._dtype)(inputs)

    def softmax_over_streams(self, inputs: tf.Tensor) -> list[tf.Tensor]:
        return TwoStreams(softmax=True, dtype=self._dtype)(inputs)

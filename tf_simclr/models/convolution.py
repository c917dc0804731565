"""The convolution of the ResNets: Keras' layer, with a faster gradient of its kernel on CPUs."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_simclr import devices
from tf_simclr.keras import keras

# Up to this many pixels of the output, and from this many channels on, matrix products are the faster way.
MAX_PIXELS, MIN_CHANNELS = 64, 64


@keras.saving.register_keras_serializable("tf_simclr")
class Conv2D(keras.layers.Conv2D):
    """Keras' convolution, which on CPUs trains faster in bfloat16 where its images are small.

    Where the output has few pixels, oneDNN takes longer for the gradient of the kernel in bfloat16 than for all else
    together: up to nine times as long as for the output, on processors with AMX. One matrix product for each place of
    the kernel is up to four times as fast there, and the same to rounding. The images' gradient, the output, and all
    other cases are left to TensorFlow (docs/performance.md).
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training or not self._pays(inputs):
            return super().call(inputs)
        outputs = convolve(inputs, tf.convert_to_tensor(self.kernel), self.strides[0], self.padding.upper())
        return tf.nn.bias_add(outputs, self.bias) if self.use_bias else outputs

    def _pays(self, inputs: tf.Tensor) -> bool:
        height, width = self.compute_output_shape(inputs.shape)[1:3]
        return (
            inputs.dtype == tf.bfloat16
            and inputs.shape[-1] >= MIN_CHANNELS
            and None not in (height, width)
            and height * width <= MAX_PIXELS
            and not devices.on_accelerator()
        )


def convolve(images: tf.Tensor, kernel: tf.Tensor, stride: int, padding: str) -> tf.Tensor:
    """`tf.nn.conv2d` whose gradient with respect to the kernel is a sum of matrix products.

    Args:
      images: Float tensor [B, H, W, C] with known H, W and C.
      kernel: Tensor [k, k, C, F] of the same dtype.
      stride: In both directions.
      padding: "VALID", or, with stride 1 and an odd k, "SAME".

    Returns:
      Tensor [B, h, w, F] of the same dtype.
    """

    @tf.custom_gradient
    def forward(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        def gradient(slopes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            of_images = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(images),
                filter=kernel,
                out_backprop=slopes,
                strides=[1, stride, stride, 1],
                padding=padding,
            )
            margin = kernel.shape[0] // 2 if padding == "SAME" else 0
            return of_images, kernel_gradient(images, slopes, kernel.shape[0], stride, margin)

        return tf.nn.conv2d(images, kernel, stride, padding), gradient

    return forward(images, kernel)


def kernel_gradient(images: tf.Tensor, slopes: tf.Tensor, size: int, stride: int, margin: int) -> tf.Tensor:
    """The gradient of the kernel, [k, k, C, F], from the images [B, H, W, C] and that of the output, [B, h, w, F].

    Args:
      images: Float tensor.
      slopes: Tensor of the same dtype.
      size: k.
      stride: In both directions.
      margin: How many rows and columns of zeros the convolution adds on each side.
    """
    height, width, channels = images.shape[1:]
    after = [margin + -(side + 2 * margin) % stride for side in (height, width)]
    images = tf.pad(images, [[0, 0], [margin, after[0]], [margin, after[1]], [0, 0]])
    height, width = images.shape[1:3]
    # What a place of the kernel sees is then a block without gaps, which is faster to cut out.
    blocks = tf.reshape(images, [-1, height // stride, stride, width // stride, stride * channels])
    h, w, filters = slopes.shape[1:]
    slopes = tf.reshape(slopes, [-1, filters])
    products = []
    for row in range(size):
        for column in range(size):
            (top, i), (left, j) = divmod(row, stride), divmod(column, stride)
            seen = blocks[:, top : top + h, i, left : left + w, j * channels : (j + 1) * channels]
            products.append(tf.matmul(tf.reshape(seen, [-1, channels]), slopes, transpose_a=True))
    return tf.reshape(tf.stack(products), [size, size, channels, filters])

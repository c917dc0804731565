"""The convolution of the ResNets: Keras' layer, which trains faster on CPUs where its images are small."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_simclr import devices
from tf_simclr.activation_memory import TEMPORARY
from tf_simclr.keras import keras

# Where matrix products are the faster way: from this many channels of the input on; up to this many pixels of the
# output for the gradient of the kernel in bfloat16; and up to this many for everything in any precision.
MIN_CHANNELS = 64
MAX_PIXELS = 64
FEW_PIXELS = 16


@keras.saving.register_keras_serializable("tf_simclr")
class Conv2D(keras.layers.Conv2D):
    """Keras' convolution, which on CPUs trains faster where its images are small.

    oneDNN is slow where the output has few pixels. In bfloat16, it takes longer for the gradient of the kernel than for
    all else together: up to nine times as long as for the output, on processors with AMX. With very few pixels, it is
    slow at the output and the images' gradient, too, and multiplies with the zeros around the images, two fifths of all
    where a 3x3 kernel meets 3x3 pixels. Matrix products are up to four times as fast there, and the same to rounding.
    Evaluation, exports, accelerators and all other sizes are left to TensorFlow (docs/performance.md).
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training or not self._pays(inputs):
            return super().call(inputs)
        outputs = convolve(inputs, tf.convert_to_tensor(self.kernel), self.strides[0], self.padding.upper())
        outputs = tf.nn.bias_add(outputs, self.bias) if self.use_bias else outputs
        return outputs if self.activation is None else self.activation(outputs)

    def _pays(self, inputs: tf.Tensor) -> bool:
        height, width = self.compute_output_shape(inputs.shape)[1:3]
        return (
            self._is_plain()
            and inputs.shape.rank == 4
            and inputs.shape[-1] >= MIN_CHANNELS
            and None not in (height, width)
            and height * width <= (MAX_PIXELS if inputs.dtype == tf.bfloat16 else FEW_PIXELS)
            and not devices.on_accelerator()
        )

    def _is_plain(self) -> bool:
        """Whether `convolve` can do it."""
        is_square = len(set(self.kernel_size)) == len(set(self.strides)) == 1
        is_whole = self.groups == 1 and set(self.dilation_rate) == {1} and self.data_format == "channels_last"
        is_same = self.padding == "same" and set(self.strides) == {1} and self.kernel_size[0] % 2 == 1
        return is_square and is_whole and (self.padding == "valid" or is_same)


def convolve(images: tf.Tensor, kernel: tf.Tensor, stride: int, padding: str) -> tf.Tensor:
    """`tf.nn.conv2d` whose gradient with respect to the kernel is a sum of matrix products.

    With few pixels and k > 1, so are the output and, with stride 1, the gradient with respect to the images.

    Args:
      images: Float tensor [B, H, W, C] with known H, W and C.
      kernel: Tensor [k, k, C, F] of the same dtype.
      stride: In both directions.
      padding: "VALID", or, with stride 1 and an odd k, "SAME".

    Returns:
      Tensor [B, h, w, F] of the same dtype.
    """
    size = kernel.shape[0]
    margin = size // 2 if padding == "SAME" else 0
    height, width = ((side + 2 * margin - size) // stride + 1 for side in images.shape[1:3])
    is_few = size > 1 and height * width <= FEW_PIXELS  # With k = 1, a convolution is a matrix product already.

    @tf.custom_gradient
    def forward(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        def gradient(slopes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            if is_few and stride == 1:
                of_images = images_gradient_of_few(slopes, kernel, margin)
            else:
                of_images = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(images),
                    filter=kernel,
                    out_backprop=slopes,
                    strides=[1, stride, stride, 1],
                    padding=padding,
                )
            return of_images, kernel_gradient(images, slopes, size, stride, margin)

        if is_few:
            return convolution_of_few(images, kernel, stride, margin), gradient
        return tf.nn.conv2d(images, kernel, stride, padding), gradient

    return forward(images, kernel)


def convolution_of_few(images: tf.Tensor, kernel: tf.Tensor, stride: int, margin: int) -> tf.Tensor:
    """A convolution as one matrix product for each pixel of the output, without the zeros around the images.

    Args:
      images: Float tensor [B, H, W, C].
      kernel: Tensor [k, k, C, F] of the same dtype.
      stride: In both directions.
      margin: How many rows and columns of zeros there would be on each side.

    Returns:
      Tensor [B, h, w, F] of the same dtype.
    """
    size, _, channels, filters = kernel.shape
    # (start in the images, start in the kernel, length) of what an output row or column sees
    rows, columns = (
        [
            (max(first, 0), max(-first, 0), min(first + size, side) - max(first, 0))
            for first in range(-margin, side + margin - size + 1, stride)
        ]
        for side in images.shape[1:3]
    )
    with tf.name_scope(TEMPORARY):
        pixels = []
        for top, row, height in rows:
            for left, column, width in columns:
                seen = tf.reshape(images[:, top : top + height, left : left + width], [-1, height * width * channels])
                part = kernel[row : row + height, column : column + width]
                pixels.append(tf.matmul(seen, tf.reshape(part, [-1, filters])))
        outputs = tf.stack(pixels, axis=1)
    return tf.reshape(outputs, [-1, len(rows), len(columns), filters])


def images_gradient_of_few(slopes: tf.Tensor, kernel: tf.Tensor, margin: int) -> tf.Tensor:
    """The gradient of the images, [B, H, W, C], of `convolution_of_few` with stride 1, from that of its output."""
    turned = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
    return convolution_of_few(slopes, turned, 1, kernel.shape[0] - 1 - margin)


def kernel_gradient(images: tf.Tensor, slopes: tf.Tensor, size: int, stride: int, margin: int) -> tf.Tensor:
    """The gradient of the kernel, [k, k, C, F], from the images [B, H, W, C] and that of the output, [B, h, w, F].

    Args:
      images: Float tensor.
      slopes: Tensor of the same dtype.
      size: k.
      stride: In both directions; 1 with a margin.
      margin: How many rows and columns of zeros the convolution adds on each side.
    """
    height, width, channels = images.shape[1:]
    h, w, filters = slopes.shape[1:]
    images = tf.pad(images, [[0, 0], [0, -height % stride], [0, -width % stride], [0, 0]])
    # What a place of the kernel sees is then a block without gaps, which is faster to cut out.
    blocks = tf.reshape(images, [-1, -(-height // stride), stride, -(-width // stride), stride * channels])
    # Of each row or column of the kernel: (place in a block, start in the blocks, start in the output, length) of the
    # outputs that see the images there, not the zeros around them.
    rows, columns = (
        [
            (place % stride, max(shift, 0), max(-shift, 0), max(min(side - shift, count) - max(-shift, 0), 0))
            for place in range(size)
            for shift in [place // stride - margin]
        ]
        for side, count in ((blocks.shape[1], h), (blocks.shape[3], w))
    )
    products = []
    for i, top, row, height in rows:
        for j, left, column, width in columns:
            seen = blocks[:, top : top + height, i, left : left + width, j * channels : (j + 1) * channels]
            seen_by = tf.reshape(slopes[:, row : row + height, column : column + width], [-1, filters])
            products.append(tf.matmul(tf.reshape(seen, [-1, channels]), seen_by, transpose_a=True))
    return tf.reshape(tf.stack(products), [size, size, channels, filters])

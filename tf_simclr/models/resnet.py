"""ResNet encoders as the SimCLR reference builds them.

They differ from the usual ResNets in this: the stride is on the 3x3 convolution of a bottleneck (v1.5), the first
block of *every* group has a projection shortcut (so ResNet-18 has one more than usual), strided convolutions pad
the same amount on both sides, and the last batch norm of a residual branch starts with a zero scale.
"""

from typing import Any

import tensorflow as tf

from tf_simclr.keras import keras

# depth: (blocks per group, whether a block is a bottleneck)
DEPTHS: dict[int, tuple[tuple[int, ...], bool]] = {
    10: ((1, 1, 1, 1), False),
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
    200: ((3, 24, 36, 3), True),
}
# stem: by how much it shrinks an image
STEM_STRIDES = {"cifar": 1, "strided": 2, "imagenet": 4}
GROUP_FILTERS = (64, 128, 256, 512)
BOTTLENECK_EXPANSION = 4


def resnet(
    depth: int = 50,
    width_multiplier: float = 1.0,
    stem: str = "imagenet",
    *,
    num_groups: int = 4,
    image_size: int | None = None,
    synchronized: bool = False,
    batch_norm_momentum: float = 0.9,
    l2: float = 0.0,
    dtype: Any = None,
    name: str = "resnet",
) -> keras.Model:
    """ResNet that maps images, float [B, H, W, 3] in [0, 1], to representations, float32 [B, F].

    Args:
      depth: 18, 34, 50, 101, 152 or 200, or 10 for small machines (one basic block per group).
      width_multiplier: Real number > 0 that scales the number of channels.
      stem: "cifar" (3x3, stride 1), "strided" (3x3, stride 2) or "imagenet" (7x7, stride 2, then 3x3 max-pooling).
      num_groups: How many of the four groups of blocks to build, from the first. With all four, F is
        512 * width_multiplier (depth 50 and up: 2048 * width_multiplier).
      image_size: Height and width of the images; `None` leaves them free.
      synchronized: Whether batch-norm statistics are those of the batches of all replicas together.
      batch_norm_momentum: Share of the moving averages that a step keeps.
      l2: Coefficient of an L2 penalty, l2 / 2 * |w|^2, on every kernel, which Keras adds to the loss. LARS and AdamW
        decay weights themselves and need none.
      dtype: Keras dtype policy of the layers, such as "mixed_bfloat16"; the representations are float32 under any.
      name: Name of the model.

    Returns:
      A functional Keras model whose layers are the stem, the groups and the pooling.

    Raises:
      ValueError: If the depth or stem is unknown, or an image is smaller than the total stride.
    """
    if depth not in DEPTHS:
        raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}. Received: {depth}")
    if stem not in STEM_STRIDES:
        raise ValueError(f"stem must be one of {', '.join(STEM_STRIDES)}. Received: {stem}")
    if not 1 <= num_groups <= len(GROUP_FILTERS):
        raise ValueError(f"num_groups must be from 1 to {len(GROUP_FILTERS)}. Received: {num_groups}")
    if width_multiplier <= 0:
        raise ValueError(f"width_multiplier must be positive. Received: {width_multiplier}")
    total_stride = STEM_STRIDES[stem] * 2 ** (num_groups - 1)
    if image_size is not None and image_size < total_stride:
        raise ValueError(
            f"A ResNet with the {stem} stem shrinks images by {total_stride}: use larger images or another stem. "
            f"Received: image_size {image_size}"
        )

    build = _LayerFactory(synchronized, batch_norm_momentum, l2, dtype)
    filters = [max(1, round(count * width_multiplier)) for count in GROUP_FILTERS]
    block_counts, is_bottleneck = DEPTHS[depth]
    images = keras.Input([image_size, image_size, 3], name="images")
    features = _stem(build, images, filters[0], stem)
    for group in range(num_groups):
        features = _block_group(
            build, features, filters[group], block_counts[group], 1 if group == 0 else 2, is_bottleneck, group + 1
        )
    representation = keras.layers.GlobalAveragePooling2D(dtype=tf.float32, name="final_avg_pool")(features)
    return keras.Model(images, representation, name=name)


class _LayerFactory:
    """Makes the layers of one network with its settings."""

    def __init__(self, synchronized: bool, batch_norm_momentum: float, l2: float, dtype: Any):
        self._synchronized = synchronized
        self._momentum = batch_norm_momentum
        self._l2 = l2
        self._dtype = dtype

    def convolution(self, inputs: tf.Tensor, filters: int, kernel_size: int, stride: int = 1) -> tf.Tensor:
        if stride > 1 and kernel_size > 1:
            before = (kernel_size - 1) // 2
            after = kernel_size - 1 - before
            inputs = keras.layers.ZeroPadding2D([(before, after), (before, after)], dtype=self._dtype)(inputs)
        return keras.layers.Conv2D(
            filters,
            kernel_size,
            strides=stride,
            padding="same" if stride == 1 else "valid",
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(),
            kernel_regularizer=keras.regularizers.L2(self._l2 / 2) if self._l2 else None,
            dtype=self._dtype,
        )(inputs)

    def batch_norm(self, inputs: tf.Tensor, *, relu: bool = True, zero_scale: bool = False) -> tf.Tensor:
        outputs = keras.layers.BatchNormalization(
            momentum=self._momentum,
            epsilon=1e-5,
            gamma_initializer="zeros" if zero_scale else "ones",
            synchronized=self._synchronized,
            dtype=self._dtype,
        )(inputs)
        return self.relu(outputs) if relu else outputs

    def relu(self, inputs: tf.Tensor, name: str | None = None) -> tf.Tensor:
        return keras.layers.ReLU(dtype=self._dtype, name=name)(inputs)

    def add(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        return keras.layers.Add(dtype=self._dtype)([first, second])

    def max_pool(self, inputs: tf.Tensor) -> tf.Tensor:
        return keras.layers.MaxPooling2D(3, strides=2, padding="same", dtype=self._dtype)(inputs)


def _stem(build: _LayerFactory, images: tf.Tensor, filters: int, stem: str) -> tf.Tensor:
    inputs = keras.Input(images.shape[1:])
    if stem == "imagenet":
        features = build.max_pool(build.batch_norm(build.convolution(inputs, filters, 7, stride=2)))
    else:
        features = build.batch_norm(build.convolution(inputs, filters, 3, stride=STEM_STRIDES[stem]))
    return keras.Model(inputs, features, name="stem")(images)


def _block_group(
    build: _LayerFactory,
    features: tf.Tensor,
    filters: int,
    num_blocks: int,
    stride: int,
    is_bottleneck: bool,
    number: int,
) -> tf.Tensor:
    """A group of residual blocks, as a model of its own; its first block changes the size and the channels."""
    block = _bottleneck_block if is_bottleneck else _basic_block
    inputs = keras.Input(features.shape[1:])
    outputs = block(build, inputs, filters, stride, project=True)
    for _ in range(num_blocks - 1):
        outputs = block(build, outputs, filters, 1, project=False)
    return keras.Model(inputs, outputs, name=f"block_group{number}")(features)


def _basic_block(build: _LayerFactory, inputs: tf.Tensor, filters: int, stride: int, project: bool) -> tf.Tensor:
    shortcut = inputs
    if project:
        shortcut = build.batch_norm(build.convolution(inputs, filters, 1, stride), relu=False)
    branch = build.batch_norm(build.convolution(inputs, filters, 3, stride))
    branch = build.batch_norm(build.convolution(branch, filters, 3), relu=False, zero_scale=True)
    return build.relu(build.add(branch, shortcut))


def _bottleneck_block(build: _LayerFactory, inputs: tf.Tensor, filters: int, stride: int, project: bool) -> tf.Tensor:
    shortcut = inputs
    if project:
        shortcut = build.batch_norm(build.convolution(inputs, BOTTLENECK_EXPANSION * filters, 1, stride), relu=False)
    branch = build.batch_norm(build.convolution(inputs, filters, 1))
    branch = build.batch_norm(build.convolution(branch, filters, 3, stride))
    branch = build.convolution(branch, BOTTLENECK_EXPANSION * filters, 1)
    return build.relu(build.add(build.batch_norm(branch, relu=False, zero_scale=True), shortcut))

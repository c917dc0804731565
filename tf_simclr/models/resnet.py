"""ResNet encoders as the SimCLR reference builds them.

They differ from the usual ResNets: the stride is on the 3x3 convolution of a bottleneck (v1.5), the first block of
*every* group has a projection shortcut (so ResNet-18 has one more than usual), strided convolutions pad the same amount
on both sides, and the last batch norm of a residual branch starts with a zero scale. With selective kernels (SimCLR
v2), the stem and the shortcuts are those of ResNet-D.
"""

from typing import Any

import tensorflow as tf

from tf_simclr.keras import keras
from tf_simclr.models.layers import LayerFactory
from tf_simclr.models.loading import check_weights_file

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
# stem: the factor by which it shrinks an image
STEM_STRIDES = {"cifar": 1, "strided": 2, "imagenet": 4}
GROUP_FILTERS = (64, 128, 256, 512)
NUM_GROUPS = len(GROUP_FILTERS)
BOTTLENECK_EXPANSION = 4
MIN_SELECTIVE_FILTERS = 32


@keras.saving.register_keras_serializable("tf_simclr")
class ResNet(keras.Model):
    """A functional Keras model whose layers have the names that the reference gives their outputs.

    The reference has no "final_conv".
    """

    def load_weights(
        self, filepath: Any, skip_mismatch: bool = False, by_name: bool = False, options: Any = None
    ) -> Any:
        """Loads all weights of a file or, if it is of another model, none; see `loading.check_weights_file`."""
        if not (skip_mismatch or by_name):
            check_weights_file(self, filepath)
        return super().load_weights(filepath, skip_mismatch=skip_mismatch, by_name=by_name, options=options)

    def endpoints(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """The outputs of all parts.

        Args:
          images: float32 [B, S, S, 3] in [0, 1].
          training: Whether batch norm uses the statistics of the batch and updates its moving averages.

        Returns:
          initial_conv, initial_max_pool, block_group1 to block_group4 and, with a `final_width`, final_conv,
          [B, h, w, c], and final_avg_pool, [B, F]; in the dtypes of the layers.
        """
        outputs = {}
        for part in self.layers[1:]:
            images = part(images, training=training) if isinstance(part, keras.Model) else part(images)
            outputs[part.name] = images
        return outputs

    def freeze(self, after_block: int) -> None:
        """Freezes the weights from the input on; frozen batch norm runs in inference mode.

        Args:
          after_block: Last part to freeze: 0 the stem, 1 to 3 a group of blocks; 4, or a group that there is not,
            everything.

        Raises:
          ValueError: If it is none of these.
        """
        if not 0 <= after_block <= NUM_GROUPS:
            raise ValueError(f"after_block must be from 0 to {NUM_GROUPS}. Received: {after_block}")
        for part in self.layers if after_block == NUM_GROUPS else self.layers[: 3 + after_block]:
            part.trainable = False


def resnet(
    depth: int = 50,
    width_multiplier: float = 1.0,
    stem: str = "imagenet",
    *,
    num_groups: int = 4,
    sk_ratio: float | None = None,
    se_ratio: float | None = None,
    final_width: int | None = None,
    image_size: int | None = None,
    synchronized: bool = False,
    batch_norm_momentum: float = 0.9,
    l2: float = 0.0,
    dtype: Any = None,
    name: str = "resnet",
) -> ResNet:
    """ResNet that maps images, float [B, H, W, 3] in [0, 1], to representations, float32 [B, F].

    Args:
      depth: 18, 34, 50, 101, 152 or 200, or 10 for small machines (one basic block per group).
      width_multiplier: Real number > 0 that scales the number of channels.
      stem: "cifar" (3x3, stride 1), "strided" (3x3, stride 2) or "imagenet" (7x7, stride 2, then 3x3 max-pooling).
      num_groups: How many of the four groups of blocks to build, from the first. With all four, F is
        512 * width_multiplier (depth 50 and up: 2048 * width_multiplier), unless `final_width` says otherwise.
      sk_ratio: With one, bottlenecks have selective kernels (Li et al., 2019) whose mixing layer is this share of their
        width, and the "imagenet" stem and all shortcuts are those of ResNet-D (He et al., 2018). SimCLR v2: 0.0625.
        `None` or 0, the reference's value for none, leaves them out.
      se_ratio: With one, residual branches end in a squeeze-and-excitation (Hu et al., 2017) of this share. `None` or 0
        leaves it out.
      final_width: With one, a 1x1 convolution to this many channels, batch norm and ReLU come before the pooling, as in
        MobileNetV2 (Sandler et al., 2018), and F is this. `None` leaves it out. Not in the reference.
      image_size: Height and width of the images; `None` leaves them free.
      synchronized: Whether batch-norm statistics cover the batches of all replicas together.
      batch_norm_momentum: Share of the moving averages that a step keeps.
      l2: Coefficient of an L2 penalty, l2 / 2 * |w|^2, on every kernel and bias. Keras adds it to the loss. LARS,
        AdamW and Muon decay weights themselves and need none.
      dtype: Keras dtype policy of the layers, such as "mixed_bfloat16"; the representations are float32 under any.
      name: Name of the model.

    Returns:
      The encoder.

    Raises:
      ValueError: If the depth or stem is unknown, a number is out of its range, or an image is smaller than the total
        stride.
    """
    _check(depth, width_multiplier, stem, num_groups, image_size)
    _check_parts(sk_ratio, se_ratio, final_width)
    build = LayerFactory(synchronized, batch_norm_momentum, l2, dtype, sk_ratio, se_ratio)
    filters = [max(1, round(count * width_multiplier)) for count in GROUP_FILTERS]
    block_counts, is_bottleneck = DEPTHS[depth]
    images = keras.Input([image_size, image_size, 3], name="images")
    features = _stem(build, images, filters[0], stem)
    for group in range(num_groups):
        features = _block_group(build, features, filters[group], block_counts[group], is_bottleneck, group + 1)
    if final_width is not None:
        features = _final_convolution(build, features, final_width)
    representation = keras.layers.GlobalAveragePooling2D(dtype=tf.float32, name="final_avg_pool")(features)
    return ResNet(images, representation, name=name)


def _check_parts(sk_ratio: float | None, se_ratio: float | None, final_width: int | None) -> None:
    """Raises a `ValueError` unless these are in their ranges."""
    for name, ratio in (("sk_ratio", sk_ratio), ("se_ratio", se_ratio)):
        if ratio is not None and not 0 <= ratio <= 1:
            raise ValueError(f"{name} must be from 0 to 1, or None. Received: {ratio}")
    if final_width is not None and final_width < 1:
        raise ValueError(f"final_width must be at least 1, or None. Received: {final_width}")


def _check(depth: int, width_multiplier: float, stem: str, num_groups: int, image_size: int | None) -> None:
    """Raises a `ValueError` unless there is such a ResNet."""
    if depth not in DEPTHS:
        raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}. Received: {depth}")
    if stem not in STEM_STRIDES:
        raise ValueError(f"stem must be one of {', '.join(STEM_STRIDES)}. Received: {stem}")
    if not 1 <= num_groups <= NUM_GROUPS:
        raise ValueError(f"num_groups must be from 1 to {NUM_GROUPS}. Received: {num_groups}")
    if width_multiplier <= 0:
        raise ValueError(f"width_multiplier must be positive. Received: {width_multiplier}")
    if image_size is not None and image_size < total_stride(stem, num_groups):
        raise ValueError(
            f"A ResNet with the {stem} stem shrinks images by a factor of {total_stride(stem, num_groups)}: use larger "
            f"images or another stem. Received: image_size {image_size}"
        )


def total_stride(stem: str, num_groups: int = NUM_GROUPS) -> int:
    """By how much a ResNet shrinks its images."""
    return STEM_STRIDES[stem] * 2 ** (num_groups - 1)


def _stem(build: LayerFactory, images: tf.Tensor, filters: int, stem: str) -> tf.Tensor:
    """The first convolution, then its batch norm and pooling: two models, because the reference names both outputs."""
    inputs = keras.Input(images.shape[1:], dtype=images.dtype)
    if stem != "imagenet":
        features = build.convolution(inputs, filters, 3, stride=STEM_STRIDES[stem])
    elif build.sk_ratio:
        half = max(1, filters // 2)
        features = build.batch_norm(build.convolution(inputs, half, 3, stride=2))
        features = build.batch_norm(build.convolution(features, half, 3))
        features = build.convolution(features, filters, 3)
    else:
        features = build.convolution(inputs, filters, 7, stride=2)
    convolved = keras.Model(inputs, features, name="initial_conv")(images)

    inputs = keras.Input(convolved.shape[1:], dtype=convolved.dtype)
    features = build.batch_norm(inputs)
    if stem == "imagenet":
        features = build.max_pool(features)
    return keras.Model(inputs, features, name="initial_max_pool")(convolved)


def _block_group(
    build: LayerFactory,
    features: tf.Tensor,
    filters: int,
    num_blocks: int,
    is_bottleneck: bool,
    number: int,
) -> tf.Tensor:
    """A group of residual blocks, as a model of its own; its first block changes channels and size."""
    block = _bottleneck_block if is_bottleneck else _basic_block
    inputs = keras.Input(features.shape[1:], dtype=features.dtype)
    outputs = block(build, inputs, filters, 1 if number == 1 else 2, project=True)
    for _ in range(num_blocks - 1):
        outputs = block(build, outputs, filters, 1, project=False)
    return keras.Model(inputs, outputs, name=f"block_group{number}")(features)


def _final_convolution(build: LayerFactory, features: tf.Tensor, filters: int) -> tf.Tensor:
    """More channels, for a representation of more numbers, as a model of its own."""
    inputs = keras.Input(features.shape[1:], dtype=features.dtype)
    outputs = build.batch_norm(build.convolution(inputs, filters, 1))
    return keras.Model(inputs, outputs, name="final_conv")(features)


def _basic_block(build: LayerFactory, inputs: tf.Tensor, filters: int, stride: int, project: bool) -> tf.Tensor:
    shortcut = _shortcut(build, inputs, filters, stride) if project else inputs
    branch = build.batch_norm(build.convolution(inputs, filters, 3, stride))
    branch = build.batch_norm(build.convolution(branch, filters, 3), relu=False, zero_scale=True)
    return build.relu(build.add(_squeeze_and_excite(build, branch, filters), shortcut))


def _bottleneck_block(build: LayerFactory, inputs: tf.Tensor, filters: int, stride: int, project: bool) -> tf.Tensor:
    shortcut = _shortcut(build, inputs, BOTTLENECK_EXPANSION * filters, stride) if project else inputs
    branch = build.batch_norm(build.convolution(inputs, filters, 1))
    if build.sk_ratio:
        branch = _selective_kernel(build, branch, filters, stride)
    else:
        branch = build.batch_norm(build.convolution(branch, filters, 3, stride))
    branch = build.convolution(branch, BOTTLENECK_EXPANSION * filters, 1)
    branch = build.batch_norm(branch, relu=False, zero_scale=True)
    return build.relu(build.add(_squeeze_and_excite(build, branch, filters), shortcut))


def _shortcut(build: LayerFactory, inputs: tf.Tensor, filters: int, stride: int) -> tf.Tensor:
    """Projects the input to the size and channels of the branch."""
    if build.sk_ratio:
        inputs = build.average_pool(build.pad(inputs, 2) if stride > 1 else inputs, stride)
        stride = 1
    return build.batch_norm(build.convolution(inputs, filters, 1, stride), relu=False)


def _selective_kernel(build: LayerFactory, inputs: tf.Tensor, filters: int, stride: int) -> tf.Tensor:
    """Two 3x3 convolutions, mixed channel by channel, depending on the image."""
    streams = build.split_streams(build.batch_norm(build.convolution(inputs, 2 * filters, 3, stride)))
    summary = build.mean(build.add(*streams))
    summary = build.batch_norm(build.convolution(summary, max(int(filters * build.sk_ratio), MIN_SELECTIVE_FILTERS), 1))
    weights = build.softmax_over_streams(build.convolution(summary, 2 * filters, 1))
    return build.add(*(build.multiply(*pair) for pair in zip(streams, weights, strict=True)))


def _squeeze_and_excite(build: LayerFactory, branch: tf.Tensor, filters: int) -> tf.Tensor:
    """Scales every channel by a factor that depends on the whole image; does nothing without an `se_ratio`."""
    if not build.se_ratio:
        return branch
    squeezed = build.convolution(build.mean(branch), max(1, int(filters * build.se_ratio)), 1, use_bias=True)
    excited = build.convolution(build.relu(squeezed), branch.shape[-1], 1, use_bias=True)
    return build.multiply(branch, build.sigmoid(excited))

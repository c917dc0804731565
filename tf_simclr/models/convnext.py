"""ConvNeXt encoders, from Keras applications."""

import functools

import tensorflow as tf

from tf_simclr.keras import keras

# By how much the network shrinks images.
TOTAL_STRIDE = 32


def convnext_tiny(image_size: int | None = None, *, l2: float = 0.0, dtype: str = "float32") -> keras.Model:
    """ConvNeXt-Tiny, from images, float [B, S, S, 3] in [0, 1], to representations, float32 [B, 768].

    The network is that of Keras applications, with random weights and without its preprocessing, because this package
    removes no mean from images. It has layer normalization in place of batch norm, so nothing depends on the batch.

    Source: Liu et al., "A ConvNet for the 2020s" (2022).

    Args:
      image_size: S, height and width of the images in pixels, at least 32; `None` leaves it free.
      l2: Coefficient of an L2 penalty, l2 / 2 * |w|^2, on every kernel and bias except those of normalization. Keras
        adds it to the loss.
      dtype: Dtype policy of the layers, such as "mixed_bfloat16"; the representations are float32 under any.

    Raises:
      ValueError: If the images are too small.
    """
    if image_size is not None and image_size < TOTAL_STRIDE:
        raise ValueError(
            f"ConvNeXt shrinks images by a factor of {TOTAL_STRIDE}: use larger ones. Received: image_size {image_size}"
        )
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(dtype)  # Keras applications take no policy as an argument.
    try:
        network = keras.applications.convnext.ConvNeXtTiny(
            include_top=False,
            include_preprocessing=False,
            weights=None,
            input_shape=(image_size, image_size, 3),
            pooling="avg",
        )
        network = keras.models.clone_model(network, clone_function=_clone)
    finally:
        keras.mixed_precision.set_global_policy(before)
    representation = keras.layers.Activation("linear", dtype="float32", name="representation")(network.output)
    encoder = keras.Model(network.input, representation, name="convnext_tiny")
    for layer in network.submodules if l2 else ():
        if hasattr(layer, "kernel_initializer") or hasattr(layer, "depthwise_initializer"):
            for variable in layer.trainable_variables:
                encoder.add_loss(functools.partial(_penalty, variable, l2))
    return encoder


def _clone(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Clones a layer, but turns one convolution per channel, which Keras leaves to XLA, into a depthwise convolution.

    TensorFlow Serving does not compile with XLA, and CPUs are faster without it.
    """
    config = layer.get_config()
    if not (isinstance(layer, keras.layers.Conv2D) and layer.groups == layer.filters > 1):
        return type(layer).from_config(config)
    same = ("name", "dtype", "kernel_size", "strides", "padding", "use_bias")
    return keras.layers.DepthwiseConv2D(**{name: config[name] for name in same})


def _penalty(variable: tf.Variable, l2: float) -> tf.Tensor:
    return l2 * tf.nn.l2_loss(variable)

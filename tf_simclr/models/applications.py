"""Encoders from Keras applications, by name."""

import functools
import inspect
from typing import Any

from tf_simclr.keras import keras
from tf_simclr.models.foreign import penalize, under_policy
from tf_simclr.models.layers import BatchNormalization

# NASNets pad by rules that differ with the image size. On a CPU, only XLA computes the grouped convolutions of RegNets,
# and TensorFlow Serving has none.
_LEFT_OUT = ("NASNet", "RegNet")
# The networks of Keras applications.
NAMES = tuple(name for name in dir(keras.applications) if name[0].isupper() and not name.startswith(_LEFT_OUT))

# Images of fewer pixels a side shrink to nothing in these networks; others take 32 px.
_SMALLEST = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}


def smallest_size(name: str) -> int:
    """Height and width in pixels of the smallest images that a network takes."""
    return _SMALLEST.get(name, 32)


def application(
    name: str,
    image_size: int | None = None,
    *,
    synchronized: bool = False,
    batch_norm_momentum: float = 0.9,
    l2: float = 0.0,
    dtype: str = "float32",
) -> keras.Model:
    """A network of Keras applications, from images, float [B, S, S, 3] in [0, 1], to representations, float32 [B, F].

    It has random weights, global average pooling and no classifier. Three things differ from Keras' own: images stay as
    they are, because this package removes no mean from them; no layer draws random numbers (dropout, stochastic depth),
    so that a step can be repeated; and batch norm has the momentum of this package.

    Args:
      name: One of `NAMES`, such as "MobileNetV3Small".
      image_size: S, height and width of the images in pixels; `None` leaves it free.
      synchronized: Whether batch-norm statistics cover the batches of all replicas together.
      batch_norm_momentum: Share of the moving averages that a step keeps.
      l2: Coefficient of an L2 penalty, see `foreign.penalize`.
      dtype: Dtype policy of the layers, such as "mixed_bfloat16"; the representations are float32 under any.

    Raises:
      ValueError: If there is no such network, or the images are too small.
    """
    if name not in NAMES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}. Received: {name}")
    if image_size is not None and image_size < smallest_size(name):
        raise ValueError(f"{name} takes images of at least {smallest_size(name)} px. Received: image_size {image_size}")
    make = getattr(keras.applications, name)
    options = {"include_preprocessing": False} if "include_preprocessing" in inspect.signature(make).parameters else {}
    norm = {"momentum": batch_norm_momentum, "synchronized": synchronized}
    with under_policy(dtype):  # Keras applications take no policy as an argument.
        network = make(
            include_top=False, weights=None, input_shape=(image_size, image_size, 3), pooling="avg", **options
        )
        network = keras.models.clone_model(network, clone_function=functools.partial(_clone, norm=norm))
    representation = keras.layers.Activation("linear", dtype="float32", name="representation")(network.output)
    encoder = keras.Model(network.input, representation, name=network.name)
    penalize(encoder, l2)
    return encoder


def _clone(layer: keras.layers.Layer, norm: dict[str, Any]) -> keras.layers.Layer:
    """Clones a layer, or makes the one that takes its place."""
    config = layer.get_config()
    if isinstance(layer, keras.Sequential):
        return keras.models.clone_model(layer, clone_function=functools.partial(_clone, norm=norm))
    if isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization | keras.layers.Dropout):
        return keras.layers.Activation("linear", name=layer.name, dtype=config["dtype"])
    if isinstance(layer, keras.layers.BatchNormalization):
        return BatchNormalization(**config | norm)
    # Keras leaves one convolution per channel to XLA, too.
    if isinstance(layer, keras.layers.Conv2D) and layer.groups == layer.filters > 1:
        same = ("name", "dtype", "kernel_size", "strides", "padding", "use_bias")
        return keras.layers.DepthwiseConv2D(**{name: config[name] for name in same})
    return type(layer).from_config(config)

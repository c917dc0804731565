"""The parts of a model that an export serves: an encoder and the heads behind it, if any."""

import dataclasses

from tf_simclr.keras import keras


@dataclasses.dataclass(frozen=True)
class Served:
    """The parts of a model that are exported.

    Attributes:
      encoder: From images, float32 [B, S, S, 3] in [0, 1], to features [B, F].
      image_size: S in pixels.
      projection_head: From features to projections [B, D].
      classifier: From what it reads of the projection head to class logits [B, C].
      classifier_layer: What the classifier reads: 0 the features, i the i-th layer of the head, -1 the last one.
    """

    encoder: keras.Model
    image_size: int
    projection_head: keras.layers.Layer | None = None
    classifier: keras.layers.Layer | None = None
    classifier_layer: int = 0

    @property
    def parts(self) -> tuple[keras.layers.Layer, ...]:
        """The parts that are present, the encoder first."""
        return tuple(part for part in (self.encoder, self.projection_head, self.classifier) if part is not None)


def to_served(model_or_encoder: keras.Model | Served, image_size: int | None = None) -> Served:
    """The parts of a model, or of an encoder alone, to export.

    Args:
      model_or_encoder: A model with the attribute `encoder` and, optionally, the others of `Served`; any
        Keras model from images to features; or a `Served`, which is returned as it is.
      image_size: S in pixels; by default the model's, or that of the encoder's static input shape.

    Raises:
      ValueError: If the image size is not known.
    """
    if isinstance(model_or_encoder, Served):
        return model_or_encoder
    encoder = getattr(model_or_encoder, "encoder", model_or_encoder)
    if image_size is None:
        image_size = getattr(model_or_encoder, "image_size", None)
    return Served(
        encoder,
        _static_size(encoder) if image_size is None else image_size,
        getattr(model_or_encoder, "projection_head", None),
        getattr(model_or_encoder, "classifier", None),
        getattr(model_or_encoder, "classifier_layer", 0),
    )


def _static_size(encoder: keras.Model) -> int:
    """Height and width in pixels that the encoder's input shape fixes."""
    shape = getattr(encoder, "input_shape", None)
    height, width = shape[1:3] if isinstance(shape, tuple) and len(shape) == 4 else (None, None)
    if height is None or height != width:
        raise ValueError(f"Pass image_size: the encoder's input shape does not state it. Received: {shape}")
    return height

"""Vision transformers, small enough for contrastive pretraining from random weights."""

from typing import Any

import tensorflow as tf

from tf_simclr.keras import keras
from tf_simclr.models.foreign import penalize, under_policy

_EPSILON = 1e-6


@keras.saving.register_keras_serializable("tf_simclr")
class GridPositions(keras.layers.Layer):
    """Adds the positions of patches on their grid to their embeddings [B, h, w, C]: fixed sines and cosines.

    Half of the channels tell the row y, half the column x: sin(y f), cos(y f), sin(x f), cos(x f), each for C / 4
    frequencies f from 1 down to almost 1 / 10000.

    Source: Chen et al., "An Empirical Study of Training Self-Supervised Vision Transformers" (2021), section 3.
    """

    def call(self, patches: tf.Tensor) -> tf.Tensor:
        size, quarter = tf.shape(patches), patches.shape[-1] // 4
        frequencies = 10_000.0 ** (-tf.range(quarter, dtype=tf.float32) / quarter)
        rows, columns = (tf.range(count, dtype=tf.float32)[:, None] * frequencies for count in (size[1], size[2]))
        parts = [tf.sin(rows)[:, None], tf.cos(rows)[:, None], tf.sin(columns)[None], tf.cos(columns)[None]]
        spread = [tf.broadcast_to(part, [size[1], size[2], quarter]) for part in parts]
        return patches + tf.cast(tf.concat(spread, axis=-1), patches.dtype)


@keras.saving.register_keras_serializable("tf_simclr")
class SelfAttention(keras.layers.Layer):
    """Every token [B, N, C] asks all tokens, in several heads; the softmax is computed in float32.

    Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.
    """

    def __init__(self, num_heads: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        # Keras would number them anew in every layer, beside the dense layers of the blocks.
        self.projections = keras.layers.Dense(3 * width, dtype=self.dtype_policy, name="projections")
        self.output_layer = keras.layers.Dense(width, dtype=self.dtype_policy, name="output")
        super().build(input_shape)

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        count, width = tf.shape(tokens)[1], tokens.shape[-1]
        per_head = width // self.num_heads
        split = tf.reshape(self.projections(tokens), [-1, count, 3, self.num_heads, per_head])
        queries, keys, values = tf.unstack(split, axis=2)
        logits = tf.einsum("bqhc,bkhc->bhqk", queries, keys) * per_head**-0.5
        weights = tf.cast(tf.nn.softmax(tf.cast(logits, tf.float32)), values.dtype)
        mixed = tf.einsum("bhqk,bkhc->bqhc", weights, values)
        return self.output_layer(tf.reshape(mixed, [-1, count, width]))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_heads": self.num_heads}


def vit(
    patch_size: int,
    width: int = 192,
    depth: int = 12,
    num_heads: int = 3,
    *,
    image_size: int | None = None,
    l2: float = 0.0,
    dtype: str = "float32",
) -> keras.Model:
    """A vision transformer, from images, float [B, S, S, 3] in [0, 1], to representations, float32 [B, width].

    Blocks normalise before attention and before the two dense layers, and the representation is the mean over the
    tokens. The default sizes are ViT-Tiny's; ViT-Small has width 384 and 6 heads. Nothing is random in it but the
    initial weights, and nothing depends on the batch.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021); Touvron et al., "Training data-efficient image
    transformers" (2021) for the sizes.

    Args:
      patch_size: Height and width in pixels of the patches, each of which becomes a token.
      width: Channels of a token, a multiple of 4 and of `num_heads`.
      depth: Number of blocks.
      num_heads: Heads of the attention.
      image_size: S, height and width of the images in pixels, a multiple of the patches'; `None` leaves it free.
      l2: Coefficient of an L2 penalty, see `foreign.penalize`.
      dtype: Dtype policy of the layers, such as "mixed_bfloat16"; the representations are float32 under any.

    Raises:
      ValueError: If a size is not a multiple of what it must be.
    """
    if width % 4 or width % num_heads:
        raise ValueError(f"width must be a multiple of 4 and of num_heads, {num_heads}. Received: {width}")
    if image_size is not None and image_size % patch_size:
        raise ValueError(f"image_size must be a multiple of patch_size, {patch_size}. Received: {image_size}")
    with under_policy(dtype):
        images = keras.Input([image_size, image_size, 3])
        tokens = GridPositions()(keras.layers.Conv2D(width, patch_size, strides=patch_size)(images))
        tokens = keras.layers.Reshape([-1, width])(tokens)
        for _ in range(depth):
            tokens = _block(tokens, width, num_heads)
        tokens = keras.layers.LayerNormalization(epsilon=_EPSILON)(tokens)
    representation = keras.layers.GlobalAveragePooling1D(dtype="float32", name="representation")(tokens)
    encoder = keras.Model(images, representation, name="vit")
    penalize(encoder, l2)
    return encoder


def _block(tokens: tf.Tensor, width: int, num_heads: int) -> tf.Tensor:
    """Attention, then two dense layers, each added to what it reads."""
    attended = SelfAttention(num_heads)(keras.layers.LayerNormalization(epsilon=_EPSILON)(tokens))
    tokens = keras.layers.Add()([tokens, attended])
    hidden = keras.layers.Dense(4 * width, "gelu")(keras.layers.LayerNormalization(epsilon=_EPSILON)(tokens))
    return keras.layers.Add()([tokens, keras.layers.Dense(width)(hidden)])

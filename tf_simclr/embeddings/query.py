"""Embeds an image that is not in the archive, with the model that has embedded the archive."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr.augment import center
from tf_simclr.data.formats import decode
from tf_simclr.embeddings import pictures
from tf_simclr.evaluation import embed
from tf_simclr.settings import RunConfig, override


def embed_image(path: str, about: Mapping[str, Any]) -> np.ndarray:
    """The embedding of an image file, float32 [1, F] of unit length.

    Args:
      path: The image.
      about: What the archive's embeddings say about themselves.

    Raises:
      FileNotFoundError: If the image or the model is gone.
      ValueError: If the image cannot be decoded, or the model is another one by now.
    """
    size = about["model"]["image_size"]
    changes = {"embed.encoder": about["model_path"], **({} if size is None else {"data.image_size": size})}
    encoder = embed.open_encoder(override(RunConfig(), changes), tf.distribute.get_strategy())
    identity = json.loads(json.dumps({"image_size": encoder.image_size, **encoder.identity}))
    if _besides_precision(identity) != _besides_precision(about["model"]):
        raise ValueError(
            "The model that has made these embeddings has changed: embed the archive again, or ask for an image that "
            f"is in it. Received: {about['model_path']}"
        )
    try:
        image = decode.decode_image(tf.constant(pictures.read(path)))
    except tf.errors.InvalidArgumentError:
        raise ValueError(f"--query must be an image that can be decoded. Received: {path}") from None
    encode = embed.make_encoding(RunConfig(), encoder).encode
    fed = tf.io.encode_png(image)[tf.newaxis] if size is None else center.preprocess_for_eval(image, size)[tf.newaxis]
    vector = encode(fed)
    return vector / np.maximum(np.linalg.norm(vector), np.finfo(np.float32).tiny)


def _besides_precision(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What identifies a model on any machine: each computes in a precision of its own, to nearly the same vectors."""
    return {name: value for name, value in identity.items() if name != "precision"}

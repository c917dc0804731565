"""Describes an export to its users, in `model_card.json` beside the SavedModel."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr.augment import center
from tf_simclr.export.directory import CARD
from tf_simclr.export.signatures import Serving
from tf_simclr.keras import keras


def write_card(
    directory: str, image_size: int, signatures: Mapping[str, Any], serving: Serving, details: Mapping[str, Any]
) -> None:
    """Writes the card.

    Args:
      directory: The SavedModel.
      image_size: Height and width in pixels of the encoder's input.
      signatures: The functions of the signatures, by name.
      serving: How the export serves.
      details: Further entries, which override those made here.
    """
    described = {name: _describe(function.get_concrete_function()) for name, function in signatures.items()}
    card = {
        "preprocessing": {
            "image_size": image_size,
            "exif_orientation": "honoured",
            "crop": center.CROP_PROPORTION if image_size > center.MAX_UNCROPPED_SIZE else None,
            "resize": "bicubic, without antialiasing",
            "range": [0.0, 1.0],
            "max_pixels": serving.max_pixels,
        },
        "embedding": {
            "size": described["encode"]["outputs"]["embedding"]["shape"][1],
            "unit_length": serving.normalize,
            "pca": serving.pca is not None,
        },
        "signatures": described,
        "warmed_up_batch_sizes": list(serving.batch_sizes),
        "training": None,
        "accuracy": None,
        "classifier": None,
        "data": None,
        "versions": {
            "tensorflow": tf.__version__,
            "keras": importlib.metadata.version(keras.__name__.partition(".")[0]),  # tf_keras, or keras
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "license": "unknown",
        **details,
    }
    with tf.io.gfile.GFile(os.path.join(directory, CARD), "w") as file:
        file.write(json.dumps(card, indent=2) + "\n")


def _describe(function: Any) -> dict[str, Any]:
    inputs, outputs = function.structured_input_signature[0], function.structured_outputs
    return {
        "inputs": {spec.name: _spec(spec) for spec in inputs},
        "outputs": {name: _spec(spec) for name, spec in outputs.items()},
    }


def _spec(spec: Any) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}

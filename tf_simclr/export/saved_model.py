"""Writes an encoder as a SavedModel that serves without this package."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from tf_simclr.export.audit import audit
from tf_simclr.export.directory import complete_or_absent
from tf_simclr.export.model_card import write_card
from tf_simclr.export.served import Served, to_served
from tf_simclr.export.signatures import Answers, Serving, in_unit_range, make_signatures
from tf_simclr.export.warmup import write_warmup
from tf_simclr.files import for_tensorflow
from tf_simclr.keras import keras
from tf_simclr.models.heads import head_outputs
from tf_simclr.models.resnet import ResNet


def export_encoder(
    model_or_encoder: keras.Model | Served,
    directory: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    serving: Serving | None = None,
    details: Mapping[str, Any] | None = None,
    check: Callable[[str], None] | None = None,
) -> str:
    """Writes the encoder as a SavedModel that takes image files and returns embeddings.

    Its signatures, whose floats are float32 under every precision policy:
      serving_default: image_bytes, string [B], image files -> embedding [B, F], and valid, bool [B]. A file that is not
        an image gets `valid` False and a row of zeros, and does not affect the rest of the batch.
      pixels: images, uint8 [B, H, W, 3] -> embedding.
      encode: images, float32 [B, S, S, 3] in [0, 1] -> embedding. The one to convert to other formats.
      classify, where the model has a classifier: image_bytes -> classes, string [B, C], scores [B, C], which are
        probabilities, and valid.
      project, if asked for: image_bytes -> projection [B, D], what the contrastive loss compares, and valid.
    All but `encode`, which takes the encoder's input as it is, preprocess as evaluation does. `encode` refuses values
    outside [0, 1]: TensorFlow casts NumPy arrays of other types to floats.

    The loaded model can also be called like an export of the reference: `loaded(images, trainable=False)` takes what
    `encode` takes, or uint8 [B, S, S, 3], which it scales, and returns a dictionary of float32 tensors under the
    reference's names: final_avg_pool and, where the model has them, initial_conv, initial_max_pool, block_group1 to
    block_group4, proj_head_input, proj_head_output and logits_sup; and final_conv, which the reference does not have.
    With `trainable=True` batch norm learns, and `trainable_variables_list` holds the variables to differentiate.

    The directory also holds `model_card.json` and, in `assets.extra/`, the warm-up requests of TensorFlow Serving. The
    files are written beside it under a name that no server takes for a version, audited (see `audit`), then renamed, so
    the directory is complete or absent. It is never replaced, because a server may hold it.

    Args:
      model_or_encoder: A model with the attributes `encoder` and `image_size`, or any Keras model from images, float32
        [B, S, S, 3] in [0, 1], to features [B, F].
      directory: Where to write, such as "encoder/1"; servers load the child with the highest number.
      image_size: S in pixels; by default the model's, or that of the encoder's static input shape.
      serving: Form of the embeddings, names of the classes, limits and batches; by default `Serving()`.
      details: Further entries of `model_card.json`, which override its own.
      check: Called with the path of the files once they are written; if it raises, nothing is exported.

    Returns:
      `directory` as a string.

    Raises:
      FileExistsError: If `directory` exists.
      OSError: If the files cannot be written.
      ValueError: If the image size is not known, the encoder does not return [B, F], or the audit fails.
    """
    serving = serving or Serving()
    served = to_served(model_or_encoder, image_size)
    directory = os.fspath(directory).rstrip("/")
    with complete_or_absent(for_tensorflow(directory)) as unfinished:
        module, signatures = _make_module(served, serving)
        tf.saved_model.save(module, unfinished, signatures)
        write_warmup(unfinished, served.image_size, serving.batch_sizes)
        write_card(unfinished, served.image_size, signatures, serving, details or {})
        audit(unfinished, signatures=list(signatures), has_warmup=bool(serving.batch_sizes))
        if check is not None:
            check(unfinished)
    logging.info("Exported the encoder to %s", directory)
    return directory


class _Module(tf.Module):
    """The content of a SavedModel: the variables, and the function that code for the reference's exports calls."""

    def __init__(self, served: Served):
        super().__init__()
        # TensorFlow saves whatever it can track. `Served` hides the layers from it, because Keras would add its
        # training functions and the names of its classes.
        self._served = served
        self.model_variables = [variable for part in served.parts for variable in part.variables]
        self.trainable_variables_list = [variable for part in served.parts for variable in part.trainable_variables]

    @tf.function
    def __call__(self, images: tf.Tensor, trainable: bool = False) -> dict[str, tf.Tensor]:
        if images.dtype == tf.uint8:
            return self._outputs(tf.image.convert_image_dtype(images, tf.float32), trainable)
        return self._outputs(in_unit_range(images), trainable)

    @tf.function
    def _outputs(self, images: tf.Tensor, trainable: bool) -> dict[str, tf.Tensor]:
        with _on_one_replica(self._served.parts):
            outputs = _reference_outputs(self._served, images, training=trainable)
        return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}


def _reference_outputs(served: Served, images: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
    """The outputs of the model's parts, under the reference's names."""
    if isinstance(served.encoder, ResNet):
        outputs = served.encoder.endpoints(images, training)
    else:
        outputs = {"final_avg_pool": served.encoder(images, training=training)}
    if served.projection_head is not None:
        hidden = head_outputs(served.projection_head, outputs["final_avg_pool"], training)
        outputs |= {"proj_head_input": hidden[0], "proj_head_output": hidden[-1]}
        if served.classifier is not None:
            outputs["logits_sup"] = served.classifier(hidden[served.classifier_layer], training=training)
    return outputs


@contextlib.contextmanager
def _on_one_replica(parts: tuple[keras.layers.Layer, ...]) -> Iterator[None]:
    """Keeps batch norm to one replica: a SavedModel cannot hold the gradient of a sum over replicas."""
    layers = [layer for part in parts for layer in part.submodules if getattr(layer, "synchronized", False)]
    for layer in layers:
        layer.synchronized = False
    try:
        yield
    finally:
        for layer in layers:
            layer.synchronized = True


def _make_module(served: Served, serving: Serving) -> tuple[tf.Module, dict[str, Any]]:
    """A module that owns the variables, and the functions to serve."""
    signatures = make_signatures(Answers(served, serving), served.image_size, serving)
    module = _Module(served)
    for dtype, trainable in itertools.product((tf.float32, tf.uint8), (False, True)):
        images = tf.TensorSpec([None, served.image_size, served.image_size, 3], dtype, name="images")
        module.__call__.get_concrete_function(images, trainable=trainable)
    return module, signatures

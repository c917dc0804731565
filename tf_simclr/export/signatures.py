"""The functions behind the signatures of an export."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr.augment.center import preprocess_for_eval
from tf_simclr.augment.pixels import are_unit
from tf_simclr.data.formats.decode import decode_image
from tf_simclr.data.formats.headers import MAX_PIXELS
from tf_simclr.export.served import Served
from tf_simclr.models.heads import head_outputs

# Batches that may wait for a thread; further requests get UNAVAILABLE, HTTP status 503.
_MAX_WAITING_BATCHES = 100
# Files of a request that are decoded at the same time: a photograph of 12 megapixels takes 0.2 GB meanwhile.
_DECODES_AT_ONCE = 4
# Most images in a request that is split into batches.
_MAX_REQUEST = 1 << 20


@dataclasses.dataclass(frozen=True)
class MicroBatching:
    """How the encoder of an export merges the images of simultaneous requests.

    Attributes:
      max_size: Largest batch; a larger request is split.
      timeout_us: How long a batch waits for more images, in microseconds.
      num_threads: Batches computed at the same time.
    """

    max_size: int
    timeout_us: int = 1000
    num_threads: int = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Serving:
    """How an export serves.

    Attributes:
      normalize: Whether embeddings are scaled to unit length.
      pca: Principal components that reduce an embedding first: their mean, float [F], and axes, float [k, F].
      project: Whether to add a signature for projections.
      class_names: Names of the C outputs of the classifier; by default "0", "1", ...
      max_pixels: Images with more pixels are refused by their header, before memory is allocated for them.
      batch_sizes: Batch sizes that a server is warmed up for, in increasing order. With micro-batching, batches are
        padded to the next of them.
      micro_batching: Whether and how requests share batches of the encoder.
    """

    normalize: bool = False
    pca: tuple[np.ndarray, np.ndarray] | None = None
    project: bool = False
    class_names: Sequence[str] | None = None
    max_pixels: int = MAX_PIXELS
    batch_sizes: tuple[int, ...] = (1, 8)
    micro_batching: MicroBatching | None = None

    @property
    def is_raw(self) -> bool:
        """Whether embeddings are the features of the encoder themselves."""
        return self.pca is None and not self.normalize

    def embedding(self, features: tf.Tensor) -> tf.Tensor:
        """Turns features of the encoder, float32 [B, F], into embeddings, [B, F] or, with PCA, [B, k].

        Avoids matrix products and reciprocal square roots, which round the same row differently in another batch.
        """
        if self.pca is not None:
            mean, axes = (tf.constant(value, tf.float32) for value in self.pca)
            features = tf.linalg.matvec(axes, features - mean)
        if self.normalize:
            features /= tf.maximum(tf.norm(features, axis=1, keepdims=True), 1e-12)
        return features


class Answers:
    """The answers of an export to images, in float32 and in inference mode.

    Args:
      served: The parts of the model.
      serving: How to serve them.
    """

    def __init__(self, served: Served, serving: Serving):
        self._served = served
        self._serving = serving

    def features(self, images: tf.Tensor) -> tf.Tensor:
        """The encoder's features, float32 [B, F], of images, float32 [B, S, S, 3]."""
        return tf.cast(self._served.encoder(images, training=False), tf.float32)

    def embed(self, features: tf.Tensor) -> dict[str, tf.Tensor]:
        """The embedding."""
        return {"embedding": self._serving.embedding(features)}

    def project(self, features: tf.Tensor) -> dict[str, tf.Tensor]:
        """The projection z, float32 [B, D], neither reduced nor scaled."""
        return {"projection": tf.cast(self._hidden(features)[-1], tf.float32)}

    def classify(self, features: tf.Tensor) -> dict[str, tf.Tensor]:
        """Names of the classes, string [B, C], the same in every row, and probabilities, float32 [B, C]."""
        classifier: Any = self._served.classifier  # never None: `of_bytes` offers this only with one
        logits = classifier(self._hidden(features)[self._served.classifier_layer], training=False)
        scores = tf.nn.softmax(tf.cast(logits, tf.float32))
        names = self._serving.class_names
        names = [str(index) for index in range(scores.shape[1])] if names is None else list(names)
        if len(names) != scores.shape[1]:
            raise ValueError(f"class_names must name all {scores.shape[1]} classes of the model. Received: {names}")
        return {"classes": tf.tile(tf.constant([names]), [tf.shape(scores)[0], 1]), "scores": scores}

    def of_bytes(self) -> dict[str, Callable[[tf.Tensor], dict[str, tf.Tensor]]]:
        """The answers to image files, by the name of the signature."""
        answers: dict[str, Callable[[tf.Tensor], dict[str, tf.Tensor]]] = {"serving_default": self.embed}
        if self._served.classifier is not None:
            answers["classify"] = self.classify
        if self._serving.project:
            if self._served.projection_head is None:
                raise ValueError("Serving(project=True) needs a model with a projection_head. Received: None")
            answers["project"] = self.project
        return answers

    def _hidden(self, features: tf.Tensor) -> list[tf.Tensor]:
        """The features, then the output of every layer of the projection head."""
        return head_outputs(self._served.projection_head, features, training=False)


def make_signatures(answers: Answers, image_size: int, serving: Serving) -> dict[str, Any]:
    """The functions to serve, by the names of their signatures; `export_encoder` documents their inputs and outputs.

    Args:
      answers: Computes the answers.
      image_size: S in pixels.
      serving: How to serve them.

    Raises:
      ValueError: If the encoder does not return [B, F], or `serving` asks for a part that the model lacks.
    """
    float_images = tf.TensorSpec([None, image_size, image_size, 3], tf.float32, name="images")
    byte_images = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
    files = tf.TensorSpec([None], tf.string, name="image_bytes")

    @tf.function(input_signature=[files])
    def decode(image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return decode_batch(_checked(image_bytes, files), image_size, serving.max_pixels)

    # All signatures call this one function, so that the encoder is traced and saved once; likewise for `decode`.
    compute = tf.function(answers.features, input_signature=[float_images])
    shape = compute.get_concrete_function().outputs[0].shape
    if shape.rank != 2 or shape[1] is None:
        raise ValueError(f"The encoder must map images to features [B, F]. Received: shape {shape}")
    features: Callable[[tf.Tensor], tf.Tensor] = compute
    if serving.micro_batching is not None:
        features = _in_shared_batches(compute, shape[1], serving.batch_sizes, serving.micro_batching)

    @tf.function(input_signature=[float_images])
    def encode(images: tf.Tensor) -> dict[str, tf.Tensor]:
        # Never in shared batches, because no converter supports them.
        return answers.embed(compute(in_unit_range(_checked(images, float_images))))

    @tf.function(input_signature=[byte_images])
    def pixels(images: tf.Tensor) -> dict[str, tf.Tensor]:
        images = _of_few_pixels(_checked(images, byte_images), serving.max_pixels)
        return answers.embed(features(preprocess_for_eval(images, image_size)))

    def answer_bytes(answer: Callable[[tf.Tensor], dict[str, tf.Tensor]]) -> Any:
        @tf.function(input_signature=[files])
        def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            images, valid = decode(image_bytes)
            return _blank(answer(features(images)), valid) | {"valid": valid}

        return serve

    of_bytes = {name: answer_bytes(answer) for name, answer in answers.of_bytes().items()}
    return of_bytes | {"pixels": pixels, "encode": encode}


def _blank(outputs: dict[str, tf.Tensor], valid: tf.Tensor) -> dict[str, tf.Tensor]:
    """The outputs, with zeros in place of the numbers in rows that are not valid."""
    return {
        name: tf.where(valid[:, None], value, tf.zeros_like(value)) if value.dtype == tf.float32 else value
        for name, value in outputs.items()
    }


def _checked(tensor: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """The tensor, or an error if its shape is wrong.

    A server does not check the shapes of a request, and some operations crash the process if they are wrong.
    """
    return tf.ensure_shape(tensor, spec.shape)


def _of_few_pixels(images: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """The images, [B, H, W, 3], or an error if they are too large."""
    height, width = tf.unstack(tf.shape(images, tf.int64)[1:3])
    message = f"Images must have at most {max_pixels} pixels each. Received: images of height and width"
    with tf.control_dependencies([tf.debugging.Assert(height * width <= max_pixels, [message, height, width])]):
        return tf.identity(images)


def in_unit_range(images: tf.Tensor) -> tf.Tensor:
    """The images, floats, or an error if a value is outside [0, 1], up to rounding, or not a number.

    TensorFlow silently turns NumPy arrays of other types, such as pixels of 0 to 255, into the floats of a signature.
    Converters to other formats drop the check.
    """
    low, high = tf.reduce_min(images), tf.reduce_max(images)
    message = "Images must be floats in [0, 1], or pixels as uint8 given to the signature `pixels`. Received: values of"
    with tf.control_dependencies([tf.debugging.Assert(are_unit(low, high), [message, low, "to", high])]):
        return tf.identity(images)


def _in_shared_batches(
    compute: Any, num_features: int, sizes: Sequence[int], batching: MicroBatching
) -> Callable[[tf.Tensor], tf.Tensor]:
    """The same function, merging the images of simultaneous calls."""
    smaller = [size for size in sizes if size < batching.max_size]
    merge = tf.nondifferentiable_batch_function(
        num_batch_threads=batching.num_threads,
        max_batch_size=_MAX_REQUEST,
        batch_timeout_micros=batching.timeout_us,
        allowed_batch_sizes=[*smaller, batching.max_size],
        max_enqueued_batches=_MAX_WAITING_BATCHES,
    )
    merged = merge(compute)
    # Without images, the result has no second axis.
    return lambda images: tf.reshape(merged(images), [-1, num_features])


def decode_batch(image_bytes: tf.Tensor, image_size: int, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and preprocesses image files, string [B]; a broken one does not fail the others.

    Returns:
      images: float32 [B, S, S, 3]; zeros for files that are not valid.
      valid: bool [B]. False for files that cannot be decoded, and for single pixels, which pages use to count visits.
    """
    shape = [image_size, image_size, 3]
    count = tf.size(image_bytes, out_type=tf.int64)

    def decode(index: tf.Tensor, encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = decode_image(encoded, max_pixels)
        with tf.control_dependencies([tf.Assert(tf.size(image) > 3, ["a single pixel"])]):
            return index, tf.ensure_shape(preprocess_for_eval(image, image_size), shape)

    decoded = (
        tf.data.Dataset.from_tensor_slices(image_bytes)
        .enumerate()
        .map(decode, num_parallel_calls=_DECODES_AT_ONCE)
        .ignore_errors()
    )
    # An extra last row ensures a batch even if no image is valid; it is cut off again.
    sentinel = tf.data.Dataset.from_tensors((count, tf.zeros(shape)))
    indices, images = decoded.concatenate(sentinel).batch(count + 1).get_single_element()
    indices = indices[:, None]
    images = tf.scatter_nd(indices, images, tf.stack([count + 1, *shape]))[:-1]
    valid = tf.scatter_nd(indices, tf.ones_like(indices[:, 0], tf.bool), [count + 1])[:-1]
    return tf.ensure_shape(images, [None, *shape]), valid

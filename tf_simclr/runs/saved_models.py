"""A SavedModel of any origin as an encoder: which of its functions maps images to vectors, and what it takes."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from tf_simclr import files
from tf_simclr.runs.saved_outputs import (
    Place,
    are_probabilities,
    choose_logits,
    choose_representations,
    outputs_of,
    to_logits,
)

# The function of the object itself, beside the signatures.
CALL = "__call__"
# What an export of this package says about itself.
CARD = "model_card.json"
_CHUNK_BYTES = 1 << 24


@dataclasses.dataclass(frozen=True, eq=False)
class SavedEncoder:
    """A function of a SavedModel that maps images to representations.

    Attributes:
      function: Its name: a signature's, or `CALL`.
      output: The name of the output that is taken.
      takes: What it takes, in words.
      image_size: Side S in pixels of its images; None if `encode` takes PNG files.
      encode: From images float32 [b, S, S, 3] in [0, 1], or PNG files string [b], to representations float32 [b, F].
    """

    function: str
    output: str
    takes: str
    image_size: int | None
    encode: Callable[[tf.Tensor], tf.Tensor]


class _Function(NamedTuple):
    """A function of one tensor."""

    name: str
    spec: tf.TensorSpec
    call: Callable[[tf.Tensor], Any]


class _Input(NamedTuple):
    """How a function is fed: `prepare` makes its input of one image or of a batch of images."""

    takes: str
    image_size: int | None
    is_single: bool
    prepare: Callable[[tf.Tensor], tf.Tensor]


def is_saved_model(path: str) -> bool:
    """Whether a folder holds a SavedModel."""
    return tf.io.gfile.exists(os.fsencode(os.path.join(path, "saved_model.pb")))


def digest(path: str) -> str:
    """The digest of the model: of its graph, its variables and its assets."""
    root = files.for_tensorflow(path)
    found = [os.path.join(root, "saved_model.pb")]
    for part in ("variables", "assets"):
        for folder, _, names in tf.io.gfile.walk(os.path.join(root, part)):
            found += [os.path.join(folder, name) for name in names]
    return files.digest(
        "\n".join(f"{os.path.relpath(one, root)} {_digest_of_file(one)}" for one in sorted(found)).encode()
    )


def _digest_of_file(path: str) -> str:
    """The digest of the digests of a file's parts, which are never all in memory."""
    parts = []
    with tf.io.gfile.GFile(path, "rb") as file:
        while part := file.read(_CHUNK_BYTES):
            parts.append(files.digest(part))
    return files.digest("".join(parts).encode())


def open_encoder(place: Place, image_size: int) -> SavedEncoder:
    """Loads a SavedModel, finds the function, tries it on two images and finds the output.

    Takes the signature "serving_default", or the only one, or, in a model without signatures, the object's
    `__call__`; its only input must be image files (string) or pixels (uint8, or float in [0, 1], [B, H, W, 3]). Takes
    the output that `choose_representations` chooses; floats [B, h, w, F] are averaged over h and w. A function of one
    image at a time is called for every image.

    Args:
      place: The model, and the names of the function and of the output if there are several.
      image_size: Side S in pixels of the images, if the function leaves it open.

    Raises:
      ValueError: If it cannot be loaded or has no such function or output; the error lists what it has.
    """
    return _open(_load(place.path), place, image_size, choose_representations)


def open_teacher(place: Place, image_size: int, *, of_classes: bool) -> SavedEncoder:
    """Loads a SavedModel as a teacher, whose `encode` gives logits [b, C] or representations [b, F].

    Without the name of a function, takes the first that fits of the object's `__call__`, which usually takes pixels,
    and the signatures "classify", "serving_default" and "default"; or the only one. Where an output is of
    probabilities, `encode` gives their logarithms.

    Args:
      place: The model, and the names of the function and of the output if there are several.
      image_size: Side S in pixels of the images, if the function leaves it open.
      of_classes: Whether logits are asked for.

    Raises:
      ValueError: If it cannot be loaded or has no such function or output.
    """
    loaded = _load(place.path)
    choose = choose_logits if of_classes else choose_representations
    for name in (CALL, "classify", "serving_default", "default") if place.function is None else ():
        with contextlib.suppress(ValueError):
            return _open(loaded, place._replace(function=name), image_size, choose)
    return _open(loaded, place, image_size, choose)


def _open(loaded: Any, place: Place, image_size: int, choose: Callable[..., str]) -> SavedEncoder:
    """Finds the function of a loaded model, tries it on two images and finds the output."""
    function = _choose_function(loaded, place)
    fed = _input_of(function, image_size, place.path)
    images = _trial_images(fed, image_size)
    given = images[0] if fed.is_single else images
    try:
        outputs = on_one_replica(lambda given: outputs_of(function.call(given)), fed.prepare(given))
    except (tf.errors.OpError, ValueError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"The function {function.name} of a SavedModel fails on images ({reason}). "
                         f"Received: {place.path}") from None  # fmt: skip
    output = choose(outputs, len(images), function.name, place)
    of_probabilities = choose is choose_logits and are_probabilities(outputs[output].numpy())

    def encode_once(images: tf.Tensor) -> tf.Tensor:
        found = tf.cast(outputs_of(function.call(fed.prepare(images)))[output], tf.float32)
        found = to_logits(found, of_probabilities)
        return tf.reduce_mean(found, axis=[1, 2]) if found.shape.rank == 4 else found

    def encode(images: tf.Tensor) -> tf.Tensor:
        if not fed.is_single:
            return encode_once(images)
        return tf.map_fn(lambda image: encode_once(image)[0], images, fn_output_signature=tf.float32)

    return SavedEncoder(function.name, output, fed.takes, fed.image_size, encode)


def on_one_replica(function: Callable[..., Any], *arguments: tf.Tensor) -> Any:
    """What a function returns on the first replica; under a strategy, a SavedModel runs on replicas alone."""
    strategy = tf.distribute.get_strategy()
    found = strategy.run(function, arguments)
    return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], found)


def _trial_images(fed: _Input, image_size: int) -> tf.Tensor:
    """Two images, or one, as a function takes them."""
    trial = np.random.default_rng(0).integers(0, 256, [2, image_size, image_size, 3], np.uint8)
    if fed.image_size is None:
        images = tf.map_fn(tf.io.encode_png, tf.constant(trial), fn_output_signature=tf.string)
    else:
        images = tf.image.resize(trial / np.float32(255), [fed.image_size, fed.image_size])
    return images[:1] if fed.is_single else images


def _load(path: str) -> Any:
    """The object of a SavedModel; that for serving if it has several graphs."""
    graph = saved_model_pb2.SavedModel()
    try:
        with tf.io.gfile.GFile(os.path.join(files.for_tensorflow(path), "saved_model.pb"), "rb") as file:
            graph.ParseFromString(file.read())
        tags = [list(one.meta_info_def.tags) for one in graph.meta_graphs]
        serving = next((each for each in tags if "serve" in each), next((each for each in tags if not each), None))
        return tf.saved_model.load(files.for_tensorflow(path), serving)
    except (DecodeError, tf.errors.OpError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueError(f"TensorFlow cannot load a SavedModel ({reason}). Received: {path}") from None


def _choose_function(loaded: Any, place: Place) -> _Function:
    """The function that a place names, or the one that is meant."""
    signatures = {name: found for name, found in loaded.signatures.items() if not name.startswith("__")}
    calls = list(_calls(loaded))
    names = [*signatures, *([CALL] if calls else [])]
    listed = f"name one of them as {place.path}#NAME, of {', '.join(names)}"
    if not names:
        raise ValueError(
            "A SavedModel must have a signature, or be callable, to be evaluated: export it with one. "
            f"Received: {place.path}"
        )
    wanted = place.function or next((name for name in ("serving_default", "default") if name in signatures), None)
    if wanted is None and len(signatures) > 1:
        raise ValueError(f"A SavedModel has several signatures and no serving_default: {listed}. "
                         f"Received: {place.path}")  # fmt: skip
    wanted = wanted or names[0]
    if wanted not in names:
        raise ValueError(f"A SavedModel has no signature {wanted}: {listed}. Received: {place.path}")
    if wanted == CALL:
        return calls[0]
    inputs = signatures[wanted].structured_input_signature[1]
    if len(inputs) != 1:
        raise ValueError(
            f"The signature {wanted} of a SavedModel takes {len(inputs)} inputs, not images alone: {listed}. "
            f"Received: {place.path}"
        )
    ((name, spec),) = inputs.items()
    # Not the signature alone: the variables live as long as the object.
    return _Function(wanted, spec, lambda images: loaded.signatures[wanted](**{name: images}))


def _calls(loaded: Any) -> Iterator[_Function]:
    """The traces of `__call__` for one tensor and for no training; floats first."""
    traces = getattr(getattr(loaded, CALL, None), "concrete_functions", ())
    found = []
    for trace in traces:
        arguments = trace.structured_input_signature
        leaves = tf.nest.flatten(arguments)
        specs = [leaf for leaf in leaves if isinstance(leaf, tf.TensorSpec)]
        if len(specs) == 1 and not any(leaf is True for leaf in leaves):
            found.append((arguments, specs[0]))
    for arguments, spec in sorted(found, key=lambda one: not one[1].dtype.is_floating):

        def call(images: tf.Tensor, arguments: Any = arguments) -> Any:
            given = tf.nest.map_structure(lambda leaf: images if isinstance(leaf, tf.TensorSpec) else leaf, arguments)
            return loaded(*given[0], **given[1])

        yield _Function(CALL, spec, call)


def _input_of(function: _Function, image_size: int, path: str) -> _Input:
    """How to feed a function; raises a `ValueError` if it takes no images."""
    spec = function.spec
    shape = [None] * (1 if spec.dtype == tf.string else 4) if spec.shape.rank is None else spec.shape.as_list()
    batch = shape[0] if shape else 1
    sides = {side for side in shape[1:3] if side is not None}
    is_file = spec.dtype == tf.string and len(shape) <= 1
    is_pixels = (spec.dtype == tf.uint8 or spec.dtype.is_floating) and len(shape) == 4 and shape[3] in (None, 3)
    if not (is_file or is_pixels) or batch not in (None, 1) or len(sides) > 1:
        raise ValueError(
            f"The function {function.name} of a SavedModel must take image files, string [B], or square images, uint8 "
            "or float [B, H, W, 3], of any number or one at a time. "
            f"Received: {path}, which takes {spec.dtype.name} {'of any shape' if spec.shape.rank is None else shape}"
        )
    is_single = batch == 1
    if is_file:
        as_given = (lambda file: tf.reshape(file, shape)) if is_single else (lambda files: files)
        return _Input("image files, given the pixels as PNG", None, is_single, as_given)
    if spec.dtype == tf.uint8 and not sides and tf.io.gfile.exists(os.path.join(path, CARD)):
        # An export of this package crops and resizes by itself, so it gets the images as they are, one by one.
        return _Input("uint8 images of any size", None, True, lambda file: tf.io.decode_png(file, 3)[tf.newaxis])
    size = next(iter(sides), image_size)
    is_levels = spec.dtype == tf.uint8

    def prepare(images: tf.Tensor) -> tf.Tensor:
        scaled = tf.round(images * 255) if is_levels else images
        return tf.cast(scaled[tf.newaxis] if is_single else scaled, spec.dtype)

    takes = f"{spec.dtype.name} images in [0, {255 if is_levels else 1}]"
    return _Input(takes, size, is_single, prepare)

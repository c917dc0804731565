"""What `fit` and its siblings take, looked at before the first step and outside of it."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr.augment import pixels
from tf_simclr.keras import check_is_ours

CheckSpec = Callable[[tf.TensorSpec], None]

# With its values, `pixels.check_range` says this in a graph.
_OUT_OF_RANGE = re.compile(re.escape(pixels.OUT_OF_RANGE) + r"\] \[(\S+)\] \[([^\]\s]+)\]")

# What Keras looks up in class_weight.
_NO_CLASS = re.compile(r"indices\[\d+\] = (-?\d+) is not in")


def checking_inputs(method: Callable[..., Any], *, is_prediction: bool = False) -> Callable[..., Any]:
    """A method of `keras.Model`, such as `fit`, that looks at its images first.

    The model's `check_spec` says which shapes and dtypes it takes. Float images must be in [0, 1], which is looked at
    outside of the step: in arrays at once, in datasets while they make their batches. uint8 images cost nothing.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "_use_cached_eval_dataset" in kwargs:  # `fit` calls `evaluate`, and has looked at its data.
            return method(self, *args, **kwargs)
        call = signature.bind(self, *args, **kwargs)
        given = call.arguments
        given["x"] = _checked(given.get("x"), functools.partial(self.check_spec, is_prediction=is_prediction))
        if given.get("validation_data") is not None:
            images, *others = _as_tuple(given["validation_data"])
            # As a tuple, because Keras asks for its truth value, which arrays do not have.
            given["validation_data"] = (_checked(images, self.check_spec), *others)
        if given.get("class_weight") and not _has_labels(given["x"], given.get("y")):
            raise ValueError("class_weight weighs classes, so it needs labels. Received: images alone")
        callbacks = given.get("callbacks") or []
        check_is_ours("A callback", *(callbacks if isinstance(callbacks, list | tuple) else [callbacks]))
        try:
            return method(*call.args, **call.kwargs)
        except tf.errors.InvalidArgumentError as error:
            if found := _OUT_OF_RANGE.search(error.message):
                raise ValueError(pixels.out_of_range(*found.groups())) from None
            if given.get("class_weight") and (found := _NO_CLASS.search(error.message)):
                raise ValueError(
                    "class_weight must have a weight for every label, and there is none for unknown labels of -1: give "
                    f"sample_weight in its place. Received: a label of {found[1]}"
                ) from None
            raise

    return checked


def _checked(data: Any, check_spec: CheckSpec) -> Any:
    """The same data; a dataset of floats looks at every batch that it makes."""
    if isinstance(data, tf.distribute.DistributedDataset):
        return data  # Its batches are on their devices already: the step looks at them.
    if isinstance(data, tf.data.Dataset):
        spec = _images_of(_as_tuple(data.element_spec)[0])
        _check_spec_of(spec, check_spec)
        return data if spec.dtype == tf.uint8 else data.map(_look, num_parallel_calls=tf.data.AUTOTUNE)
    images = _images_of(data)
    if not isinstance(images, np.ndarray | tf.Tensor):
        raise ValueError(
            "Images must be an array or a tensor, uint8 or float in [0, 1], [N, H, W, 3], or a tf.data.Dataset of "
            "batches of images, of (images, labels) or of (images, labels, weights): join a list by np.stack, and make "
            "a dataset of a generator or a Sequence by tf.data.Dataset.from_generator, with an output_signature that "
            f"states H and W. Received: {type(images).__module__}.{type(images).__qualname__}"
        )
    _check_spec_of(tf.TensorSpec(images.shape, images.dtype), check_spec)
    pixels.check_range(images)
    return data


def _look(*element: Any) -> Any:
    """Checks the images of an element of a dataset, and returns it as it is."""
    pixels.check_range(_images_of(element[0]))
    return element if len(element) > 1 else element[0]


def _as_tuple(data: Any) -> tuple[Any, ...]:
    """The images, and labels and weights if there are any."""
    parts = tuple(data) if isinstance(data, list | tuple) else (data,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            "A batch must be images, (images, labels) or (images, labels, weights): map others to one of these. "
            f"Received: {len(parts)} parts"
        )
    return parts


def _images_of(part: Any) -> Any:
    """The images of what Keras calls x, which may be {"images", "keys"}."""
    if not isinstance(part, dict):
        return part
    if part.keys() != {"images", "keys"}:
        raise ValueError(
            "A batch must be images, (images, labels), or these with {'images', 'keys'} for the images: map a dataset "
            "of other dictionaries, as in dataset.map(lambda row: (row['image'], row['label'])). "
            f"Received: a dictionary of {', '.join(map(str, part))}"
        )
    return part["images"]


def _check_spec_of(spec: Any, check_spec: CheckSpec) -> None:
    if not isinstance(spec, tf.TensorSpec):
        raise ValueError(
            "A batch must hold its images in one tensor: resize or crop them to one size, then batch them. "
            f"Received: {type(spec).__name__}"
        )
    check_spec(spec)


def _has_labels(data: Any, labels: Any) -> bool:
    if isinstance(data, tf.data.Dataset):
        return isinstance(data.element_spec, tuple) and len(data.element_spec) > 1
    return labels is not None

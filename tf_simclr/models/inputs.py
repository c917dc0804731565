"""What `fit` and its siblings take, looked at before the first step and outside of it."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr.augment import pixels
from tf_simclr.keras import check_is_ours, keras
from tf_simclr.metrics import classification

CheckSpec = Callable[..., None]

# With its values, `pixels.check_range` says this in a graph.
_OUT_OF_RANGE = re.compile(re.escape(pixels.OUT_OF_RANGE) + r"\] \[(\S+)\] \[([^\]\s]+)\]")

# What TensorFlow says of a label, on CPUs.
_WRONG_LABEL = re.compile(r"Received a label value of (-?\d+) which is outside the valid range of \[0, (\d+)\)")

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
        if not is_prediction:
            weights = (given.get("sample_weight"), given.get("class_weight"))
            _check_labels(self, given["x"], given.get("y"), *weights)
        if given.get("validation_data") is not None:
            images, *others = _as_tuple(given["validation_data"])
            # As a tuple, because Keras asks for its truth value, which arrays do not have.
            given["validation_data"] = (_checked(images, self.check_spec), *others)
            _check_labels(self, *given["validation_data"])
        callbacks = given.get("callbacks") or []
        check_is_ours("A callback", *(callbacks if isinstance(callbacks, list | tuple) else [callbacks]))
        try:
            return method(*call.args, **call.kwargs)
        except tf.errors.InvalidArgumentError as error:
            if found := _OUT_OF_RANGE.search(error.message):
                raise ValueError(pixels.out_of_range(*found.groups())) from None
            if found := _WRONG_LABEL.search(error.message):
                raise ValueError(classification.wrong_label(*found.groups())) from None
            if given.get("class_weight") and (found := _NO_CLASS.search(error.message)):
                raise ValueError(
                    "class_weight must have a weight for every label, and there is none for unknown labels of -1: give "
                    f"sample_weight in its place. Received: a label of {found[1]}"
                ) from None
            raise
        finally:
            if "validation_data" in signature.parameters:
                self._eval_data_handler = None  # Keras would validate the next `fit` on the data of one that failed.

    return checked


def _checked(data: Any, check_spec: CheckSpec) -> Any:
    """The same data; a dataset of floats looks at every batch that it makes."""
    if isinstance(data, tf.distribute.DistributedDataset):
        return data  # Its batches are on their devices already: the step looks at them.
    if isinstance(data, tf.data.Dataset):
        spec = _images_of(_as_tuple(data.element_spec)[0])
        _check_spec_of(spec, check_spec, _small_of(_as_tuple(data.element_spec)[0]))
        return data if spec.dtype == tf.uint8 else data.map(_look, num_parallel_calls=tf.data.AUTOTUNE)
    images = _images_of(data)
    if not isinstance(images, np.ndarray | tf.Tensor):
        raise ValueError(
            "Images must be an array or a tensor, uint8 or float in [0, 1], [N, H, W, 3], or a tf.data.Dataset of "
            "batches of images, of (images, labels) or of (images, labels, weights): join a list by np.stack, and make "
            "a dataset of a generator or a Sequence by tf.data.Dataset.from_generator, with an output_signature that "
            f"states H and W. Received: {type(images).__module__}.{type(images).__qualname__}"
        )
    small = _small_of(data)
    small_spec = None if small is None else tf.TensorSpec(small.shape, small.dtype)
    _check_spec_of(tf.TensorSpec(images.shape, images.dtype), check_spec, small_spec)
    _check_ranges(data)
    return data


def _look(*element: Any) -> Any:
    """Checks the images of an element of a dataset, and returns it as it is."""
    _check_ranges(element[0])
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


def _check_ranges(part: Any) -> None:
    """Checks the values of the images, and of the small ones if there are any."""
    pixels.check_range(_images_of(part))
    if (small := _small_of(part)) is not None:
        pixels.check_range(small)


def _small_of(part: Any) -> Any:
    """The crops for small views, which may be in a dictionary with the images; `None` where they are not."""
    return part.get("small_images") if isinstance(part, dict) else None


def _images_of(part: Any) -> Any:
    """The images of what Keras calls x, which may be {"images", "keys"}, and "small_images" in some models."""
    if not isinstance(part, dict):
        return part
    if part.keys() - {"small_images"} != {"images", "keys"}:
        raise ValueError(
            "A batch must be images, (images, labels), or these with {'images', 'keys'} for the images: map a dataset "
            "of other dictionaries, as in dataset.map(lambda row: (row['image'], row['label'])). "
            f"Received: a dictionary of {', '.join(map(str, part))}"
        )
    return part["images"]


def _check_spec_of(spec: Any, check_spec: CheckSpec, small_spec: tf.TensorSpec | None = None) -> None:
    if not isinstance(spec, tf.TensorSpec):
        raise ValueError(
            "A batch must hold its images in one tensor: resize or crop them to one size, then batch them. "
            f"Received: {type(spec).__name__}"
        )
    check_spec(spec, small_images=small_spec)


def _check_labels(model: Any, data: Any, labels: Any = None, weights: Any = None, class_weight: Any = None) -> None:
    """Raises a `ValueError` unless a model can use the labels and weights of some images.

    Arrays are looked at as a whole, and datasets by their `element_spec`.
    """
    if isinstance(data, tf.distribute.DistributedDataset):
        return
    is_dataset = isinstance(data, tf.data.Dataset)
    if is_dataset:
        _, labels, weights = keras.utils.unpack_x_y_sample_weight(data.element_spec)
    if class_weight is not None and not isinstance(class_weight, dict):
        raise ValueError(
            "class_weight must be a dictionary of every class and its weight, such as {0: 0.5, 1: 2.0}. "
            f"Received: {type(class_weight).__qualname__}"
        )
    if class_weight and labels is None:
        raise ValueError("class_weight weighs classes, so it needs labels. Received: images alone")
    num_classes = model.num_classes
    if class_weight or weights is not None:
        check_has_classes(num_classes)
    if not model.compares_labels and (num_classes is None or (labels is None and not model.needs_labels)):
        return  # Nobody reads the labels.
    if labels is None and model.compares_labels:
        raise ValueError(
            f"The loss {type(model.view_loss).__name__} compares images by their classes: give batches of (images, "
            "labels), with -1 where the class is not known, or choose another loss. Received: images alone"
        )
    if labels is None or is_dataset:
        classification.check_labels_spec(labels)
        if labels.dtype.is_floating:
            raise ValueError(f"Labels of a dataset must be integers: cast them by map. Received: {labels.dtype.name}")
        return
    classification.check_labels(np.asarray(labels), model.num_classes)
    if weights is not None and not np.all(is_finite := np.isfinite(weights)):
        raise ValueError(f"sample_weight must be finite. Received: {np.asarray(weights)[~is_finite][0]}")


def check_has_classes(num_classes: int | None) -> None:
    """Raises a `ValueError` if a model with weights of labels has no classes."""
    if num_classes is None:
        raise ValueError(
            "class_weight and sample_weight weigh the loss of the online classifier, and images in the contrastive "
            "loss have no weights: leave them out, or make the model with an online_classifier. Received: weights"
        )

"""Files of weights: whether they are those of a model, before one of them is loaded."""

import io
import os
import pathlib
import tempfile
import zipfile
from typing import Any

import h5py
import tensorflow as tf

from tf_simclr.keras import keras

Shapes = dict[Any, tuple[int, ...]]

# What Keras saves beside the weights.
_BESIDE = ("optimizer", "metrics", "_trackers", "keras_api", "save_counter", "_CHECKPOINTABLE_OBJECT_GRAPH")


def check_weights_file(model: keras.Model, filepath: Any) -> None:
    """Checks that a file has a value for every weight of a model and no others.

    Keras itself loads what fits: it leaves weights out without a word, or stops half-way.

    Args:
      model: The model, with all its weights.
      filepath: A file of `save_weights`, in any of its formats, or of `save`; Keras reports a missing one.

    Raises:
      ValueError: If the weights are those of another model.
    """
    file = os.fspath(filepath)
    is_saved_model = tf.saved_model.contains_saved_model(file)
    if is_saved_model:
        file = f"{file}/{tf.saved_model.VARIABLES_DIRECTORY}/{tf.saved_model.VARIABLES_FILENAME}"
    found = _shapes(file)
    if found is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        # The format follows from the suffix.
        own = f"{folder}/own{_suffix(file)}"
        keras.Model.save_weights(model, own)
        expected = _shapes(own) or {}
    if is_saved_model:  # It has other names, and scalars beside the weights.
        expected, found = (dict(enumerate(sorted(filter(None, each.values())))) for each in (expected, found))
    different = [key for key in sorted({**expected, **found}) if expected.get(key) != found.get(key)]
    if different:
        first = different[0]
        raise ValueError(
            "The file has the weights of another model, so none of them was loaded: make the model that it was saved "
            f"from. Received: {filepath}, where {len(different)} of the weights differ, such as {first}: "
            f"{found.get(first, 'missing')} in the file, {expected.get(first, 'missing')} in the model"
        )


def _suffix(file: str) -> str:
    """The suffix by which `save_weights` chooses the format of a file."""
    if os.path.isfile(f"{file}.index") or not os.path.isfile(file):
        return ""
    return ".weights.h5" if file.endswith((".weights.h5", ".keras")) else ".h5"


def _shapes(file: str) -> Shapes | None:
    """The shapes of the weights in a file by what they are called there, or `None` if it is no file of weights."""
    if os.path.isfile(f"{file}.index"):
        return _without_others({name: tuple(shape) for name, shape in tf.train.list_variables(file)})
    if not os.path.isfile(file):
        return None
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return _shapes_in(io.BytesIO(archive.read("model.weights.h5")))
    return _shapes_in(pathlib.Path(file)) if h5py.is_hdf5(file) else None


def _shapes_in(file: Any) -> Shapes:
    with h5py.File(file, "r") as content:
        root = content.get("model_weights", content)
        if "layer_names" not in root.attrs:
            shapes: Shapes = {}
            root.visititems(lambda name, item: shapes.update({name: item.shape} if hasattr(item, "shape") else {}))
            return _without_others(shapes)
        # Keras' older format, which is loaded in order, whatever the names.
        groups = [root[name] for name in root.attrs["layer_names"]]
        weights = [[group[name].shape for name in group.attrs["weight_names"]] for group in groups]
        numbered = enumerate(shapes for shapes in weights if shapes)
        return {f"{layer}/{index}": shape for layer, shapes in numbered for index, shape in enumerate(shapes)}


def _without_others(shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if name.partition("/")[0] not in _BESIDE}

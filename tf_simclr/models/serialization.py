"""The configs of models, for `get_config` and `from_config`: plain values that JSON can represent."""

import dataclasses
import re
from typing import Any

from tf_simclr import augment, losses
from tf_simclr.keras import keras


def serialize(part: Any) -> Any:
    """The config of a part of a model, without weights.

    Args:
      part: A Keras layer or model with a `get_config`, a frozen dataclass of `tf_simclr.losses` or
        `tf_simclr.augment`, a number, string or None, or a tuple of these.

    Raises:
      NotImplementedError: If the part is none of these.
    """
    if isinstance(part, bool | int | float | str | None):
        return part
    if isinstance(part, tuple | list):
        return [serialize(item) for item in part]
    if dataclasses.is_dataclass(part) and _class_named(type(part).__name__) is type(part):
        fields = {field.name: serialize(getattr(part, field.name)) for field in dataclasses.fields(part)}
        return {"dataclass": type(part).__name__, "fields": fields}
    # Keras also serializes a subclassed model, but leaves out its arguments.
    if isinstance(part, keras.layers.Layer) and type(part).get_config is not keras.Model.get_config:
        try:
            return _without_build_configs(keras.saving.serialize_keras_object(part))
        except NotImplementedError:
            pass
    raise NotImplementedError(
        "A model has a config only if all its parts have one: give this class a get_config, or rebuild the model in "
        f"Python. Received: {type(part).__name__}"
    )


def deserialize(config: Any) -> Any:
    """Makes the part of a model from the config that `serialize` returned.

    Raises:
      ValueError: If a class is unknown to this package or to Keras.
    """
    if isinstance(config, list):
        return tuple(deserialize(item) for item in config)
    if not isinstance(config, dict):
        return config
    if "dataclass" not in config:
        return keras.saving.deserialize_keras_object(config)
    found = _class_named(config["dataclass"])
    if found is None:
        raise ValueError(f"The config names a class that tf_simclr does not have. Received: {config['dataclass']}")
    return found(**{name: deserialize(value) for name, value in config["fields"].items()})


def check_config(model: keras.Model) -> None:
    """Checks that a model can be made again from its config, which a saved one is loaded by.

    Raises:
      NotImplementedError: If a part of the model has no config.
      ValueError: If a part is not made again, or has other weights or penalties then.
    """
    config, compiled = model.get_config(), model.get_compile_config()
    try:
        again = type(model).from_config(config)
        keras.saving.deserialize_keras_object(compiled)
        shapes, found = ([tuple(weight.shape) for weight in each.weights] for each in (model, again))
        if shapes != found:
            raise ValueError(f"{len(shapes)} weights are made again as {len(found)} or of other shapes")
        penalties, found_again = map(_num_penalties, (model, again))
        if penalties != found_again:
            raise ValueError(f"{penalties} penalties on weights are made again as {found_again}")
    except Exception as error:  # The configs are any classes' own.
        reason = re.split(r"[.:]?\s", str(error).strip(), maxsplit=12)[:12]
        raise ValueError(
            "A model is saved only if it can be loaded again: give the classes of all its parts a get_config with all "
            "of their arguments and the decorator keras.saving.register_keras_serializable, and make a Lambda a layer "
            f"of your own. Received: {type(error).__name__}: {' '.join(reason)} ..."
        ) from error


def _num_penalties(model: keras.Model) -> int:
    """How many losses of weights a model has, whatever its outputs add to them."""
    return sum(len(layer._callable_losses) for layer in model._flatten_layers())


def _class_named(name: str) -> type | None:
    """The public dataclass of this name in the losses or the augmentation, or None."""
    found = (vars(losses) | vars(augment)).get(name)
    return found if isinstance(found, type) and dataclasses.is_dataclass(found) else None


def _without_build_configs(config: Any) -> Any:
    """Drops build configs, so that layers are built where they are used, not by Keras earlier under other names."""
    if isinstance(config, dict):
        return {name: _without_build_configs(value) for name, value in config.items() if name != "build_config"}
    if isinstance(config, tuple | list):
        return [_without_build_configs(item) for item in config]
    return config

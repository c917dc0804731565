"""Encoders of the user's own: `--encoder=MODULE:FUNCTION`."""

import importlib
import importlib.util
import inspect
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from tf_simclr import devices, files
from tf_simclr.keras import check_is_ours, keras
from tf_simclr.models.foreign import penalize, under_policy
from tf_simclr.settings import SETTINGS, RunConfig
from tf_simclr.settings.rules import nearest

_TITLE = SETTINGS["model.encoder"].title


def is_own(name: str) -> bool:
    """Whether the name of an encoder names a function of the user's, as MODULE:FUNCTION."""
    return ":" in name and not name.startswith("keras:")


def build_own(config: RunConfig, *, l2: float = 0.0, **unused: Any) -> keras.Model:
    """Calls the function that `model.encoder` names, with the image size, under the run's precision.

    The size is None if views have another size than the images, so that the encoder takes all.

    Raises:
      ValueError: If there is no such function, or it returns no Keras model from images to [B, F].
    """
    name = config.model.encoder
    function = _function(name)
    sizes = config.input_sizes
    policy, _ = devices.resolve_precision(config.train.precision)
    with under_policy(policy):
        encoder = function(config.data.image_size if len(sizes) == 1 else None)
        _check(encoder, sizes, name)
    penalize(encoder, l2)
    return encoder


def digest_of_code(name: str) -> str | None:
    """The digest of the module that a name of the user's names; None for any other encoder, and without a file."""
    if not is_own(name):
        return None
    path = getattr(_module(name.partition(":")[0], name), "__file__", None)
    return None if path is None else files.digest(pathlib.Path(path).read_bytes())


def _function(name: str) -> Callable[[int | None], Any]:
    """The function that MODULE:FUNCTION names."""
    module_name, _, attribute = name.partition(":")
    module = _module(module_name, name)
    function = getattr(module, attribute, None)
    if function is None:
        hint = nearest(attribute, (one for one in vars(module) if not one.startswith("_")))
        raise ValueError(f"{_TITLE}: the module {module_name} has no {attribute}.{hint} Received: {name}")
    try:
        inspect.signature(function).bind(None)
    except (TypeError, ValueError):
        raise ValueError(
            f"{_TITLE} must name a function of the image size alone, `def {attribute}(image_size)`. Received: {name}"
        ) from None
    return function


def _module(module_name: str, name: str) -> Any:
    """Imports a module, which may lie in the working directory."""
    place = os.getcwd()
    if place not in sys.path:
        sys.path.insert(0, place)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _not_imported(error, name) from error
        raise ValueError(
            f"{_TITLE}: there is no module {module_name}: put it into {place}, where the run starts, or install it. "
            f"Received: {name}"
        ) from None
    except Exception as error:  # A module may raise anything.
        raise _not_imported(error, name) from error


def _not_imported(error: Exception, name: str) -> ValueError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return ValueError(f"{_TITLE}: the module cannot be imported ({reason}). Received: {name}")


def _check(encoder: Any, sizes: set[int], name: str) -> None:
    """Checks what the function has returned, and makes all weights of a model that has not been called."""
    check_is_ours(f"The encoder of --encoder={name}", encoder)
    if not isinstance(encoder, keras.Model):
        raise ValueError(f"{_TITLE} must name a function that returns a Keras model. Received: {name}, which returns "
                         f"{type(encoder).__name__}")  # fmt: skip
    for size in sorted(sizes):
        try:
            shape = encoder(keras.Input([size, size, 3])).shape
        except (ValueError, TypeError, AttributeError) as error:
            reason = " ".join(f"{error}".split())
            raise ValueError(
                f"{_TITLE}: the encoder must take images [B, {size}, {size}, 3] ({reason}). Received: {name}"
            ) from error
        if shape.rank != 2 or shape[1] is None:
            raise ValueError(
                f"{_TITLE}: the encoder must return representations [B, F], such as those of "
                f"GlobalAveragePooling2D. Received: {name}, which returns {list(shape)}"
            )

"""Changes and compares settings by name, and converts them to and from JSON."""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

from tf_simclr.settings.declaration import Setting, flatten
from tf_simclr.settings.rules import nearest
from tf_simclr.settings.run_config import SETTINGS, RunConfig

# Version of the format that `to_dict` returns. Since version 2, `None` means "not set", as 0 and "" did before.
VERSION = 2


def override(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """A copy of the config with settings changed by name.

    Args:
      config: The config to start from.
      changes: New values by name, such as "seed" or "train.epochs". Text is converted to the type of the setting:
        commas separate the items of a list, and "none" stands for `None`.

    Raises:
      ValueError: If a setting does not exist (the error suggests the nearest), or its value has the wrong type.
    """
    values: dict[str, dict[str, Any]] = collections.defaultdict(dict)
    for name, value in (flatten(config) | dict(changes)).items():
        if name not in SETTINGS:
            raise ValueError(f"There is no config field {name}.{nearest(name, SETTINGS)}")
        section, _, field = name.rpartition(".")
        values[section][field] = _convert(SETTINGS[name], value)
    own = values.pop("")
    sections = {section: type(getattr(config, section))(**fields) for section, fields in values.items()}
    return RunConfig(**own, **sections)


def differences(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Settings whose values differ, as {name: (old, new)}."""
    old_flat, new_flat = flatten(old), flatten(new)
    return {name: (old_flat[name], new_flat[name]) for name in old_flat if old_flat[name] != new_flat[name]}


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The config as nested dictionaries that JSON can hold, with the version of the format."""

    def with_lists(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in pairs}

    return {"version": VERSION} | dataclasses.asdict(config, dict_factory=with_lists)


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """The inverse of `to_dict`, also after a round trip through JSON. Callers that read files check the version.

    Raises:
      ValueError: If a setting does not exist or a value has the wrong type.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": inner_value for inner, inner_value in value.items()}
        elif name != "version":
            flat[name] = value
    return override(RunConfig(), flat)


def _convert(setting: Setting, value: Any) -> Any:
    """Converts a value to the type of its setting; parses text from the command line."""
    is_none = value is None or (isinstance(value, str) and value in ("none", "None"))
    if is_none and setting.is_optional:
        return None
    try:
        if not setting.is_list:
            return _convert_item(setting.kind, value)
        if is_none or value == "":
            return ()
        items = value if isinstance(value, (tuple, list)) else [item.strip() for item in str(value).split(",")]
        return tuple(_convert_item(setting.kind, item) for item in items)
    except (KeyError, ValueError, TypeError, OverflowError):
        needed = "comma-separated values of type {}" if setting.is_list else "a value of type {}"
        raise ValueError(f"{setting.title} needs {needed.format(setting.kind.__name__)}. Received: {value}") from None


def _convert_item(kind: type, value: Any) -> Any:
    if value is None or (kind is int and isinstance(value, float) and value != int(value)):
        raise ValueError
    if kind is bool and not isinstance(value, bool):
        return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
    return kind(value)

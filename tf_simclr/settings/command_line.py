"""The command line: flags derived from the settings, and the shorthands of the reference.

A setting whose flag is not given keeps its value from the config file.
"""

import importlib.util
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from absl import flags, logging

from tf_simclr.settings import stages
from tf_simclr.settings.declaration import expand, flatten
from tf_simclr.settings.override import override
from tf_simclr.settings.rules import nearest
from tf_simclr.settings.run_config import SETTINGS, RunConfig, check_name, without_effect

# flag: (what each of its values sets, help). They override the flags of the settings.
SHORTHANDS: dict[str, tuple[dict[Any, dict[str, Any]], str]] = {
    "use_blur": (
        {True: {"augmentation.blur_probability": 0.5}, False: {"augmentation.blur_probability": 0.0}},
        "Blurs half of the views in pretraining, or none.",
    ),
    "cache_dataset": (
        {True: {"data.cache": "memory"}, False: {"data.cache": "none"}},
        "Keeps all images in memory: data.cache=memory.",
    ),
    "use_tpu": ({True: {"strategy": "tpu"}, False: {"strategy": "auto"}}, "Same as --strategy=tpu."),
    "proj_head_mode": (
        {"none": {"model.num_proj_layers": 0}, "linear": {"model.num_proj_layers": 1}, "nonlinear": {}},
        "Projection head: none, linear (one layer) or nonlinear (num_proj_layers of them).",
    ),
}
# Flags of the reference that have no effect, in its TensorFlow 2 code or at all.
STALE_FLAGS = {
    "train_summary_steps": "metrics are written every train.log_every_steps",
    "variable_schema": "a checkpoint's encoder is always loaded, its classifier if the classes are the same",
    "eval_name": "the reference does not use it either",
}
# flag: help; neither is a setting.
OTHER_FLAGS = {
    "config": "Python file whose get_config() returns the defaults of the flags, or whose get_stages() returns runs.",
    "set": "section.field=value sets any setting by name and overrides the flags; none means not set. Of several "
    "stages, STAGE.section.field=value changes one.",
}
DEFAULT_CONFIG = "configs/shapes.py"


def define(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines all flags without defaults, so that a given flag can be told from an omitted one."""
    definers: dict[type, Any] = {
        float: flags.DEFINE_float,
        int: flags.DEFINE_integer,
        str: flags.DEFINE_string,
        bool: flags.DEFINE_bool,
    }
    for one in SETTINGS.values():
        define_one = definers[str if one.is_list else one.kind]
        for name in filter(None, (one.flag, one.alias)):
            define_one(name, None, one.help, flag_values=values)
    for name, (choices, text) in SHORTHANDS.items():
        if True in choices:
            flags.DEFINE_bool(name, None, text, flag_values=values)
        else:
            flags.DEFINE_enum(name, None, list(choices), text, flag_values=values)
    for name, reason in STALE_FLAGS.items():
        flags.DEFINE_string(name, None, f"Ignored: {reason}.", flag_values=values)
    flags.DEFINE_string("config", None, OTHER_FLAGS["config"], flag_values=values)
    flags.DEFINE_multi_string("set", [], OTHER_FLAGS["set"], flag_values=values)


def to_config(
    values: flags.FlagValues,
    root: pathlib.Path,
    *,
    names: Mapping[str, tuple[str, ...]],
    read_run: Callable[[str], RunConfig | None],
    read_checkpoint: Callable[[str], RunConfig],
) -> RunConfig:
    """The config of this run: the config file, overridden by the flags and then by `--set`.

    Without `--config`, the flags change the first of these that applies: the settings of the run in `--model_dir`,
    which must have started if `--dataset` or `--data_dir` is given; the reference's defaults with the architecture of
    `--checkpoint`; the reference's defaults, with `--dataset` or `--data_dir`; the config for the embedded data.

    Args:
      values: The parsed flags.
      root: The project's folder, which holds configs/.
      names: Choices that only the consumer of a setting knows, by setting name.
      read_run: Returns the settings of the run in a folder, or `None` if it holds no run.
      read_checkpoint: Returns the settings that a checkpoint implies.

    Raises:
      FileNotFoundError: If the config file does not exist.
      ValueError: If a field does not exist or a value is wrong.
    """
    has_data = values.dataset is not None or values.data_dir is not None
    saved = None
    if values.config is None and (values.model_dir or has_data):
        folder = RunConfig(name=_implied_name(values), model_dir=values.model_dir).folder
        saved = read_run(folder) if not has_data or _has_started(folder) else None
    if values.config is not None:
        base = load_config(pathlib.Path(expand(values.config)))
    elif saved is not None:
        base = saved
    elif values.checkpoint is not None:
        base = read_checkpoint(expand(values.checkpoint))
    elif has_data:
        base = RunConfig()
    else:
        base = load_config(root / DEFAULT_CONFIG)
    changes = _changes(values, base.strategy)
    config = _checked(override(base, _implied(values, saved) | changes), names)
    _warn(changes, [config])
    return config


def to_stages(values: flags.FlagValues, *, names: Mapping[str, tuple[str, ...]]) -> dict[str, RunConfig] | None:
    """The runs of a config file with `get_stages()`, by name; None if `--config` names no such file.

    The flags change all stages, and --set=STAGE.section.field=value changes one; see `stages.place` for the folders.

    Raises:
      FileNotFoundError: If the config file does not exist.
      ValueError: If a field does not exist, a value is wrong, or it is one that differs from stage to stage.
    """
    if values.config is None:
        return None
    path = pathlib.Path(expand(values.config))
    module = _load_module(path)
    if not hasattr(module, "get_stages"):
        return None
    planned = _made_by(module.get_stages, path)
    shared = _implied(values, None) | _changes(values, next(iter(planned.values())).strategy)
    own: dict[str, dict[str, Any]] = {name: {} for name in planned}
    for field in [field for field in shared if field.partition(".")[0] in planned]:
        stage, _, setting = field.partition(".")
        own[stage][setting] = shared.pop(field)
    stages.check_shared(shared, planned)
    root = shared.pop("model_dir", None) or f"runs/{path.stem}"
    changed = {name: override(config, shared | own[name]) for name, config in planned.items()}
    _warn(shared, changed.values())
    for name, changes in own.items():
        _warn(changes, [changed[name]])
    return {name: _checked(config, names) for name, config in stages.place(changed, expand(root)).items()}


def _warn(changes: Iterable[str], configs: Iterable[RunConfig]) -> None:
    """Warns of changes that have no effect in any of the configs."""
    for name in changes:
        sentences = [without_effect(config, name) for config in configs]
        if all(sentences):
            logging.warning("%s", sentences[0])


def _checked(config: RunConfig, names: Mapping[str, tuple[str, ...]]) -> RunConfig:
    """The same config; raises a `ValueError` if a name is none that its consumer knows."""
    for name, choices in names.items():
        value = flatten(config)[name]
        for item in value if SETTINGS[name].is_list else [value]:
            check_name(name, item, choices)
    return config


def _has_started(folder: str) -> bool:
    """Whether the run in a folder has weights; otherwise its settings may be those of a start that was refused."""
    return any(pathlib.Path(folder, "checkpoints").glob("*.index"))


def _implied(values: flags.FlagValues, saved: RunConfig | None) -> dict[str, Any]:
    """What `--dataset` and `--data_dir` say beyond themselves: the kind of images, and the name of a new run.

    The images of a saved run may have moved, so they stay of the kind that they are.
    """
    changes: dict[str, Any] = {}
    has_folder = values.data_dir is not None
    if has_folder and values.dataset is None and (saved is None or saved.data.dataset == "shapes"):
        changes["data.dataset"] = "folder"
    if values.config is None and saved is None and (has_folder or values.dataset is not None):
        changes["name"] = _implied_name(values)
    return changes


def _implied_name(values: flags.FlagValues) -> str:
    return values.dataset or _name_of(expand(values.data_dir or ""))


def _changes(values: flags.FlagValues, strategy: str) -> dict[str, Any]:
    """The changes that the flags make to settings with a strategy, by name; later flags override earlier ones."""
    changes: dict[str, Any] = {}
    for one in SETTINGS.values():
        for name in filter(None, (one.alias, one.flag)):
            value = values[name].value
            if value is not None:
                changes[one.name] = None if value == one.unset else value
    for name, (choices, _) in SHORTHANDS.items():
        # The reference's default, --use_tpu=False, says nothing against another strategy.
        value = values[name].value
        says_nothing = name == "use_tpu" and value is False and changes.get("strategy", strategy) != "tpu"
        if value is not None and not says_nothing:
            changes |= choices[value]
    for name, reason in STALE_FLAGS.items():
        if values[name].value is not None:
            logging.warning("The flag --%s is accepted and ignored: %s", name, reason)
    return changes | parse_assignments(values.set)


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """What `--set` says, by setting.

    Raises:
      ValueError: If one is not of the form section.field=value.
    """
    changes = {}
    for assignment in assignments:
        field, separator, value = assignment.partition("=")
        if not separator:
            raise ValueError(f"--set needs section.field=value. Received: {assignment}")
        changes[field] = value
    return changes


def _name_of(data_dir: str) -> str:
    """Names a run after its images: the last part of the first path that has no wildcards, without its suffix."""
    parts = [part for part in data_dir.partition(",")[0].split("/") if part and not set(part) & set("*?[")]
    name = parts[-1].partition(".")[0] if parts else ""
    return name or pathlib.Path.cwd().name


def load_config(path: pathlib.Path) -> RunConfig:
    """The `RunConfig` that a config file's `get_config()` returns.

    Raises:
      FileNotFoundError: If the file does not exist; the error suggests the nearest name.
      ValueError: If the file has no `get_config`.
    """
    module = _load_module(path)
    if not hasattr(module, "get_config"):
        raise ValueError(f"The config file {path} must define get_config() -> RunConfig")
    return _made_by(module.get_config, path)


def _load_module(path: pathlib.Path) -> Any:
    """The module of a config file."""
    if not path.is_file():
        siblings = [str(other) for other in sorted(path.parent.glob("*.py"))]
        raise FileNotFoundError(f"There is no config file {path}.{nearest(str(path), siblings)}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"A config file must be a Python file. Received: {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _made_by(function: Callable[[], Any], path: pathlib.Path) -> Any:
    """What a function of a config file returns."""
    try:
        loaded = function()
    except TypeError as error:  # a field that does not exist
        raise ValueError(f"The config file {path} is wrong: {error}") from error
    logging.info("Config %s", path)
    return loaded

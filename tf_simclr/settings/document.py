"""Documents the settings from their declarations: the text of `--help`, and docs/settings.md."""

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping

from tf_simclr.settings.command_line import OTHER_FLAGS, SHORTHANDS, STALE_FLAGS
from tf_simclr.settings.declaration import Setting, to_text
from tf_simclr.settings.run_config import SETTINGS, RunConfig

# setting: choices that only its consumer knows, such as the names of the encoders
Names = Mapping[str, tuple[str, ...]]

_WIDTH = 100
_KINDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}
_USAGE = """\
Pretrains, evaluates and exports an encoder: python run.py --name=value ...

Settings without a flag come from the file of --config, or from the run in --model_dir. With only
--dataset or --data_dir, the defaults below apply, which are the reference's; without any flag,
configs/shapes.py does."""
_MARKDOWN = """\
# Settings

Every setting, section by section. `make docs` writes this page from `tf_simclr/settings/`: do not edit it.

`--set=section.field=value` changes any setting, with or without a flag, and `none` means "not set". The defaults are
the reference's; `--config` names a file with others. A resumed run may change only resumable settings.
"""


def help_text(names: Names) -> str:
    """The text of `--help`: every flag by section, with values, default and help, at most 100 columns wide."""
    parts = [_USAGE]
    for title, settings in _sections():
        parts.append("\n".join([title, *(_entry(one, names) for one in settings)]))
    others = (_lines(f"--{name}", text) for name, text in _other_flags().items())
    return "\n\n".join([*parts, "\n".join(["Other flags", *others])])


def markdown(names: Names) -> str:
    """The content of docs/settings.md."""
    parts = [_MARKDOWN]
    for title, settings in _sections():
        rows = [
            "| setting | flag | values | default | resumable | what it does |",
            "|---|---|---|---|---|---|",
            *(_row(one, names) for one in settings),
        ]
        parts.append("\n".join([f"## {title}", "", *rows, ""]))
    others = (f"- `--{name}`: {text}" for name, text in _other_flags().items())
    return "\n".join([*parts, "## Other flags", "", *others, ""])


def _other_flags() -> dict[str, str]:
    """Help texts of the flags that are not settings."""
    shorthands = {name: text for name, (_, text) in SHORTHANDS.items()}
    return OTHER_FLAGS | shorthands | {name: f"Ignored: {reason}." for name, reason in STALE_FLAGS.items()}


def _sections() -> Iterator[tuple[str, list[Setting]]]:
    """Titles with their settings, those of the whole run first."""
    classes = {"": RunConfig} | {
        field.name: type(field.default) for field in dataclasses.fields(RunConfig) if field.name not in SETTINGS
    }
    for section, cls in classes.items():
        about = (cls.__doc__ or "").rstrip(".")
        yield (
            f"{section}: {about[0].lower()}{about[1:]}" if section else about,
            [one for one in SETTINGS.values() if one.section == section],
        )


def _values(setting: Setting, names: Names) -> str:
    """Describes the values that a setting takes."""
    choices = names.get(setting.name, setting.choices)
    text = ", ".join(map(str, choices)) or _KINDS[setting.kind]
    if setting.is_list and setting.rule is not None:
        return setting.rule.text
    if setting.is_list:
        text = f"list of {text}" if choices or setting.name not in names else "list of names"
    if setting.rule is not None:
        text += f", {setting.rule.text}"
    return text + setting.or_none


def _default(setting: Setting) -> str:
    return to_text(setting.default) or "empty"


def _entry(setting: Setting, names: Names) -> str:
    name = f"--{setting.flag}" if setting.flag else f"--set={setting.name}=..."
    if setting.alias:
        name += f", --{setting.alias}"
    return _lines(f"{name}  [{_values(setting, names)}; default: {_default(setting)}]", setting.help)


def _lines(title: str, text: str) -> str:
    """A flag with its values, and its help text below."""
    return "\n".join(
        textwrap.fill(part, _WIDTH, initial_indent=indent, subsequent_indent=" " * 6, break_on_hyphens=False)
        for part, indent in ((title, "  "), (text, " " * 6))
    )


def _row(setting: Setting, names: Names) -> str:
    flags = " ".join(f"`--{flag}`" for flag in (setting.flag, setting.alias) if flag)
    resume = "yes" if setting.resumable else ""
    cells = (f"`{setting.name}`", flags, _values(setting, names), f"`{_default(setting)}`", resume, setting.help)
    return f"| {' | '.join(cells)} |"

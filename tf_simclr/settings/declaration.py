"""Declares each setting once, as a dataclass field that holds everything about it."""

import dataclasses
import functools
import os
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from tf_simclr.settings import rules
from tf_simclr.settings.rules import Rule, nearest

Card = Literal["keep", "shorten", "leave_out"]
# The name of another setting, then the values of it that will do; without any, all but none, 0 and false.
Needs = tuple[Any, ...]
PRETRAINING: Needs = ("train_mode", "pretrain")

# TensorFlow counts images, steps and pixels in 32 bits, and no number of a run needs more.
_LARGEST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Setting:
    """A declared setting.

    Attributes:
      name: Section and field, such as "train.epochs"; fields of the run itself have no section.
      kind: Type of the value, or of an item if it is a list.
      choices: The allowed values; empty if `kind` and `rule` define them.
      is_list: Whether the value is a tuple; on the command line, comma-separated text.
      is_optional: Whether it may be `None`, which means "not set".
      default: The default value.
      help: One sentence that describes it.
      rule: What else must hold for the value.
      flag: Its command-line flag; without one, only `--set` changes it.
      alias: A second flag, which the first overrides.
      unset: The flag's value that means `None`.
      resumable: Whether a resumed run may change it, because it does not affect what is learned.
      card: Whether a model card keeps the value, shortens paths to their last part, or leaves it out.
      is_path: Whether it is a path, or several, comma-separated; "~" then stands for the user's home, as in a shell.
      needs: The setting without which this one has no effect, if there is one; that may need another one in turn.
    """

    name: str
    kind: type
    choices: tuple[Any, ...]
    is_list: bool
    is_optional: bool
    default: Any
    help: str
    rule: Rule | None
    flag: str | None
    alias: str | None
    unset: Any
    resumable: bool
    card: Card
    is_path: bool
    needs: Needs | None

    @property
    def section(self) -> str:
        """The part of the name before the dot; empty for settings of the run itself."""
        return self.name.rpartition(".")[0]

    @property
    def title(self) -> str:
        """What an error calls it: its flag, if it has one, and its name."""
        return f"--{self.flag}: {self.name}" if self.flag else self.name

    def typed(self, value: Any) -> str:
        """Text that sets it on the command line, such as "--train_epochs=3"."""
        value = self.unset if value is None else value
        if self.flag is None or (value is None and not self.flag_takes_none):
            return f"--set={self.name}={to_text(value)}"
        return f"--{self.flag}={to_text(value)}"

    def check(self, value: Any) -> None:
        """Checks a value of the right type.

        Raises:
          ValueError: If it is not one of the choices, breaks the rule, is too large, or is empty text.
        """
        if value is None and self.is_optional:
            return
        if self.is_list and not isinstance(value, tuple):
            raise ValueError(f"{self.name} must be a tuple. Received: {value!r}")
        items = value if self.is_list else (value,)
        wrong = [item for item in items if self.choices and item not in self.choices]
        if wrong:
            choices = f"{'any' if self.is_list else 'one'} of {', '.join(map(str, self.choices))}{self.or_none}"
            commas = ", separated by commas" if self.is_list else ""
            hint = nearest(str(wrong[0]), map(str, self.choices))
            raise ValueError(f"{self.title} must be {choices}{commas}.{hint} Received: {to_text(value)}")
        if self.rule is not None and not self.rule.is_kept(value):
            raise ValueError(f"{self.title} must be {self.rule.text}{self.or_none}. Received: {to_text(value)}")
        if self.kind is int and self.rule is not rules.SEED and any(item > _LARGEST for item in items):
            raise ValueError(f"{self.title} must be at most {_LARGEST}. Received: {to_text(value)}")
        if "" in items:
            raise ValueError(f"{self.title} must be some text{self.or_none}. Received: ''")

    @property
    def or_none(self) -> str:
        """The value for "not set", to end a list of values; empty if it has none."""
        if not self.is_optional:
            return ""
        if self.unset is not None:
            return f", or none ({self.unset} on the flag)"
        return ", or none" if self.flag is None or self.flag_takes_none else ", or none (by --set)"

    @property
    def flag_takes_none(self) -> bool:
        """Whether its flag takes any text, and so "none", for "not set"."""
        return self.is_list or self.kind is str


def setting(
    default: Any,
    help: str,
    *,
    rule: Rule | None = None,
    flag: str | None = None,
    alias: str | None = None,
    unset: Any = None,
    resumable: bool = False,
    card: Card = "keep",
    is_path: bool = False,
    needs: Needs | None = None,
) -> Any:
    """Declares a setting, as the default of a frozen dataclass's field; see `Setting` for the arguments.

    The field's type says the rest: `Literal[...]` lists the choices, a tuple makes a list, `None` means "not set".
    """
    details = {
        "help": help, "rule": rule, "flag": flag, "alias": alias, "unset": unset, "resumable": resumable, "card": card,
        "is_path": is_path, "needs": needs,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=details)


def expand_paths(section: Any) -> None:
    """Writes out "~" in the paths of a dataclass of settings, which calls this when it is made.

    Raises:
      ValueError: If the user has no home.
    """
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if field.metadata.get("is_path") and value is not None:
            expanded = tuple(map(expand, value)) if isinstance(value, tuple) else expand(os.fspath(value))
            object.__setattr__(section, field.name, expanded)  # Settings are frozen.


def expand(path: str) -> str:
    """A path, or several, comma-separated, with the user's home in the place of "~".

    >>> expand("/photos,/more~photos")
    '/photos,/more~photos'

    Raises:
      ValueError: If the user has no home.
    """
    expanded = re.sub(r"(^|,\s*)(~[^/,]*)", lambda found: found[1] + os.path.expanduser(found[2]), path)
    if re.search(r"(^|,\s*)~(/|,|$)", expanded):
        raise ValueError(f"This user has no home for ~ to stand for: write the path out, or set HOME. Received: {path}")
    return expanded


@functools.cache
def declared(cls: Any) -> dict[str, Setting]:
    """The settings of a dataclass, and of the dataclasses nested in it, by name."""
    return {one.name: one for one in _walk(cls, prefix="")}


def _walk(cls: Any, prefix: str) -> Iterator[Setting]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind, name = hints[field.name], prefix + field.name
        if dataclasses.is_dataclass(kind):
            yield from _walk(kind, f"{name}.")
            continue
        is_optional = typing.get_origin(kind) in (types.UnionType, typing.Union)
        kind = typing.get_args(kind)[0] if is_optional else kind
        is_list = typing.get_origin(kind) is tuple
        kind = typing.get_args(kind)[0] if is_list else kind
        choices = typing.get_args(kind)
        kind = type(choices[0]) if choices else kind
        yield Setting(name, kind, choices, is_list, is_optional, field.default, **field.metadata)


def flatten(config: Any) -> dict[str, Any]:
    """All values by setting name, such as "train.epochs"."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat |= {f"{field.name}.{name}": inner for name, inner in flatten(value).items()}
        else:
            flat[field.name] = value
    return flat


def to_text(value: Any) -> str:
    """Formats a value as the command line takes it."""
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)

"""Rules for the values of single settings."""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Rule:
    """A condition that a value must meet.

    Attributes:
      text: Completes the sentence "FIELD must be ...".
      is_kept: Whether a value meets the condition; never called with `None`, "not set".
    """

    text: str
    is_kept: Callable[[Any], bool]


POSITIVE = Rule("positive", lambda value: 0 < value < math.inf)
AT_LEAST_0 = Rule("at least 0", lambda value: 0 <= value < math.inf)
AT_LEAST_1 = Rule("at least 1", lambda value: value >= 1)
AT_LEAST_2 = Rule("at least 2", lambda value: value >= 2)
SHARE = Rule("between 0 and 1", lambda value: 0 <= value <= 1)
POSITIVE_SHARE = Rule("above 0, at most 1", lambda value: 0 < value <= 1)
BELOW_1 = Rule("at least 0 and below 1", lambda value: 0 <= value < 1)
SEED = Rule("between 0 and 2**32 - 1", lambda value: 0 <= value < 2**32)
GROUPS = Rule("from 1 to 4", lambda value: 1 <= value <= 4)
BLOCK = Rule("from 0 to 4", lambda value: 0 <= value <= 4)
LAYER = Rule("at least -1", lambda value: value >= -1)
INCREASING = Rule(
    "increasing whole numbers of at least 1, separated by commas",
    lambda sizes: all(size >= 1 for size in sizes) and list(sizes) == sorted(set(sizes)),
)


def check_name(setting: str, value: str, names: Iterable[str]) -> None:
    """Checks a value whose choices only its consumer knows, such as the name of an encoder.

    Args:
      setting: The setting's name, such as "model.encoder".
      value: Its value, or one item of its list.
      names: The choices.

    Raises:
      ValueError: If the value is not one of the choices; the error suggests the nearest.
    """
    names = tuple(names)
    if value not in names:
        choices = f"must be one of {', '.join(names)}" if names else "must be empty: it has no choices yet"
        raise ValueError(f"{setting} {choices}.{nearest(value, names)} Received: {value}")


def nearest(name: str, names: Iterable[str]) -> str:
    """A question that suggests the most similar name, after a space; empty if no name is similar."""
    similar = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f" Did you mean {similar[0]}?" if similar else ""

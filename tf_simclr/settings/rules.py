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
PROPER_SHARE = Rule("above 0 and below 1", lambda value: 0 < value < 1)
PERCENT = Rule("from 1 to 100", lambda value: 1 <= value <= 100)
BELOW_1 = Rule("at least 0 and below 1", lambda value: 0 <= value < 1)
SEED = Rule("between 0 and 2**32 - 1", lambda value: 0 <= value < 2**32)
VIEWS = Rule("from 2 to 128", lambda value: 2 <= value <= 128)
SMALL_VIEWS = Rule("from 0 to 128", lambda value: 0 <= value <= 128)
GROUPS = Rule("from 1 to 4", lambda value: 1 <= value <= 4)
BLOCK = Rule("from 0 to 4", lambda value: 0 <= value <= 4)
LAYER = Rule("at least -1", lambda value: value >= -1)
PIXELS = Rule("from 1 to 10000", lambda value: 1 <= value <= 10_000)
EPOCHS = Rule("from 0 to 1000000", lambda value: 0 <= value <= 1_000_000)
POSITIVE_EPOCHS = Rule("above 0, at most 1000000", lambda value: 0 < value <= 1_000_000)
NOT_EMPTY = Rule("at least one name", lambda names: len(names) > 0)
INCREASING = Rule(
    "increasing whole numbers of at least 1, separated by commas",
    lambda sizes: all(size >= 1 for size in sizes) and list(sizes) == sorted(set(sizes)),
)


def nearest(name: str, names: Iterable[str]) -> str:
    """A question that suggests the most similar name, after a space; empty if no name is similar."""
    similar = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f" Did you mean {similar[0]}?" if similar else ""

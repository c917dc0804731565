"""Rules for the values of settings, singly and in pairs."""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_simclr.settings.run_config import RunConfig


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


def check_together(config: "RunConfig") -> None:
    """Checks the rules that involve two settings.

    Raises:
      ValueError: If the settings break a rule.
    """
    train, data = config.train, config.data
    if config.train_mode == "finetune" and config.checkpoint is None:
        raise ValueError("train_mode=finetune needs --checkpoint (train_mode=supervised does not). Received: None")
    for name, steps in (("log_every_steps", train.log_every_steps), ("checkpoint_steps", train.checkpoint_steps)):
        if steps is not None and steps % train.steps_per_execution:
            raise ValueError(
                f"train.{name} must be a multiple of train.steps_per_execution, {train.steps_per_execution}. "
                f"Received: {steps}"
            )
    if config.train_mode != "pretrain" and train.microbatch_size is not None:
        raise ValueError(
            f"train.microbatch_size is for train_mode=pretrain. Received: {train.microbatch_size} with "
            f"train_mode={config.train_mode}"
        )
    if data.cache != "none" and data.service:
        raise ValueError(
            "data.cache keeps images on this machine, data.service reads them on others: choose one. "
            f"Received: cache={data.cache}, service={','.join(data.service)}"
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

"""What the numbers of a run's health say in plain language."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """A disease of a run: its name, "warning" or "error", what was found, and what to do about it."""

    name: str
    severity: str
    sentence: str
    advice: str


def diagnose(health: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """What is wrong with a run by the lines of its health.jsonl and metrics.jsonl."""
    return []

"""The findings of a check, and their table."""

import dataclasses
import os
import textwrap
from collections.abc import Sequence
from typing import Any

from tf_simclr.data.files import listing
from tf_simclr.data.files.names import in_print

# From worst to mildest: stops a run or makes it useless; costs quality or time; was tested and holds; is good to know.
SEVERITIES = ("fail", "warn", "pass", "info")

_WIDTH = 118
_INDENT = " " * 6
_SHOWN_DETAILS = 3
_SHOWN_NAMES = 3


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
      severity: One of SEVERITIES.
      topic: The subject, in a word or two.
      found: What was found, as a sentence.
      advice: What to do, as a sentence; "" if nothing.
      details: Where it was found, such as groups of files; `check.json` lists all of them.
    """

    severity: str
    topic: str
    found: str
    advice: str = ""
    details: Sequence[Any] = ()


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """Sorts findings, worst first, and keeps the order within a severity."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def has_failed(findings: Sequence[Finding]) -> bool:
    """Whether the run should not start like this."""
    return any(finding.severity == "fail" for finding in findings)


def describe(findings: Sequence[Finding], data_dir: str | None = None) -> str:
    """The table for the terminal, with the first details of every finding and the first names of every group.

    Args:
      findings: The findings.
      data_dir: Folders, comma-separated; names in them are shown relative to them.
    """
    prefixes = [os.path.join(place, "") for place in listing.split_places(data_dir or "")]
    lines = []
    for finding in findings:
        lines += _wrap(f"{finding.topic}: {finding.found}", f"{finding.severity:6}", _INDENT)
        if finding.advice:
            lines += _wrap(finding.advice, f"{_INDENT}-> ", f"{_INDENT}   ")
        shown = [_detail(detail, prefixes) for detail in finding.details[:_SHOWN_DETAILS]]
        if len(finding.details) > _SHOWN_DETAILS:
            shown.append(f"and {len(finding.details) - _SHOWN_DETAILS:,} more")
        lines += [f"{_INDENT}   {line}" for line in shown]
    counts = [sum(finding.severity == severity for finding in findings) for severity in SEVERITIES]
    total = ", ".join(f"{count} {severity}" for count, severity in zip(counts, SEVERITIES, strict=True))
    return in_print("\n".join([*lines, "", total]))


def _wrap(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _detail(detail: Any, prefixes: Sequence[str]) -> str:
    names = detail if isinstance(detail, list) else [detail]
    shown = [_relative(str(name), prefixes) for name in names[:_SHOWN_NAMES]]
    if len(names) > _SHOWN_NAMES:
        shown.append(f"{len(names) - _SHOWN_NAMES:,} more")
    return " = ".join(shown)


def _relative(name: str, prefixes: Sequence[str]) -> str:
    return name.removeprefix(next(filter(name.startswith, prefixes), ""))


def in_bytes(count: float) -> str:
    """Formats a number of bytes, or bytes per second."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.{2 if count < 10 * size else 0}f} {unit}"
    return f"{count / 1e3:.0f} kB"

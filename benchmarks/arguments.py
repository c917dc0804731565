"""Types of the benchmarks' arguments."""

import argparse
from collections.abc import Iterable


def at_least_1(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1. Received: {text!r}")
    return int(text)


def names(parser: argparse.ArgumentParser, text: str, known: Iterable[str]) -> list[str]:
    """Names from text with commas; ends the program if one is not known."""
    found = text.split(",")
    if unknown := sorted(set(found) - set(known)):
        parser.error(f"there is none of this name. Received: {', '.join(unknown)}")
    return found

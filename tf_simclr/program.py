"""What the programs that are started by name, `python -m tf_simclr.NAME`, have in common."""

import sys
from collections.abc import Callable

from tf_simclr.data.files.names import printable


def show(name: str, make: Callable[[], str]) -> None:
    """Prints what a function makes; wrong input ends in one sentence and exit status 2.

    Args:
      name: The program.
      make: Raises a `ValueError` or an `OSError` for wrong input.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):  # A console may know fewer characters than names have.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        text = make()
    except (ValueError, OSError) as error:
        print(f"tf_simclr.{name}: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    print(text)

"""How far an evaluation has come, on a terminal and in a file."""

import io
import re
import sys
from types import SimpleNamespace

import pytest

from tf_simclr.evaluation import progress as shown


class Stream(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_gets_a_bar_without_colours_and_anything_else_lines_of_the_log(monkeypatch, is_terminal):
    lines = []
    monkeypatch.setattr(sys, "stderr", Stream(is_terminal))
    monkeypatch.setattr(shown, "_LOG_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(shown.logging, "info", lambda text, *values: lines.append(text % values))
    batches = [SimpleNamespace(positions=range(4)) for _ in range(3)]
    assert list(shown.progress(batches, "photos", done=2, total=14)) == batches
    written = sys.stderr.getvalue()
    assert ("14/14" in written) == is_terminal and bool(lines) != is_terminal
    assert not re.search(r"\x1b\[[\d;]*m", written)
    if not is_terminal:
        assert written == "" and lines[0].startswith("Encoded 6 of 14 photos, ")

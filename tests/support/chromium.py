"""Debian's Chromium, driven by Playwright, for tests of pages."""

import contextlib
import shutil

import pytest

ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextlib.contextmanager
def start():
    """Yields the browser; skips the test where Playwright or Chromium is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: see requirements-dev.txt")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("Chromium is missing")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()

"""Writes files completely or not at all, reads JSON, and computes digests."""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a path beside `path` to write to; at the end, the file there replaces `path` in one step.

    A reader never sees a partial file. If the block raises, the new file is removed and `path` stays as it was.

    Args:
      path: A local file, which need not exist; its folder must.

    Yields:
      The path to write to. Its name starts with a dot and ends like that of `path`.

    Raises:
      OSError: If the file cannot be written.
    """
    path = pathlib.Path(path)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file, as `replacing` does."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], values: Any) -> None:
    """Writes a JSON file, as `replacing` does."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file."""
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))


def digest(content: Any, size: int = 8) -> str:
    """The BLAKE2b hash of bytes, or of a contiguous array, as 2 * `size` hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=size).hexdigest()

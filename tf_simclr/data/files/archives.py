"""Reads .zip and .tar files like folders: the path of a member is ARCHIVE/NAME."""

import functools
import os
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

from tf_simclr.data.files import archive_index
from tf_simclr.data.files.archive_index import Index
from tf_simclr.data.files.names import in_print

SUFFIXES = (".zip", ".tar")
_COMPRESSED = re.compile(r"\.(?:tar\.\w+|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)

_END_OF_ARCHIVE = re.compile(r"\.(?:zip|tar)(?=/|$)", re.IGNORECASE)
_LOCAL_HEADER = struct.Struct("<4s22xHH")


def split(path: str) -> tuple[str, str] | None:
    """(the archive that a path leads into, the rest of the path, "" for the archive itself), or None if there is none.

    A folder of such a name is no archive.
    """
    for match in _END_OF_ARCHIVE.finditer(path):
        if _is_file(path[: match.end()]):
            return path[: match.end()], path[match.end() :].strip("/")
    return None


def file_of(path: str) -> str:
    """The archive that a path leads into, or else the path itself."""
    place = split(path)
    return path if place is None else place[0]


def refuse_compressed(path: str) -> None:
    """Raises a `ValueError` if the path is that of a compressed tar file."""
    if _COMPRESSED.search(path) and _is_file(path):
        raise ValueError(
            "A compressed tar file can only be read from its start, and images hardly shrink: unpack it to a plain "
            f".tar, for a .tar.gz with `gunzip`. Received: {in_print(path)!r}"
        )


def problems(archive: str) -> dict[str, str]:
    """What cannot be read, {path: reason}: members, and the archive itself if it cannot be read to its end."""
    return {f"{archive}/{name}" if name else archive: text for name, text in _index(archive).problems.items()}


def entries(archive: str, folder: str) -> Iterator[tuple[str, bool]]:
    """Yields the name of everything that lies in a folder of an archive, and whether that is a folder."""
    names = _index(archive).names
    prefix = os.fsencode(f"{folder}/" if folder else "")
    position = names.position(prefix)
    while position < len(names):
        name = os.fsencode(names[position])
        if not name.startswith(prefix):
            return
        first, slash, _ = name[len(prefix) :].partition(b"/")
        yield os.fsdecode(first), bool(slash)
        # What is in that folder is skipped: "0" is the character after "/".
        position = names.position(prefix + first + b"0") if slash else position + 1


def is_folder(archive: str, member: str) -> bool:
    """Whether a path in an archive is that of a folder; "" is one."""
    return not member or next(entries(archive, member), None) is not None


def exists(archive: str, member: str) -> bool:
    """Whether a path in an archive is that of a folder or of a file."""
    return is_folder(archive, member) or _find(_index(archive), member) is not None


def num_bytes(path: str) -> int:
    """The size of a member, unpacked.

    Raises:
      tf.errors.NotFoundError: If there is none of that path.
    """
    return int(_row(path)[1]["num_bytes"])


def read(path: str | bytes) -> bytes:
    """The content of a member, or of a file that is in no archive.

    Raises:
      tf.errors.OpError: If it cannot be read.
    """
    path = os.fsdecode(path)
    if split(path) is None:
        return tf.io.read_file(os.fsencode(path)).numpy()
    archive, row = _row(path)
    offset, stored_bytes, size, crc, kind = row.tolist()
    with _open(archive) as file:
        if kind != archive_index.PLAIN:
            offset += _header_bytes(_read_at(file, offset, _LOCAL_HEADER.size))
        content = _read_at(file, offset, stored_bytes)
    if kind == archive_index.DEFLATED:
        content = _inflate(content, size)
    if len(content) != size or (kind != archive_index.PLAIN and zlib.crc32(content) != crc):
        raise tf.errors.DataLossError(None, None, "its content in the archive is damaged")
    return content


def reader() -> Any:
    """A graph function from a path, string [], to what `read` returns. It needs this process's Python."""

    def read_bytes(path: bytes) -> np.ndarray:
        return np.array(read(path), object)

    def fetch(path: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(read_bytes, [path], tf.string, stateful=False), [])

    return fetch


def _header_bytes(header: bytes) -> int:
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise tf.errors.DataLossError(None, None, "its header in the archive is damaged")
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    return _LOCAL_HEADER.size + name_bytes + extra_bytes


def _inflate(content: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
    except zlib.error as error:
        raise tf.errors.DataLossError(None, None, f"its content in the archive is damaged: {error}") from error


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _row(path: str) -> tuple[str, Any]:
    archive, member = split(path) or (path, "")
    try:
        index = _index(archive)
    except ValueError as error:  # It has changed since it was opened.
        raise tf.errors.DataLossError(None, None, str(error)) from error
    position = _find(index, member)
    if position is None:
        raise tf.errors.NotFoundError(None, None, index.problems.get(member, "it is not in the archive"))
    return archive, index.table[position]


def _find(index: Index, member: str) -> int | None:
    position = index.names.position(os.fsencode(member))
    return position if position < len(index.names) and index.names[position] == member else None


def _is_local(path: str) -> bool:
    return "://" not in path


def _is_file(path: str) -> bool:
    return os.path.isfile(path) if _is_local(path) else _is_remote_file(path)


@functools.cache  # Each look is a round trip.
def _is_remote_file(path: str) -> bool:
    return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)


def _open(path: str, buffering: int = 0) -> Any:
    return open(path, "rb", buffering=buffering) if _is_local(path) else tf.io.gfile.GFile(path, "rb")


def _index(archive: str) -> Index:
    if not _is_local(archive):
        return _read_index(archive, None)
    status = os.stat(archive)
    return _read_index(archive, (status.st_size, status.st_mtime_ns))


@functools.cache
def _read_index(archive: str, stamp: tuple[int, int] | None) -> Index:
    """The index of an archive, read again when its size or time has changed."""
    with _open(archive, buffering=-1) as file:
        return archive_index.read_index(file, archive)

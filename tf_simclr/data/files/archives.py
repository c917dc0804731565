"""Reads .zip and .tar files like folders: the path of a member is ARCHIVE/NAME."""

import functools
import os
import posixpath
import re
import struct
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from tf_simclr.data.files import archive_index
from tf_simclr.data.files.archive_index import Index
from tf_simclr.data.files.names import in_print

_END_OF_ARCHIVE = re.compile(r"\.(?:zip|tar)(?=/|$)", re.IGNORECASE)
_COMPRESSED = re.compile(r"\.(?:tar\.\w+|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member of a .zip file: signature, bytes of the name and of more

# Archives that a reader keeps open; systems allow a process a thousand files and more.
_MAX_OPEN = 128


def split(path: str) -> tuple[str, str] | None:
    """(the archive that a path leads into, the rest of the path, "" for the archive itself), or None if there is none.

    A folder of such a name is no archive.
    """
    for match in _END_OF_ARCHIVE.finditer(path):
        if _is_file(path[: match.end()]):
            return path[: match.end()], _inside(path[match.end() :])
    return None


def _inside(rest: str) -> str:
    """The name of a member from the rest of a path behind its archive."""
    rest = rest.strip("/")
    return posixpath.normpath(rest) if ".." in rest else rest


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


def num_bytes(archive: str, member: str) -> int:
    """The size of a member, unpacked; 0 if there is none."""
    index = _index(archive)
    position = _find(index, member)
    return 0 if position is None else int(index.table["num_bytes"][position])


def read(path: str) -> bytes:
    """The content of a member, or of a file that is in no archive.

    Raises:
      tf.errors.OpError: If it cannot be read.
    """
    place = split(path)
    return tf.io.read_file(os.fsencode(path)).numpy() if place is None else _Open(place[0]).read(place[1])


def reader(paths: Sequence[str]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes a graph function from numbers of paths, int64 of any shape, to what `read` returns; b"" where it raises.

    It needs this process's Python. It keeps archives open: each call of the system hands the interpreter from one
    thread to another, which takes longer than reading. For the same reason, read several at once.
    """
    keep_open = functools.lru_cache(_MAX_OPEN)(_Open)
    known: set[str] = set()

    def read_known(path: str) -> bytes:
        for match in _END_OF_ARCHIVE.finditer(path):
            if path[: match.end()] in known:
                return keep_open(path[: match.end()]).read(_inside(path[match.end() :]))
        if (place := split(path)) is not None:
            known.add(place[0])
        return read(path)

    def try_read(path: str) -> bytes:
        try:
            return read_known(path)
        except tf.errors.OpError:
            return b""

    def read_all(numbers: np.ndarray) -> np.ndarray:
        contents = np.empty(numbers.size, object)
        contents[:] = [try_read(paths[number]) for number in numbers.flat]
        return contents.reshape(numbers.shape)

    def fetch(numbers: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(read_all, [numbers], tf.string, stateful=False), numbers.shape)

    return fetch


class _Open:
    """An archive, open as long as something refers to it."""

    def __init__(self, archive: str) -> None:
        try:
            self.index = _index(archive)
        except (OSError, ValueError) as error:  # It has changed since it was listed.
            raise tf.errors.DataLossError(None, None, str(error)) from error
        if _is_local(archive):
            try:
                descriptor = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise tf.errors.DataLossError(None, None, str(error)) from error
            self._read_at = functools.partial(_pread, descriptor)
            weakref.finalize(self, os.close, descriptor)
        else:
            self._read_at = functools.partial(_read_remote, archive)

    def read(self, member: str) -> bytes:
        position = _find(self.index, member)
        if position is None:
            raise tf.errors.NotFoundError(None, None, self.index.problems.get(member, "it is not in the archive"))
        offset, stored_bytes, size, crc, kind = self.index.table[position].item()
        if kind != archive_index.PLAIN:
            offset += _header_bytes(self._read_at(offset, _LOCAL_HEADER.size))
        content = self._read_at(offset, stored_bytes)
        if kind == archive_index.DEFLATED:
            content = _inflate(content, size)
        if len(content) != size or (kind != archive_index.PLAIN and zlib.crc32(content) != crc):
            raise tf.errors.DataLossError(None, None, "its content in the archive is damaged")
        return content


def _pread(descriptor: int, offset: int, size: int) -> bytes:
    try:
        return os.pread(descriptor, size, offset)
    except (OSError, MemoryError) as error:  # A damaged archive may ask for more bytes than there is memory.
        raise tf.errors.DataLossError(None, None, f"it cannot be read ({error})") from error


def _read_remote(archive: str, offset: int, size: int) -> bytes:
    with tf.io.gfile.GFile(archive, "rb") as file:
        file.seek(offset)
        return file.read(size)


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


def _index(archive: str) -> Index:
    if not _is_local(archive):
        return _read_index(archive, None)
    status = os.stat(archive)
    return _read_index(archive, (status.st_size, status.st_mtime_ns))


@functools.cache
def _read_index(archive: str, stamp: tuple[int, int] | None) -> Index:
    """The index of an archive, read again when its size or time has changed."""
    opened = tf.io.gfile.GFile(archive, "rb") if stamp is None else open(archive, "rb")  # noqa: SIM115
    with opened as file:
        return archive_index.read_index(file, archive)

"""Lists the members of .zip and .tar files with their places, so that each can be read alone."""

import os
import posixpath
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from absl import logging

from tf_simclr.data.files.names import Names, counted, in_print

SUFFIXES = (".zip", ".tar")

# How a member is stored: as it is; behind a local header of a zip file; there, deflated.
PLAIN, STORED, DEFLATED = range(3)

_MEMBER = np.dtype([("offset", "<i8"), ("stored_bytes", "<i8"), ("num_bytes", "<i8"), ("crc", "<u4"), ("kind", "u1")])
_Row = tuple[int, int, int, int, int]

_BLOCK_BYTES = 512  # of a tar file
_MAX_LINKS = 40  # in a row, as in Linux
# No image takes as much; what claims to would fill the memory when it is unpacked.
_MAX_LINK_BYTES = 4096
_MAX_MEMBER_BYTES = 1 << 30

_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ\0": "unxz", b"(\xb5/\xfd": "unzstd"}


class Index(NamedTuple):
    """The members of an archive.

    Attributes:
      names: The name of every member, relative and with "/" between its parts, in the order of their bytes.
      table: Where each member is: `offset` of its content or, in a zip file, of its local header; `stored_bytes` there,
        `num_bytes` unpacked; `crc` in a zip file, `kind`.
      problems: Why a member cannot be read, {name: reason}; "" stands for the archive.
    """

    names: Names
    table: np.ndarray
    problems: dict[str, str]


def read_index(file: BinaryIO, path: str) -> Index:
    """Lists the members of an archive.

    Of several members of one name, the last counts, as when they are unpacked. A leading "/" does not count. Links are
    resolved inside the archive. A tar file that is cut off or damaged has the members before the damage.

    Args:
      file: The archive, which can be sought in.
      path: Its path; the suffix says which kind it is.

    Raises:
      ValueError: If it is none.
    """
    found = _Found(path)
    try:
        if path.lower().endswith(".zip"):
            _list_zip(file, found)
        else:
            _refuse_compressed(file, path)
            _list_tar(file, found)
    except (zipfile.BadZipFile, tarfile.TarError, UnicodeDecodeError, struct.error, EOFError) as error:
        raise ValueError(
            f"The archive is cut off, damaged or of another format ({error}): copy or make it again. "
            f"Received: {in_print(path)!r}"
        ) from error
    return found.index()


def _refuse_compressed(file: BinaryIO, path: str) -> None:
    start = file.read(8)
    file.seek(0)
    for magic, program in _COMPRESSED.items():
        if start.startswith(magic):
            raise ValueError(
                "A compressed tar file can only be read from its start, and images hardly shrink: unpack it to a plain "
                f".tar with `{program}`. Received: {in_print(path)!r}"
            )


class _Found:
    """Collects the members of an archive."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._rows: dict[str, _Row] = {}
        self._links: dict[str, str] = {}
        self._problems: dict[str, str] = {}
        self._num_repeated = 0

    def add(self, raw_name: str, row: _Row | None = None, link: str | None = None, problem: str | None = None) -> None:
        """Adds a member that is a file, a link to a path in the archive, or cannot be read."""
        name = _relative(raw_name)
        if not name:
            self._problems[raw_name] = "its name leads out of the archive"
            return
        self._num_repeated += name in self._rows or name in self._links
        for others in (self._rows, self._links, self._problems):
            others.pop(name, None)
        if row is not None and row[2] > _MAX_MEMBER_BYTES:
            problem = f"it takes more than {_MAX_MEMBER_BYTES >> 30} GiB"
        if problem is not None:
            self._problems[name] = problem
        elif link is not None:
            self._links[name] = link
        elif row is not None:
            self._rows[name] = row

    def end_early(self, reason: str) -> None:
        """Notes that the archive cannot be read to its end."""
        self._problems[""] = reason

    def index(self) -> Index:
        """Resolves the links and sorts the members."""
        rows = {name: row for name in self._links if (row := self._follow(name)) is not None} | self._rows
        if self._num_repeated:
            logging.warning(
                "%s: %s again, of which the last counts",
                in_print(self._path), counted(self._num_repeated, "name") + " occur",
            )  # fmt: skip
        names = sorted(rows, key=os.fsencode)
        return Index(Names(names), np.array([rows[name] for name in names], _MEMBER), self._problems)

    def _follow(self, name: str) -> _Row | None:
        target = name
        for _ in range(_MAX_LINKS):
            if target not in self._links:
                break
            target = _relative(posixpath.normpath(self._links[target])) or ""
        row = self._rows.get(target)
        if row is None:
            self._problems[name] = "the link leads nowhere" if target else "the link leads out of the archive"
        return row


def _relative(name: str) -> str | None:
    """A name without "." and slashes at its start; None if it leads out of the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if ".." in parts or "\0" in name else "/".join(parts)


def _list_tar(file: BinaryIO, found: _Found) -> None:
    file.seek(0, os.SEEK_END)
    num_bytes = file.tell()
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        try:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # Otherwise it keeps a kilobyte for each.
                _add_tar_member(found, member, num_bytes)
        except tarfile.ReadError:
            found.end_early("the archive is cut off: make it again for the images that are missing at its end")
            return
        file.seek(tar.offset)  # type: ignore[attr-defined]
        if any(file.read(_BLOCK_BYTES)):
            found.end_early(f"the archive is damaged from byte {tar.offset:,} on")  # type: ignore[attr-defined]


def _add_tar_member(found: _Found, member: tarfile.TarInfo, num_bytes: int) -> None:
    if member.isdir():
        return
    if member.islnk():
        found.add(member.name, link=member.linkname)
    elif member.issym():
        found.add(member.name, link=_target(member.name, member.linkname))
    elif not member.isreg() or member.issparse():
        found.add(member.name, problem="it is stored sparsely" if member.isreg() else "it is not a regular file")
    elif member.offset_data + member.size > num_bytes:
        found.add(member.name, problem="the archive ends inside it")
    else:
        found.add(member.name, (member.offset_data, member.size, member.size, 0, PLAIN))


def _target(name: str, link: str) -> str:
    """The path in the archive that a symbolic link leads to; one that starts with "/" leads out of it."""
    return posixpath.join(posixpath.dirname(name), link) if not link.startswith("/") else ".."


def _list_zip(file: BinaryIO, found: _Found) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = member.orig_filename
            if not member.flag_bits & 0x800:  # Not marked as UTF-8: Python read the bytes as code page 437.
                name = os.fsdecode(name.encode("cp437"))
            if not name.endswith("/"):
                found.add(name, **_describe(member, name, archive.read))


def _describe(member: zipfile.ZipInfo, name: str, read: Callable[[zipfile.ZipInfo], bytes]) -> dict[str, Any]:
    if member.flag_bits & 1:
        return {"problem": "it is encrypted"}
    if stat.S_ISLNK(member.external_attr >> 16):
        return _describe_link(member, name, read)
    kinds = {zipfile.ZIP_STORED: STORED, zipfile.ZIP_DEFLATED: DEFLATED}
    if member.compress_type not in kinds:
        return {"problem": f"it is compressed by method {member.compress_type}: pack it stored or deflated"}
    kind = kinds[member.compress_type]
    return {"row": (member.header_offset, member.compress_size, member.file_size, member.CRC, kind)}


def _describe_link(member: zipfile.ZipInfo, name: str, read: Callable[[zipfile.ZipInfo], bytes]) -> dict[str, Any]:
    """Where a link leads to; its path is its content."""
    if member.file_size > _MAX_LINK_BYTES:
        return {"problem": "it is a link to a path that is too long"}
    try:
        return {"link": _target(name, os.fsdecode(read(member)))}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError):
        return {"problem": "it is a link that cannot be read"}

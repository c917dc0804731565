"""The names of many files, made of any bytes, in little memory."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

_CHUNK = 1 << 16


def in_print(name: str) -> str:
    """The name with non-UTF-8 bytes escaped, so that it can be printed anywhere."""
    return name.encode("utf-8", "backslashreplace").decode()


def printable(name: str) -> str:
    r"""The name with everything escaped that is not printed where it stands: tabs, line breaks, marks of direction.

    >>> printable("caf\u00e9\tau lait")
    'café\\tau lait'
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in name)


def counted(count: int, noun: str) -> str:
    """The number of what the noun says, such as "1 file" and "1,024 files"; the noun takes an "s"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


class Names(Sequence[str]):
    """An immutable sequence of names, stored as their concatenated bytes and the end of each name.

    A million paths of 60 bytes take 68 MB, a quarter of what Python strings take. Names that are not UTF-8 are returned
    as `os.fsdecode` returns them.

    Args:
      names: The names.
      prefix: Prepended to every name.
    """

    def __init__(self, names: Iterable[str], prefix: str = "") -> None:
        if isinstance(names, Names):
            self.__dict__.update(names.__dict__)
            return
        encoded = [os.fsencode(name) for name in names]
        self._prefix = os.fsencode(prefix)
        self._buffer = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)])

    @classmethod
    def unpack(cls, buffer: np.ndarray, ends: np.ndarray) -> "Names":
        """Restores the names that `pack` returned."""
        return cls([])._replace(_buffer=buffer.tobytes(), _ends=ends)

    def pack(self) -> tuple[np.ndarray, np.ndarray]:
        """The bytes, uint8 [n], and the ends of the names after a leading 0, int64 [N + 1], without the prefix."""
        return np.frombuffer(self._buffer, np.uint8), self._ends

    def with_prefix(self, prefix: str) -> "Names":
        """The same names with this prefix."""
        return self._replace(_prefix=os.fsencode(prefix))

    def take(self, indices: np.ndarray) -> "Names":
        """The names at `indices`, int64 [M], in that order."""
        starts, ends = self._ends[:-1][indices], self._ends[1:][indices]
        parts = []
        for first in range(0, len(indices), _CHUNK):  # In chunks, so that few names are Python objects at a time.
            spans = zip(starts[first : first + _CHUNK].tolist(), ends[first : first + _CHUNK].tolist(), strict=True)
            parts.append(b"".join([self._buffer[start:end] for start, end in spans]))
        return self._replace(_buffer=b"".join(parts), _ends=np.concatenate([[0], np.cumsum(ends - starts)]))

    def position(self, name: bytes) -> int:
        """The first position at or behind a name, among names that are sorted by their bytes and have no prefix."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._buffer[self._ends[middle] : self._ends[middle + 1]] < name:
                low = middle + 1
            else:
                high = middle
        return low

    def lookup(self) -> Any:
        """Makes a graph function from an index (int64 scalar) to its name (string scalar)."""
        import tensorflow as tf  # Nothing else here needs it, and programs that read folders only start without it.

        buffer, ends, prefix = tf.constant(self._buffer), tf.constant(self._ends, tf.int64), self._prefix

        def name_at(index: Any) -> Any:
            start, end = tf.gather(ends, index), tf.gather(ends, index + 1)
            return tf.strings.join([prefix, tf.strings.substr(buffer, start, end - start)])

        return name_at

    def _replace(self, **changes: Any) -> "Names":
        names = Names.__new__(Names)
        names.__dict__.update({**self.__dict__, **changes})
        return names

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Names": ...
    def __getitem__(self, index: int | slice) -> "str | Names":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        index = range(len(self))[index]
        return os.fsdecode(self._prefix + self._buffer[self._ends[index] : self._ends[index + 1]])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends[1:].tolist():
            yield os.fsdecode(self._prefix + self._buffer[start:end])
            start = end

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Names({len(self)} names)"

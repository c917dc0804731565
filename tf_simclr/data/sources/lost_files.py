"""Records which files of a source turned out to be broken while they were read, and stops where too many are."""

import functools
from typing import TYPE_CHECKING

from tf_simclr.data.files.names import in_print

if TYPE_CHECKING:
    from tf_simclr.data.sources.files import FileSource

# How many files in a row may be broken before a run stops: a few are an accident, this many a lost disk.
MAX_IN_A_ROW = 100


def report(source: "FileSource", wanted: int, used: int) -> int:
    """Records the files from the wanted one up to the one used as broken, which may be too many."""
    _record(source, _newly_broken(source, wanted, used))
    source.broken.check()
    return used


def report_gap(source: "FileSource", wanted: int, used: int) -> int:
    """The same for an evaluation, which stops only if a whole disk seems lost."""
    new = _newly_broken(source, wanted, used)
    if len(new) >= MAX_IN_A_ROW and not source.broken.are_expected:
        first = source.reported_paths[new[0]]
        raise ValueError(
            f"Fewer than {MAX_IN_A_ROW} files in a row may be broken: put them back, or remove them. "
            f"Received: {len(new)}, the first of them {in_print(first)} ({source.reason(new[0])})"
        )
    _record(source, new)
    return used


def _newly_broken(source: "FileSource", wanted: int, used: int) -> list[int]:
    """The files from the wanted one up to the one used that were not known to be broken."""
    paths = source.reported_paths
    found = (i % len(paths) for i in range(wanted, used if used > wanted else used + len(paths)))
    return [i for i in found if paths[i] not in source.broken]


def _record(source: "FileSource", new: list[int]) -> None:
    paths = source.reported_paths
    source.broken.add({paths[i]: functools.partial(source.reason, i) for i in new})

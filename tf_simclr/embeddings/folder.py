"""Reads a folder of embeddings."""

import errno
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tf_simclr import files
from tf_simclr.runs import embedding_files

# Vectors up to this many bytes are kept in memory, more in a temporary file.
_MAX_IN_MEMORY = 1 << 30


class Embeddings:
    """The embeddings of intact images, in the order of the files.

    Attributes:
      about: What they follow from; see `embedding_files.check_same`.
      num_broken: How many images are broken.
      folder: Where they are.

    Args:
      folder: The `--output_dir` of `--mode=embed`, with the files of all shards.

    Raises:
      ValueError: If there are none, or they are of different models.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = pathlib.Path(folder)
        self._files = embedding_files.list_files(self.folder)
        if not self._files:
            raise ValueError(
                f"The folder must hold embeddings: run.py --mode=embed --output_dir={folder} makes them. "
                f"Received: {folder}"
            )
        tables, self.about, self.num_broken = [], dict[str, Any](), 0
        for path in self._files:
            opened, about = embedding_files.open_file(path)
            self.about = self.about or about
            if about["model"] != self.about["model"]:
                raise ValueError(
                    "Embeddings of different models cannot be compared: keep them in folders of their own. "
                    f"Received: {self._files[0]} and {path}"
                )
            table = opened.read(["path", "path_bytes", "label", "valid"])
            tables.append(table.filter(table["valid"]))
            self.num_broken += table.num_rows - tables[-1].num_rows
        self._table = pa.concat_tables([table.replace_schema_metadata() for table in tables]).combine_chunks()
        if not len(self):
            raise ValueError(f"At least one image must be intact. Received: {self.num_broken} broken ones in {folder}")

    def __len__(self) -> int:
        return self._table.num_rows

    def identity(self) -> str:
        """A digest of the names, sizes and times of the files, which changes with them."""
        found = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self._files]
        return files.digest(repr(found).encode())

    def path(self, row: int) -> str:
        """The path of an image, as `os.fsdecode` returns it."""
        content = self._table["path_bytes"][row].as_py()
        return self._table["path"][row].as_py() if content is None else os.fsdecode(content)

    def labels(self) -> np.ndarray:
        """The names of the classes, object [N]; None where unknown."""
        return self._table["label"].to_numpy()

    def find(self, path: str) -> int | None:
        """The row of the image at a path; None if it is not among these."""
        wanted = {path, os.path.abspath(path)}
        printed = pc.is_in(self._table["path"], pa.array([embedding_files.in_print(one) for one in wanted]))
        rows = np.flatnonzero(printed.to_numpy())
        return next((int(row) for row in rows if self.path(int(row)) in wanted), None)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the vectors file by file: (row of the first one, float32 [n, F] of unit length, or zeros)."""
        first = 0
        for path in self._files:
            table = embedding_files.open_file(path)[0].read(["embedding", "valid"])
            vectors = table["embedding"].combine_chunks()
            size = vectors.type.list_size
            vectors = vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, size).astype(np.float32)
            vectors = vectors[table["valid"].to_numpy()]
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            yield first, vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
            first += len(vectors)

    def vectors(self) -> np.ndarray:
        """All vectors, float32 [N, F] of unit length; in a temporary file if they are large."""
        found = np.empty([0, 0], np.float32)
        for first, block in self.blocks():
            if first == 0 and not found.size:
                found = _empty([len(self), block.shape[1]])
            found[first : first + len(block)] = block
        return found


def _empty(shape: list[int]) -> np.ndarray:
    if 4 * shape[0] * shape[1] <= _MAX_IN_MEMORY:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(prefix="tf_simclr_") as file:  # The map outlives the name.
        try:  # Writing to a map whose pages find no room on the disk would kill the process.
            if hasattr(os, "posix_fallocate"):  # Not on macOS.
                os.posix_fallocate(file.fileno(), 0, 4 * shape[0] * shape[1])
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # Or else, the file system cannot tell.
                raise OSError(
                    f"The embeddings need {4e-9 * shape[0] * shape[1]:.1f} GB for temporary files: set TMPDIR to a "
                    f"folder with more room. Received: {tempfile.gettempdir()} ({error.strerror})"
                ) from error
        return np.memmap(file, np.float32, "w+", shape=tuple(shape))

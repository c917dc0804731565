"""An approximate index of an archive, for many searches among many millions of images; by faiss."""

from typing import Any

import numpy as np

from tf_simclr import files
from tf_simclr.embeddings import neighbors
from tf_simclr.embeddings.folder import Embeddings

FILE, ABOUT = "index.faiss", "index.json"
# Vectors whose exact neighbours say how many of them the index finds, and how many each has.
_JUDGES, _NEIGHBORS = 200, 10
# The least share of them that it should find, and how many lists it may read for that.
_RECALL = 0.95
_PROBES = (4, 8, 16, 32, 64, 128, 256, 512)
# Vectors for each list that its centre is the mean of.
_PER_LIST = 40


class Index:
    """Lists of near vectors, rounded to 8 bits a feature, of which a search reads the nearest few.

    Kept in the folder of the embeddings, and built anew if these have changed. It takes a quarter of the memory of the
    vectors. It reads as many lists as it takes to find 95 % of the exact neighbours.

    Attributes:
      recall: The share of the 10 exact neighbours that it finds, measured on 200 images of the archive.

    Args:
      archive: The embeddings.

    Raises:
      ValueError: If faiss is not installed.
    """

    def __init__(self, archive: Embeddings):
        self._faiss = _import_faiss()
        path, about = archive.folder / FILE, archive.folder / ABOUT
        origin = {"archive": archive.identity(), "faiss": self._faiss.__version__}
        known = files.read_json(about) if about.is_file() and path.is_file() else {}
        if any(known.get(key) != value for key, value in origin.items()):
            about.unlink(missing_ok=True)
            self._index = self._build(archive)
            known = origin | self._judge(archive)
            with files.replacing(path) as beside:
                self._faiss.write_index(self._index, str(beside))
            files.write_json(about, known)
        else:
            self._index = self._faiss.read_index(str(path))
        self._index.nprobe, self.recall = known["lists_read"], known["recall"]

    def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """What `neighbors.search` returns, nearly; where fewer are found, the rows are -1."""
        likenesses, rows = self._index.search(np.ascontiguousarray(queries, np.float32), count)
        return rows, likenesses

    def _build(self, archive: Embeddings) -> Any:
        count = len(archive)
        num_lists = max(1, min(int(4 * count**0.5), count // _PER_LIST))
        # Every so many-th vector, since neighbours in the archive are alike.
        step = max(1, count // (_PER_LIST * num_lists))
        sample = np.concatenate([block[-first % step :: step] for first, block in archive.blocks()])
        index = self._faiss.index_factory(sample.shape[1], f"IVF{num_lists},SQ8", self._faiss.METRIC_INNER_PRODUCT)
        index.train(sample)
        for _, block in archive.blocks():
            index.add(block)
        return index

    def _judge(self, archive: Embeddings) -> dict[str, Any]:
        """The fewest lists to read that find enough of the exact neighbours, and the share that they find."""
        wanted = set(np.linspace(0, len(archive) - 1, min(_JUDGES, len(archive))).astype(int).tolist())
        judges = np.stack(
            [block[row - first] for first, block in archive.blocks() for row in wanted if 0 <= row - first < len(block)]
        )
        exact, _ = neighbors.search(judges, archive.blocks(), _NEIGHBORS)
        probes = [number for number in _PROBES if number < self._index.nlist] + [self._index.nlist]
        for lists_read in probes:
            self._index.nprobe = lists_read
            found, _ = self.search(judges, exact.shape[1])
            recall = float(np.mean([np.isin(one, other).mean() for one, other in zip(exact, found, strict=True)]))
            if recall >= _RECALL or lists_read == probes[-1] or lists_read == _PROBES[-1]:
                break
        return {"lists_read": lists_read, "lists": self._index.nlist, "recall": recall}


def _import_faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--approximate takes faiss: pip install -r requirements-index.txt. Received: no {error.name}"
        ) from None
    return faiss

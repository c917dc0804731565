"""Approximate indexes against the exact search: processor time to build and to ask, recall and size.

    python benchmarks/index.py
    python benchmarks/index.py --vectors=1000000 --features=256

Measures faiss (HNSW graphs, and inverted lists of vectors in 8 bits), hnswlib and usearch, those that are installed,
and the exact search, on the same made-up vectors: clusters of clusters, as representations are, of unit length. All
take one thread. Recall is the share of the 10 exact neighbours among the 10 found, over 500 queries that are not in the
index. Of each index, prints a row for every effort of the search.
"""

import argparse
import importlib
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.arguments import at_least_1  # noqa: E402
from tf_simclr.embeddings import neighbors  # noqa: E402

QUERIES, NEIGHBORS = 500, 10
LINKS, EFFORT = 16, 100  # Of a graph: links of a vector, and candidates while it is built.


class Index(NamedTuple):
    """A built index.

    Attributes:
      efforts: How hard it searches, in increasing order.
      search: From (queries, effort) to rows int64 [Q, 10].
      write: Writes it to a path.
    """

    efforts: tuple[int, ...]
    search: Callable[[np.ndarray, int], np.ndarray]
    write: Callable[[str], Any]


def faiss_hnsw(vectors: np.ndarray) -> Index:
    """A graph of faiss."""
    faiss = importlib.import_module("faiss")
    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EFFORT
    index.add(vectors)

    def search(queries: np.ndarray, effort: int) -> np.ndarray:
        index.hnsw.efSearch = effort
        return index.search(queries, NEIGHBORS)[1]

    return Index((16, 64, 256), search, lambda path: faiss.write_index(index, path))


def faiss_lists(vectors: np.ndarray) -> Index:
    """Inverted lists of faiss, whose vectors are rounded to 8 bits a feature."""
    faiss = importlib.import_module("faiss")
    faiss.omp_set_num_threads(1)
    lists = int(4 * len(vectors) ** 0.5)
    index = faiss.index_factory(vectors.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[np.random.default_rng(0).permutation(len(vectors))[: 40 * lists]])
    index.add(vectors)

    def search(queries: np.ndarray, effort: int) -> np.ndarray:
        index.nprobe = effort
        return index.search(queries, NEIGHBORS)[1]

    return Index((4, 16, 64, 256), search, lambda path: faiss.write_index(index, path))


def hnswlib(vectors: np.ndarray) -> Index:
    """A graph of hnswlib."""
    index = importlib.import_module("hnswlib").Index("ip", vectors.shape[1])
    index.init_index(len(vectors), M=LINKS, ef_construction=EFFORT)
    index.set_num_threads(1)
    index.add_items(vectors)

    def search(queries: np.ndarray, effort: int) -> np.ndarray:
        index.set_ef(effort)
        return index.knn_query(queries, NEIGHBORS)[0].astype(np.int64)

    return Index((16, 64, 256), search, index.save_index)


def usearch(vectors: np.ndarray) -> Index:
    """A graph of usearch."""
    index = importlib.import_module("usearch.index").Index(
        ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=LINKS, expansion_add=EFFORT
    )
    index.add(np.arange(len(vectors)), vectors, threads=1)

    def search(queries: np.ndarray, effort: int) -> np.ndarray:
        index.expansion_search = effort
        return index.search(queries, NEIGHBORS, threads=1).keys.astype(np.int64)

    return Index((16, 64, 256), search, index.save)


def make_vectors(count: int, features: int) -> np.ndarray:
    """Vectors of unit length, around centres that lie around others, in about 40 directions each."""
    generator = np.random.default_rng(0)
    centers = generator.standard_normal([100, features], np.float32)
    centers = np.repeat(centers, 20, axis=0) + 0.7 * generator.standard_normal([2000, features], np.float32)
    basis = generator.standard_normal([40, features], np.float32)
    found = np.empty([count, features], np.float32)
    for first in range(0, count, 8192):
        block = found[first : first + 8192]
        block[:] = centers[generator.integers(0, len(centers), len(block))]
        block += generator.standard_normal([len(block), 40], np.float32) @ basis
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return found


def measure(
    name: str, make: Callable[[np.ndarray], Index], vectors: np.ndarray, queries: np.ndarray, exact: np.ndarray
) -> Iterator[str]:
    """A row for every effort."""
    start = time.process_time()
    index = make(vectors)
    built = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "index")
        index.write(path)
        size = os.path.getsize(path)
    for effort in index.efforts:
        start = time.process_time()
        rows = index.search(queries, effort)
        asked = time.process_time() - start
        recall = np.mean([np.isin(one, other).mean() for one, other in zip(exact, rows, strict=True)])
        yield f"{name:12} {built:10.1f} {size / 1e6:9.0f} {effort:8} {1e3 * asked / len(queries):9.3f} {recall:8.3f}"


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vectors", type=at_least_1, default=200_000)
    parser.add_argument("--features", type=at_least_1, default=256)
    options = parser.parse_args()
    made = make_vectors(options.vectors + QUERIES, options.features)
    vectors, queries = made[:-QUERIES], made[-QUERIES:]
    print(f"{options.vectors:,} vectors of {options.features} features")
    print("index           built, s   size, MB  effort  query, ms   recall")
    start = time.process_time()
    exact, _ = neighbors.search(queries, neighbors.split(vectors), NEIGHBORS)
    asked = time.process_time() - start
    size = vectors.nbytes / 1e6
    print(f"{'exact':12} {0:10.1f} {size:9.0f} {'':8} {1e3 * asked / len(queries):9.3f} {1:8.3f}", flush=True)
    for make in (faiss_hnsw, faiss_lists, hnswlib, usearch):
        try:
            for row in measure(make.__name__, make, vectors, queries, exact):
                print(row, flush=True)
        except ModuleNotFoundError as error:
            print(f"{make.__name__:12} {error}")


if __name__ == "__main__":
    main()

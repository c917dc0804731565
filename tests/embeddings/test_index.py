"""The approximate index against the exact search, and when it is built."""

import os
import sys

import numpy as np
import pytest

from tf_simclr.embeddings import __main__ as program
from tf_simclr.embeddings import index, neighbors
from tf_simclr.embeddings.folder import Embeddings
from tf_simclr.runs import embedding_files
from tf_simclr.runs.embedding_files import Rows

COUNT = 3000
ABOUT = {"model": {}, "dtype": "float32", "shards": 1, "shard": 0, "images": "", "rows": COUNT, "model_path": ""}

faiss = pytest.importorskip("faiss")


@pytest.fixture
def folder(tmp_path):
    """Embeddings around 30 places in three files, sorted by place, one of them broken."""
    generator = np.random.default_rng(0)
    found = np.repeat(generator.normal(size=[30, 16]), COUNT // 30, axis=0) + generator.normal(size=[COUNT, 16])
    for number, rows in enumerate(np.split(np.arange(COUNT), [700, 2000])):
        reasons = ["no image" if row == 5 else "" for row in rows]
        part = Rows([f"/{row}.png" for row in rows], found[rows].astype(np.float32), reasons, [None] * len(rows))
        embedding_files.write(embedding_files.path_of(tmp_path, (0, 1), number), part, ABOUT)
    return tmp_path


def test_it_finds_the_share_of_the_exact_neighbours_that_it_says(folder):
    archive = Embeddings(folder)
    made = index.Index(archive)
    queries = archive.vectors()[1::7]
    exact, likenesses = neighbors.search(queries, archive.blocks(), 10)
    rows, found = made.search(queries, 10)
    recall = np.mean([np.isin(one, other).mean() for one, other in zip(exact, rows, strict=True)])
    assert made.recall >= 0.95 and recall == pytest.approx(made.recall, abs=0.02)
    np.testing.assert_array_equal(rows[:, 0], np.arange(len(archive))[1::7])  # A vector's nearest is itself.
    np.testing.assert_allclose(found[:, 0], likenesses[:, 0], atol=0.02)  # 8 bits a feature.


def test_it_is_built_once_and_anew_for_other_embeddings(folder, monkeypatch):
    first = index.Index(Embeddings(folder))
    with monkeypatch.context() as patch:
        patch.setattr(index.Index, "_build", lambda *arguments: pytest.fail("built again"))
        assert index.Index(Embeddings(folder)).recall == first.recall
    path = embedding_files.list_files(folder)[-1]
    os.utime(path, ns=(1, 1))
    built = []
    build = index.Index._build
    monkeypatch.setattr(index.Index, "_build", lambda *arguments: built.append(1) or build(*arguments))
    index.Index(Embeddings(folder))
    assert built == [1]


def test_the_search_names_its_recall(folder, capsys):
    program.main([str(folder), "search", "--query=/7.png", "--count=3", "--approximate"])
    title, header, best, *_ = capsys.readouterr().out.split("\n")
    assert "/7.png, by an index that finds" in title and "of the exact ones" in title
    assert "/7.png" in best


def test_without_faiss_a_sentence_names_what_to_install(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SystemExit) as stop:
        program.main([str(folder), "search", "--query=/7.png", "--approximate"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "tf_simclr.embeddings: --approximate takes faiss: pip install -r requirements-index.txt. Received: no faiss\n"
    )

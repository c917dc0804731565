"""Searching, cleaning and choosing by embeddings: against loops over all pairs, and files that are read back."""

import base64
import errno
import io
import os
import pathlib
import re
import tarfile
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tf_simclr.data.files import lists
from tf_simclr.data.sources import from_folder, open_images
from tf_simclr.embeddings import __main__ as program
from tf_simclr.embeddings import duplicates, neighbors, oddities, output, pictures, selection
from tf_simclr.embeddings.folder import Embeddings
from tf_simclr.runs import embedding_files
from tf_simclr.runs.embedding_files import Rows

HOSTILE = "<script>alert(1)</script>\n\t\u202e"
ABOUT = {"model": {"weights": "a", "image_size": 16}, "model_path": "/nowhere", "shard": 0}


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def vectors():
    return unit(np.random.default_rng(0).normal(size=[57, 6]))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbors, "_QUERIES", 8)
    monkeypatch.setattr(neighbors.split, "__defaults__", (5,))


@pytest.fixture
def archive(vectors, tmp_path):
    """Image files of two classes, with names of any bytes, a copy and a broken one; their embeddings in two files."""
    names = [f"{index:02}.png" for index in range(30)]
    names[3], names[4], names[5] = HOSTILE.replace("/", "_") + ".png", "caf\udce9.png", "=1+1.png"
    (tmp_path / "images").mkdir()
    paths = [str(tmp_path / "images" / name) for name in names]
    for index, path in enumerate(paths):
        Image.new("RGB", (20 + index, 12), (8 * index, 0, 0)).save(path)
    labels = [("b" if row % 2 else "a") if row else None for row in range(30)]
    labels[7] = HOSTILE
    found = vectors[:30] * 3
    found[9] = found[8] * 1.5
    reasons = ["" if row != 20 else "no image" for row in range(30)]
    (tmp_path / "out").mkdir()
    for number, part in enumerate((slice(0, 16), slice(16, 30))):
        rows = Rows(paths[part], found[part], reasons[part], labels[part])
        embedding_files.write(embedding_files.path_of(tmp_path / "out", (0, 1), number), rows, ABOUT)
    return tmp_path / "out"


def run(capsys, *arguments):
    program.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_what_was_written_is_read(archive, vectors):
    read = Embeddings(archive)
    assert (len(read), read.num_broken, read.about["model_path"]) == (29, 1, "/nowhere")
    expected = np.delete(vectors[:30], 20, axis=0)
    expected[9] = expected[8]
    np.testing.assert_allclose(read.vectors(), expected, rtol=1e-5, atol=1e-7)
    assert read.path(4).endswith("caf\udce9.png") and read.labels()[:3].tolist() == [None, "b", "a"]
    assert [read.find(read.path(row)) for row in (3, 4, 28)] == [3, 4, 28]
    assert read.find("nowhere.png") is None


def test_neighbours_are_those_of_a_loop(vectors, small_blocks):
    alike = np.array([[np.dot(a, b) for b in vectors] for a in vectors])
    rows, found = neighbors.search(vectors[:7], neighbors.split(vectors), 9)
    for query in range(7):
        expected = sorted(range(57), key=lambda other: -alike[query, other])[:9]
        assert rows[query].tolist() == expected
        np.testing.assert_allclose(found[query], alike[query, expected], rtol=1e-5, atol=1e-6)
    rows, _ = neighbors.nearest(vectors, 4)
    for row in range(57):
        assert rows[row].tolist() == sorted(set(range(57)) - {row}, key=lambda other: -alike[row, other])[:4]
    pairs, found = neighbors.pairs(vectors, 0.5)
    expected = [(i, j) for i in range(57) for j in range(i + 1, 57) if alike[i, j] >= 0.5]
    assert sorted(map(tuple, pairs.tolist())) == expected and len(expected) > 20
    np.testing.assert_allclose(found, alike[pairs[:, 0], pairs[:, 1]], rtol=1e-5)


def test_too_many_pairs_are_refused(vectors, monkeypatch):
    monkeypatch.setattr(neighbors, "MAX_PAIRS", 50)
    with pytest.raises(ValueError, match=r"More than 50 pairs are so similar: raise it. Received: -0.5"):
        neighbors.pairs(vectors, -0.5)


def test_many_copies_of_one_vector_have_others_as_neighbours(small_blocks):
    same = np.ones([23, 4], np.float32) / 2
    rows, alike = neighbors.nearest(same, 3)
    assert rows.shape == (23, 3) and (alike == 1).all()
    assert all(row not in found and len(set(found)) == 3 for row, found in enumerate(rows.tolist()))


def test_equal_vectors_are_pairs_at_a_similarity_of_1():
    vectors = np.repeat(unit(np.random.default_rng(1).normal(size=[50, 300])), 2, axis=0)
    rows, _ = neighbors.pairs(vectors, 1.0)
    assert rows.tolist() == [[2 * i, 2 * i + 1] for i in range(50)]


def test_groups_keep_what_is_worth_most_and_do_not_chain():
    pairs = np.array([[0, 1], [1, 2], [2, 3], [5, 6]])
    groups = duplicates.group(pairs, np.array([0.99, 0.98, 0.97, 0.96]), lambda row: row == 1)
    assert groups == [
        duplicates.Group(1, [0, 2], [0.99, 0.98]), duplicates.Group(5, [6], [0.96])
    ]  # fmt: skip


def test_selections(vectors):
    chosen = selection.spread(vectors, 6).tolist()
    assert chosen[0] == int(np.argmax(vectors @ vectors.mean(axis=0)))
    for count in range(1, 6):  # Each is the farthest from those before it.
        farthest = min(
            set(range(57)) - set(chosen[:count]), key=lambda row: max(vectors[chosen[:count]] @ vectors[row])
        )
        assert chosen[count] == farthest
    rng = np.random.default_rng(1)
    means = np.eye(4, 6)
    clusters = np.repeat(means, [40, 10, 20, 30], axis=0)
    scales = np.concatenate([np.linspace(0, 0.2, size) for size in (40, 10, 20, 30)])
    vectors_of_clusters = unit(clusters + scales[:, None] * rng.normal(size=[100, 6]))
    found = selection.typical(vectors_of_clusters, 4)
    assert [int(np.argmax(clusters[row])) for row in found] == [0, 3, 2, 1]  # The largest cluster first.
    for row in found:
        members = np.flatnonzero((clusters == clusters[row]).all(axis=1))
        alike = np.sort(vectors_of_clusters[members] @ vectors_of_clusters[members].T, axis=1)[:, :-1]
        assert row == members[np.argmax(alike[:, -20:].mean(axis=1))]
    for method in selection.METHODS.values():
        assert sorted(method(vectors, 57).tolist()) == list(range(57))


def test_an_outlier_and_a_wrong_label_are_found():
    rng = np.random.default_rng(0)
    vectors = np.repeat(np.eye(2, 5), 20, axis=0) + 0.05 * rng.normal(size=[40, 5])
    labels = np.repeat(np.array(["a", "b"], object), 20)
    labels[[3, 30]] = ["b", None]
    vectors[7] = np.eye(5)[4]
    rows, alike = oddities.outliers(unit(vectors), 2)
    assert rows[0] == 7 and alike[0] < 0.5 < alike[1]
    found = oddities.suspects(unit(np.delete(vectors, 7, axis=0)), np.delete(labels, 7))
    assert (found.rows.tolist(), found.proposed.tolist()) == ([3], ["a"])
    assert found.agreement[0] < 0.1 and found.confidence[0] > 0.9
    with pytest.raises(ValueError, match="at least two classes"):
        oddities.suspects(unit(vectors), np.full(40, None, object))


def test_every_action_prints_a_table_without_anything_that_does_not_print(archive, capsys):
    query = Embeddings(archive).path(3)
    actions = {
        "search": ["--query", query, "--count", 30], "dedupe": [], "select": ["--count", 30],
        "outliers": [], "suspects": [],
    }  # fmt: skip
    for action, arguments in actions.items():
        text = run(capsys, archive, action, *arguments)
        assert all(line.isprintable() for line in text.rstrip("\n").split("\n")), action
        assert "\udce9" not in text
    first, header, best, *_ = run(capsys, archive, "search", "--query", query).split("\n")
    assert first.startswith("The 10 of 29 images most similar to") and header.split() == ["similarity", "label", "path"]
    assert best.startswith("1.0000")
    groups = run(capsys, archive, "dedupe").split("\n")
    assert groups[0] == "1 groups of near duplicates, 1 images too many of 29"
    assert [line.split()[1] for line in groups[2:4]] == ["yes", "no"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_data_dir_takes_back_what_is_written(suffix, archive, tmp_path, capsys):
    file = tmp_path / f"chosen.{suffix}"
    run(capsys, archive, "select", "--count", 29, "--output", file)
    read = Embeddings(archive)
    labels = {read.path(row): read.labels()[row] for row in range(29)}
    if suffix == "csv":
        assert {path: label for path, _, label in lists.read(str(file))} == labels
        source = from_folder(str(file), max_cached_bytes=0)
    else:
        source = open_images(str(file))
    assert source.num_examples == 29
    assert sorted(source.class_names) == sorted({label for label in labels.values() if label})
    assert (source.labels < 0).sum() == 1


def test_the_images_are_in_the_parquet_file(archive, tmp_path, capsys):
    run(capsys, archive, "outliers", "--output", tmp_path / "found.parquet")
    rows = pq.read_table(tmp_path / "found.parquet").to_pylist()
    assert len(rows) == 29
    for row in rows:
        path = row["path"].replace("\\udce9", "\udce9")
        assert row["image"] == pathlib.Path(path).read_bytes()


def test_the_page_takes_hostile_names_for_text(archive, tmp_path, capsys):
    read = Embeddings(archive)
    (tmp_path / "images" / "06.png").unlink()
    run(capsys, archive, "search", "--query", read.path(3), "--count", 29, "--html", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text and "\u202e" not in text
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src &#39;none&#39;; img-src data:; style-src &#39;sha256-")
    assert "script-src" not in policy and "unsafe" not in policy
    assert text.count('<img src="data:image/jpeg;base64,') == 28 and text.count("cannot be read") == 1
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)


def test_a_thumbnail_is_small_and_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # A quarter turn.
    Image.new("RGB", (1000, 400)).save(tmp_path / "a.jpg", exif=exif)
    content = pictures.thumbnail(str(tmp_path / "a.jpg")).partition(",")[2]
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (64, 160)
    assert pictures.thumbnail(str(tmp_path)) is None


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_members_of_archives_are_files_too(suffix, vectors, tmp_path, capsys):
    contents = {"small.png": Image.new("RGB", (9, 9)), "large.png": Image.effect_noise((90, 90), 50).convert("RGB")}
    for name, image in contents.items():
        image.save(tmp_path / name)
    archive = tmp_path / f"photos{suffix}"
    with zipfile.ZipFile(archive, "w") if suffix == ".zip" else tarfile.open(archive, "w") as file:
        for name in contents:
            (file.write if suffix == ".zip" else file.add)(tmp_path / name, f"a/{name}")
    paths = [f"{archive}/a/{name}" for name in (*contents, "gone.png")]
    (tmp_path / "out").mkdir()
    rows = Rows(paths, np.repeat(vectors[:1], 3, axis=0), ["", "", ""], [None] * 3)
    embedding_files.write(embedding_files.path_of(tmp_path / "out", (0, 1), 0), rows, ABOUT)
    run(capsys, tmp_path / "out", "dedupe", "--output", tmp_path / "a.parquet", "--html", tmp_path / "a.html")
    found = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [pathlib.Path(row["path"]).name for row in found] == ["large.png", "small.png", "gone.png"]
    assert [row["keep"] for row in found] == ["yes", "no", "no"]
    assert [row["image"] for row in found] == [*((tmp_path / name).read_bytes() for name in reversed(contents)), None]
    assert (tmp_path / "a.html").read_text(encoding="utf-8").count('<img src="data:image/jpeg;base64,') == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{tmp}/nowhere", "dedupe"], "The folder must hold embeddings"),
        (["{out}", "outliers", "--output", "{tmp}/a.txt"], "--output must end in .csv or .parquet"),
        (["{out}", "search", "--query", "{tmp}/nowhere.png"], "nowhere"),
    ],
)
def test_bad_input_ends_in_one_sentence(arguments, expected, archive, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        program.main([text.format(tmp=tmp_path, out=archive) for text in arguments])
    said = capsys.readouterr().err
    assert end.value.code == 2 and expected in said and said.count("\n") == 1


def test_embeddings_of_two_models_are_refused(archive, vectors):
    rows = Rows(["a"], vectors[:1], [""], [None])
    other = ABOUT | {"model": {"weights": "b"}}
    embedding_files.write(embedding_files.path_of(archive, (1, 2), 0), rows, other)
    with pytest.raises(ValueError, match="Embeddings of different models"):
        Embeddings(archive)


def test_large_sets_lie_in_a_file(archive, monkeypatch):
    import tf_simclr.embeddings.folder as module

    expected = Embeddings(archive).vectors()
    monkeypatch.setattr(module, "_MAX_IN_MEMORY", 0)
    found = Embeddings(archive).vectors()
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, expected)


def test_output_shows_the_end_of_a_long_path():
    found = output.Found("Title", ["/a" * 100 + "/z.png"], [None], {"similarity": [0.5]})
    *_, line = output.table(found).split("\n")
    assert line.startswith("0.5000      ...") and line.endswith("/z.png") and len(line) < 90


def test_a_disk_without_room_for_a_large_set_is_said(archive, monkeypatch):
    import tf_simclr.embeddings.folder as module

    def fail(*_):
        raise error

    monkeypatch.setattr(module, "_MAX_IN_MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", fail)
    error = OSError(errno.EOPNOTSUPP, "Operation not supported")  # Then the room is not known.
    assert len(Embeddings(archive).vectors())
    error = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match=r"need 0\.0 GB for temporary files: set TMPDIR .*No space left on device"):
        Embeddings(archive).vectors()

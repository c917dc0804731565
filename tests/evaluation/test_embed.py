"""Embedding an archive: rows against means of the pixels, files that continue, and what is refused."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from paths import ROOT

from tf_simclr import builders
from tf_simclr.evaluation import embed
from tf_simclr.evaluation.archive import Archive
from tf_simclr.runs import embedding_files
from tf_simclr.runs.embedding_files import list_files
from tf_simclr.settings import RunConfig, override, to_dict

COUNT = 21
ODD_NAMES = {3: b"caf\xe9 <script>\n\t.png", 5: "שלום\u202e.png".encode()}
BROKEN = 7


def image(index):
    return np.random.default_rng(index).integers(0, 256, [16, 16, 3], np.uint8)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images of two classes in one file each, one of them broken, and a link that leads nowhere."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(COUNT):
        name = ODD_NAMES.get(index, f"{index:02}.png".encode())
        path = os.path.join(os.fsencode(folder), b"odd" if index % 2 else b"even", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"no image" if index == BROKEN else tf.io.encode_png(image(index)).numpy())
    (folder / "even" / "lost.png").symlink_to("nowhere")
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A SavedModel that returns the means of the channels, a thousandfold."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32)])
    def embed_pixels(pixels):
        return {"embedding": 1000 * tf.reduce_mean(pixels, axis=[1, 2])}

    path = str(tmp_path_factory.mktemp("model") / "means")
    tf.saved_model.save(module, path, {"serving_default": embed_pixels})
    return path


@pytest.fixture(autouse=True)
def small_files(monkeypatch, quick_decoder):
    monkeypatch.setattr(embedding_files, "ROWS_PER_FILE", 5)
    monkeypatch.setattr(embed, "_CALIBRATION_SECONDS", 0.0)


def config_of(images, encoder, output, **changes):
    settings = {
        "mode": "embed", "data.dataset": "folder", "data.data_dir": str(images), "data.image_size": 16,
        "embed.encoder": encoder, "embed.output_dir": str(output), "eval.batch_size": 4,
    }  # fmt: skip
    return override(RunConfig(), settings | {name.replace("__", "."): value for name, value in changes.items()})


def run(*arguments, **changes):
    return embed.embed(config_of(*arguments, **changes), tf.distribute.get_strategy())


def read(folder):
    return pa.concat_tables([pq.read_table(path).replace_schema_metadata() for path in list_files(folder)])


def path_at(images, index):
    name = ODD_NAMES.get(index, f"{index:02}.png".encode())
    return os.path.join(os.fsencode(images), b"odd" if index % 2 else b"even", name)


def test_every_image_is_a_row_and_a_broken_one_says_why(images, encoder, tmp_path):
    report = run(images, encoder, tmp_path)
    rows = read(tmp_path).to_pylist()
    assert [pq.read_metadata(path).num_rows for path in list_files(tmp_path)] == [5, 5, 5, 5, 2]
    by_path = {row["path_bytes"] or row["path"].encode(): row for row in rows}
    assert len(by_path) == len(rows) == COUNT + 1
    for index in range(COUNT):
        row = by_path.pop(path_at(images, index))
        assert row["label"] == ("odd" if index % 2 else "even")
        expected = 1000 * image(index).mean(axis=(0, 1)) / 255
        assert (row["valid"], row["reason"] == "") == ((index != BROKEN),) * 2
        np.testing.assert_allclose(row["embedding"], 0 if index == BROKEN else expected, rtol=1e-5)
        row["path"].encode()  # It can be printed.
    ((lost, row),) = by_path.items()
    assert lost.endswith(b"lost.png") and row["reason"] == "the link leads nowhere" and row["embedding"] == [0, 0, 0]
    assert "Embedded 22 images" in report and "(2 of them broken)" in report
    assert "was the limit: alone, the network makes" in report


def test_two_runs_make_the_same_files_and_shards_part_the_images(images, encoder, tmp_path):
    run(images, encoder, tmp_path / "a")
    run(images, encoder, tmp_path / "b")
    for first, second in zip(list_files(tmp_path / "a"), list_files(tmp_path / "b"), strict=True):
        assert first.read_bytes() == second.read_bytes()
    for shard in ("1/3", "0/3", "2/3"):
        run(images, encoder, tmp_path / "c", embed__shard=shard)
    whole, parted = read(tmp_path / "a").sort_by("path"), read(tmp_path / "c").sort_by("path")
    assert whole.equals(parted)
    assert len({path.name[:25] for path in list_files(tmp_path / "c")}) == 3


def test_what_is_there_is_not_made_again(images, encoder, tmp_path):
    run(images, encoder, tmp_path)
    before = {path: path.read_bytes() for path in list_files(tmp_path)}
    assert run(images, encoder, tmp_path) == f"All 22 embeddings are in {tmp_path} already"
    gone = [list_files(tmp_path)[index] for index in (1, 3, 4)]
    for path in gone:
        path.unlink()
    stamps = {path: path.stat().st_mtime_ns for path in list_files(tmp_path)}
    assert "Embedded 12 images" in run(images, encoder, tmp_path)
    assert before == {path: path.read_bytes() for path in list_files(tmp_path)}
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


_KILLED = """
import json, os, signal, sys
import pyarrow.parquet as pq
import tensorflow as tf
from tf_simclr import builders
from tf_simclr.evaluation import embed
from tf_simclr.runs import embedding_files
from tf_simclr.settings import from_dict

write, written = pq.write_table, []

def write_and_die(table, where, **options):
    written.append(where)
    if len(written) == 3:
        where.write(b"half a file")
        where.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    write(table, where, **options)

pq.write_table = write_and_die
embedding_files.ROWS_PER_FILE, embed._CALIBRATION_SECONDS = 5, 0.0
embed.embed(from_dict(json.load(sys.stdin)), tf.distribute.get_strategy())
"""


def test_a_kill_costs_one_file(images, encoder, tmp_path):
    settings = json.dumps(to_dict(config_of(images, encoder, tmp_path / "a")))
    done = subprocess.run([sys.executable, "-c", _KILLED], input=settings, cwd=ROOT, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    stamps = {path: path.stat().st_mtime_ns for path in list_files(tmp_path / "a")}
    assert len(stamps) == 2
    assert "Embedded 12 images" in run(images, encoder, tmp_path / "a")
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    run(images, encoder, tmp_path / "b")
    assert read(tmp_path / "a").equals(read(tmp_path / "b"))


def test_half_precision_says_what_it_cannot_hold(images, encoder, tmp_path, monkeypatch):
    run(images, encoder, tmp_path / "half", embed__dtype="float16")
    run(images, encoder, tmp_path / "full")
    half, full = read(tmp_path / "half"), read(tmp_path / "full")
    assert half.schema.field("embedding").type == pa.list_(pa.float16(), 3)
    assert full.schema.field("embedding").type == pa.list_(pa.float32(), 3)
    np.testing.assert_allclose(half["embedding"].to_pylist(), full["embedding"].to_pylist(), rtol=1e-3)
    make = embed.make_encode
    monkeypatch.setattr(embed, "make_encode", lambda *arguments: lambda images: 500 * make(*arguments)(images))
    run(images, encoder, tmp_path / "large", embed__dtype="float16")
    large = read(tmp_path / "large").to_pylist()
    assert {row["reason"] for row in large} >= {"its embedding is not finite"}
    assert all(np.isfinite(row["embedding"]).all() for row in large)


def test_embeddings_of_something_else_are_refused_in_one_sentence(images, encoder, tmp_path):
    run(images, encoder, tmp_path)
    changed = {
        "another --embed_dtype": {"embed__dtype": "float16"},
        "another number of shards": {"embed__shard": "0/2"},
    }
    for expected, changes in changed.items():
        with pytest.raises(ValueError, match=f"^--output_dir holds embeddings of {expected}: [^\n]*$"):
            run(images, encoder, tmp_path, **changes)
    other = tf.Module()
    negative = tf.function(
        lambda pixels: {"embedding": -tf.reduce_mean(pixels, axis=[1, 2])},
        input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32)],
    )
    tf.saved_model.save(other, str(tmp_path / "other"), {"serving_default": negative})
    with pytest.raises(ValueError, match="holds embeddings of another model"):
        run(images, str(tmp_path / "other"), tmp_path)
    os.utime(path_at(images, 0), (1, 1))
    with pytest.raises(ValueError, match="holds embeddings of other images, or the same ones before they changed"):
        run(images, encoder, tmp_path)
    list_files(tmp_path)[0].write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="A file of embeddings cannot be read"):
        run(images, encoder, tmp_path)


def test_a_folder_and_an_encoder_are_needed(images, encoder, tmp_path):
    with pytest.raises(ValueError, match="needs --output_dir"):
        run(images, encoder, tmp_path, embed__output_dir=None)
    with pytest.raises(ValueError, match=r"--shard: embed.shard must be i/n with 0 <= i < n. Received: 3/3"):
        run(images, encoder, tmp_path, embed__shard="3/3")
    with pytest.raises(FileNotFoundError, match="^--model_dir: model_dir: Found no weights"):
        run(images, None, tmp_path, model_dir=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="^--embed_encoder: embed.encoder: Found no weights"):
        run(images, str(tmp_path / "nowhere"), tmp_path)


def test_the_parts_of_a_data_set_keep_their_classes(images, encoder, tmp_path):
    for part in ("train", "test"):
        for name in ("odd", "even"):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            (tmp_path / "set" / part / name / "0.png").write_bytes(tf.io.encode_png(image(1)).numpy())
    run(tmp_path / "set", encoder, tmp_path / "out")
    rows = read(tmp_path / "out").to_pylist()
    assert [row["label"] for row in rows] == [row["path"].split("/")[-2] for row in rows]
    assert len(rows) == 4


def test_arrays_keep_the_names_of_their_images(encoder, tmp_path):
    stack = np.stack([image(index) for index in range(7)])
    np.savez(tmp_path / "set.npz", images=stack)
    run(tmp_path / "set.npz", encoder, tmp_path, embed__shard="0/2")
    run(tmp_path / "set.npz", encoder, tmp_path, embed__shard="1/2")
    rows = {int(row["path"]): row["embedding"] for row in read(tmp_path).to_pylist()}
    np.testing.assert_allclose([rows[index] for index in range(7)], 1000 * stack.mean(axis=(1, 2)) / 255, rtol=1e-5)


def test_batches_start_anywhere(images):
    archive = Archive(builders.build_archive(config_of(images, None, "unused").data))
    whole = [path for batch in archive.batches(0, archive.num_images, 16, 4) for path in batch.paths]
    for start, stop in ((0, 3), (3, 11), (20, 22), (21, 22)):
        batches = list(archive.batches(start, stop, 16, 4))
        assert [path for batch in batches for path in batch.paths] == whole[start:stop]
        assert np.concatenate([batch.positions for batch in batches]).tolist() == list(range(start, stop))


def test_records_are_rows_too_and_their_shards_part_them(encoder, tmp_path):
    contents = [tf.io.encode_png(image(index)).numpy() for index in range(9)]
    contents[3], contents[6] = b"no image", None
    labels = ["odd" if index % 2 else "even" for index in range(9)]
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"image": pa.array(contents, pa.binary()), "label": labels}), path)
    for shard in ("0/2", "1/2"):
        run(path, encoder, tmp_path / "out", embed__shard=shard)
    rows = {row["path"]: row for row in read(tmp_path / "out").to_pylist()}
    assert set(rows) == {f"{path}#record={index}" for index in range(9)}
    for index in range(9):
        row = rows[f"{path}#record={index}"]
        assert row["valid"] == (contents[index] is not None and index != 3)
        expected = 1000 * image(index).mean(axis=(0, 1)) / 255 if row["valid"] else 0
        np.testing.assert_allclose(row["embedding"], expected, rtol=1e-5)
        assert row["label"] == (None if index == 6 else labels[index])
    assert rows[f"{path}#record=6"]["reason"] == "no bytes in the column image"


def test_any_number_of_broken_images_may_follow_each_other(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_files, "ROWS_PER_FILE", 50)
    (tmp_path / "set").mkdir()
    for index in range(130):
        content = tf.io.encode_png(image(index)).numpy() if index in (2, 128) else b"no image"
        (tmp_path / "set" / f"{index:03}.png").write_bytes(content)
    assert "(128 of them broken)" in run(tmp_path / "set", encoder, tmp_path / "out")
    rows = read(tmp_path / "out").to_pylist()
    assert [index for index, row in enumerate(rows) if row["valid"]] == [2, 128]
    assert all("not a JPEG, PNG, GIF, BMP" in row["reason"] for row in rows if not row["valid"])

"""A search by an image that is not in the archive, with the model that has embedded the archive."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.embeddings import __main__ as program
from tf_simclr.evaluation import embed
from tf_simclr.settings import RunConfig, override


def save_model(path, factor):
    """A SavedModel that returns nine pixels."""
    nine = tf.function(
        lambda pixels: {"embedding": factor * tf.reshape(pixels[:, ::6, ::6], [-1, 27])},
        input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32)],
    )
    tf.saved_model.save(tf.Module(), str(path), {"serving_default": nine})


@pytest.fixture
def archive(tmp_path, monkeypatch, quick_decoder):
    monkeypatch.setattr(embed, "_CALIBRATION_SECONDS", 0.0)
    save_model(tmp_path / "model", 1.0)
    (tmp_path / "images").mkdir()
    for index in range(5):
        image = np.random.default_rng(index).integers(0, 256, [16, 16, 3], np.uint8)
        (tmp_path / "images" / f"{index}.png").write_bytes(tf.io.encode_png(image).numpy())
    settings = {
        "mode": "embed", "data.dataset": "folder", "data.data_dir": str(tmp_path / "images"), "data.image_size": 16,
        "embed.encoder": str(tmp_path / "model"), "embed.output_dir": str(tmp_path / "out"),
    }  # fmt: skip
    embed.embed(override(RunConfig(), settings), tf.distribute.get_strategy())
    shutil.copy(tmp_path / "images" / "3.png", tmp_path / "query.png")
    return tmp_path


def test_an_image_from_elsewhere_finds_its_copy(archive, capsys):
    program.main([str(archive / "out"), "search", "--query", str(archive / "query.png"), "--count", "2"])
    _, _, best, other = capsys.readouterr().out.rstrip("\n").split("\n")
    assert best.startswith("1.0000") and best.endswith("3.png") and not other.startswith("1.0000")


def refusal(capsys, *arguments):
    with pytest.raises(SystemExit):
        program.main([str(argument) for argument in arguments])
    return capsys.readouterr().err


def test_a_broken_query_and_a_model_that_has_changed_or_gone_are_refused(archive, capsys):
    (archive / "broken.png").write_bytes(b"no image")
    search = (archive / "out", "search", "--query")
    assert "--query must be an image that can be decoded" in refusal(capsys, *search, archive / "broken.png")
    shutil.rmtree(archive / "model")
    assert "Found no weights" in refusal(capsys, *search, archive / "query.png")
    save_model(archive / "model", 2.0)
    changed = refusal(capsys, *search, archive / "query.png")
    assert "The model that has made these embeddings has changed" in changed

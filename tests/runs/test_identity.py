"""Which images and settings a resumed run accepts: where images lie does not matter, what they are does."""

import shutil

import numpy as np
import pytest

from tf_simclr import builders, files
from tf_simclr.data import sources
from tf_simclr.runs import identity
from tf_simclr.settings import DataConfig, RunConfig, override


def write(folder, content, count=20):
    """Files that nobody decodes here."""
    for index in range(count):
        path = folder / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content + bytes([index]))


def test_images_may_move_but_not_change(tmp_path, monkeypatch):
    def check(place, step=5, tested=4, **settings):
        names = [f"{'ab'[index % 2]}/{index}.png" for index in range(20)]
        train, test = (sources.FileSource(str(place), some) for some in (names[:16], names[16 : 16 + tested]))
        data = DataConfig(data_dir=str(place), **settings)
        identity.check_same_images(builders.Sources(train, train, test), data, tmp_path, step)

    write(tmp_path / "d", b"one")
    check(tmp_path / "d", step=0)
    monkeypatch.chdir(tmp_path)
    for spelling in ("d", "d/", "./d", f"{tmp_path}//d"):
        check(spelling)
    shutil.move("d", "elsewhere")
    check("elsewhere", cache="disk")
    check("elsewhere")
    write(tmp_path / "same_names", b"other")
    with pytest.raises(ValueError, match="images have changed .* started: digest of 16 images was "):
        check("same_names")
    with pytest.raises(ValueError, match="started: test images was 4, is 2; "):
        check("elsewhere", tested=2)
    check("elsewhere", tested=2, eval_data_dir="labelled")


def test_records_may_move():
    def make(folder):
        files, labels = (f"{folder}/a.tfrecord", f"{folder}/b.tfrecord"), np.arange(30) % 2
        records = {"files": files, "counts": (10, 20), "indices": np.arange(30), "labels": labels}
        return sources.TfrecordSource(**records, image_feature="image")

    assert make("/d").identity() == make("/moved/to").identity()
    held_out = [sources.holdout(make(folder), 0.3)[1].indices.tolist() for folder in ("/d", "/moved/to")]
    assert held_out[0] == held_out[1] and held_out[0]


def test_a_record_of_an_earlier_version_is_read(photos, tmp_path):
    source = sources.ArraySource(photos, np.arange(16) % 2)
    files.write_json(tmp_path / "images.json", source.identity())
    images = builders.Sources(source, source, source)
    identity.check_same_images(images, DataConfig(), tmp_path, 5)
    assert set(files.read_json(tmp_path / "images.json")) == {"train", "probe", "test", "evaluation"}
    files.write_json(tmp_path / "images.json", source.identity() | {"images": 17})
    with pytest.raises(ValueError, match="started: images was 17, is 16. Put"):
        identity.check_same_images(images, DataConfig(), tmp_path, 5)


def test_a_path_may_be_spelt_in_another_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old = override(RunConfig(), {"checkpoint": "runs/a", "data.data_dir": "d"})
    new = override(old, {"checkpoint": f"{tmp_path}/runs/a/", "data.data_dir": "/elsewhere", "model_dir": "b"})
    identity.check_same_settings(old, new, tmp_path)
    with pytest.raises(ValueError, match="other settings: checkpoint was runs/a, is runs/b; seed was 0, is 1. Choose"):
        identity.check_same_settings(old, override(old, {"checkpoint": "runs/b", "seed": 1}), tmp_path)

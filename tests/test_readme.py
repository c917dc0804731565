"""The README's commands and snippets, executed."""

import re
import shlex

import pytest
import tensorflow as tf
from command import parse, parse_stages
from paths import ROOT

from tf_simclr.settings import RunConfig

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language, path=ROOT / "README.md"):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def test_snippets_run(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training, loading = blocks("python")
    smaller = {"depth=18": "depth=10, width_multiplier=0.1", "epochs=100": "epochs=1", "batch_size=256": "batch_size=8"}
    for text, replacement in smaller.items():
        assert text in training
        training = training.replace(text, replacement)
    exec(training, {"images": photos})

    paths = [str(tmp_path / "photo.png"), str(tmp_path / "broken.png")]
    tf.io.write_file(paths[0], tf.io.encode_png(photos[0]))
    tf.io.write_file(paths[1], b"no image")
    loading, found = re.subn(r"runs/shapes/saved_model/\d+", "encoder/1", loading)
    assert found == 1
    names = {"paths": paths}
    exec(loading, names)
    assert names["out"]["valid"].numpy().tolist() == [True, False]
    assert names["out"]["embedding"].shape[0] == 2


def test_python_commands_are_understood():
    commands = [
        line
        for path in (*DOCUMENTS, *sorted((ROOT / "configs").glob("*.py")))
        for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
        if line.strip().startswith("python run.py")
    ]
    assert len(commands) >= 4
    for command in commands:
        arguments = shlex.split(command, comments=True)[2:]
        if parse_stages(*arguments) is None:
            parse(*arguments, read_checkpoint=lambda path: RunConfig())


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {target for block in blocks("sh") for target in re.findall(r"^make ([\w-]+)", block, re.MULTILINE)}
    assert targets >= {"run", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\[[^\]\"]+\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (path.parent / target).exists(), target

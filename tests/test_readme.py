"""The README's commands and snippets, executed."""

import fnmatch
import re
import shlex

import pytest
import tensorflow as tf
from command import parse, parse_stages
from paths import ROOT

from tf_simclr.settings import SETTINGS, RunConfig
from tf_simclr.settings.command_line import SHORTHANDS

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


def test_every_part_of_the_papers_is_where_the_table_says():
    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    section = page.partition("## Where each part of the papers is\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0] not in ("part of the papers", "beyond the papers", "---")]
    assert len(rows) > 20
    known = {name for one in SETTINGS.values() for name in (one.flag, one.alias) if name} | set(SHORTHANDS)
    for _, modules, tests, settings, _ in rows:
        for path in re.findall(r"`([^`]+)`", modules + tests):
            root = ROOT if path.startswith(("configs", "tests")) else ROOT / "tf_simclr"
            before, names, after = (*re.split(r"[{}]", path), "", "")[:3]
            for name in names.split(","):
                assert list(root.glob(f"{before}{name}{after}")), path
        for flag in re.findall(r"`--([a-z_]+)", settings):
            assert flag in known or any(name.startswith(flag) for name in known) or flag == "config", flag
        for name in re.findall(r"`([a-z]+\.[a-z_*]+)`", settings):
            assert any(fnmatch.fnmatch(one, name) for one in SETTINGS), name

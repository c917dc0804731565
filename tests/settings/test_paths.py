""" "~" in the paths of settings: written out in one place, however a setting is made."""

import os
import pathlib
import pwd

import pytest
from command import parse

from tf_simclr.settings import (
    SETTINGS,
    DataConfig,
    DistillConfig,
    EmbedConfig,
    EvalConfig,
    RunConfig,
    from_dict,
    override,
    to_dict,
)

PATHS = {name for name, one in SETTINGS.items() if one.is_path}


@pytest.fixture(autouse=True)
def home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")


def test_which_settings_are_paths():
    assert {
        "model_dir", "checkpoint", "data.data_dir", "data.eval_data_dir", "eval.suite_dir", "eval.compare_encoders",
        "embed.output_dir", "embed.encoder", "distill.teacher",
    } == PATHS  # fmt: skip


@pytest.mark.parametrize("name", sorted(PATHS))
def test_every_way_to_set_a_path_expands_it(name):
    section, _, field = name.rpartition(".")
    given = ("~/a",) if SETTINGS[name].is_list else "~/a"
    of_section = {"distill": DistillConfig, "data": DataConfig, "eval": EvalConfig, "embed": EmbedConfig}
    made = RunConfig(**({section: of_section[section](**{field: given})} if section else {field: given}))
    expected = override(RunConfig(), {name: "/home/me/a"})
    assert made == override(RunConfig(), {name: "~/a"}) == expected
    assert parse("--dataset=x", f"--set={name}=~/a") == override(expected, {"data.dataset": "x", "name": "x"})
    saved = to_dict(RunConfig()) | ({section: {field: given}} if section else {field: "~/a"})
    assert from_dict(saved) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("~/a,~/b", "/home/me/a,/home/me/b"),
        ("/a, ~/b*", "/a, /home/me/b*"),
        ("~", "/home/me"),
        ("Smith, John/a~b", "Smith, John/a~b"),
        ("d/~/e", "d/~/e"),
        ("~no_such_user/a", "~no_such_user/a"),
        (pathlib.Path("~/a"), "/home/me/a"),
    ],
)
def test_a_tilde_counts_where_a_path_begins(path, expected):
    assert DataConfig(data_dir=path).data_dir == expected


def test_flags_that_are_read_first_are_expanded_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text("from tf_simclr.settings import RunConfig\ndef get_config(): return RunConfig()")
    assert parse("--config=~/mine.py", "--model_dir=~/run").model_dir == f"{tmp_path}/run"
    with pytest.raises(FileNotFoundError, match=f"Found no weights.* {tmp_path}/weights"):
        parse("--checkpoint=~/weights")


def test_without_a_home_a_tilde_is_refused(monkeypatch):
    def find_nobody(user_id):
        raise KeyError(user_id)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", find_nobody)
    assert os.path.expanduser("~") == "~"
    with pytest.raises(ValueError, match="no home for ~ .* or set HOME. Received: /a,~/b"):
        DataConfig(data_dir="/a,~/b")
    assert DataConfig(data_dir="/a~/b").data_dir == "/a~/b"

"""What the folders of runs and checkpoints say about settings, also those of earlier versions."""

import json

import pytest
from command import parse

from tf_simclr.runs.folder import open_run
from tf_simclr.runs.identity import check_same_settings
from tf_simclr.runs.saved_settings import settings_of_checkpoint, settings_of_run
from tf_simclr.settings import RunConfig, override, to_dict

# A config.json as the version before wrote it, cut to what tells the architecture and some more.
VERSION_1 = {
    "name": "old",
    "mode": "train_then_eval",
    "seed": 0,
    "data": {"dataset": "cifar10", "image_size": 24, "service": None},
    "augmentation": {"view_size": 0},
    "model": {
        "resnet_depth": 10,
        "width_multiplier": 0.5,
        "stem": "strided",
        "num_groups": 2,
        "sk_ratio": 0.0,
        "se_ratio": 0.25,
        "num_proj_layers": 2,
        "proj_out_dim": 64,
        "classifier_layer": 1,
        "gone": True,
    },
    "finetune": {"after_block": -1},
    "train": {"steps": 0},
    "export": {"keep": 0, "batch_sizes": "1,8", "formats": ""},
}


@pytest.fixture
def old_run(tmp_path):
    """The folder of a run of version 1 with a checkpoint, whose weights nobody reads here."""
    folder = tmp_path / "old"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "ckpt-5.index").touch()
    (folder / "config.json").write_text(json.dumps(VERSION_1))
    return folder


def test_a_run_of_an_earlier_version_is_not_resumed(old_run):
    message = f"{old_run} holds a run of another version .* not resumed.*--checkpoint={old_run} .*Received: config.json"
    with pytest.raises(ValueError, match=message):
        parse(f"--model_dir={old_run}")
    with pytest.raises(ValueError, match=message), open_run(override(RunConfig(), {"model_dir": str(old_run)})):
        pass
    assert json.loads((old_run / "config.json").read_text()) == VERSION_1


@pytest.mark.parametrize("place", [".", "checkpoints", "checkpoints/ckpt-5"])
def test_a_checkpoint_of_an_earlier_version_tells_its_architecture(old_run, place):
    found = parse(f"--checkpoint={old_run / place}", "--mode=export")
    model = found.model
    assert (model.resnet_depth, model.width_multiplier, model.stem, model.num_groups) == (10, 0.5, "strided", 2)
    assert (model.sk_ratio, model.se_ratio, model.num_proj_layers, model.proj_out_dim) == (None, 0.25, 2, 64)
    assert (model.classifier_layer, found.data.image_size, found.data.dataset) == (1, 24, "shapes")
    assert found.train == RunConfig().train and found.export == RunConfig().export


def test_settings_come_back_from_a_run_and_those_of_its_model_from_its_checkpoint(tmp_path):
    changes = {"model.se_ratio": 0.5, "model.temperature": 0.7, "data.image_size": 48, "train.steps": 3}
    config = override(RunConfig(), {**changes, "model_dir": str(tmp_path / "run")})
    assert settings_of_run(tmp_path / "run") is None
    with open_run(config) as folder:
        assert settings_of_run(folder) == config
        assert json.loads((folder / "config.json").read_text()) == to_dict(config)
    (folder / "checkpoints").mkdir()
    found = settings_of_checkpoint(folder)
    assert (found.model, found.data.image_size, found.train) == (config.model, 48, RunConfig().train)


def test_a_run_of_the_default_batch_resumes_where_the_batch_is_not_set(tmp_path):
    asked, unset = override(RunConfig(), {"train.global_batch_size": 512}), RunConfig()
    check_same_settings(asked, unset, tmp_path)
    check_same_settings(unset, asked, tmp_path)
    with pytest.raises(ValueError, match="train.global_batch_size was none, is 64"):
        check_same_settings(unset, override(RunConfig(), {"train.global_batch_size": 64}), tmp_path)

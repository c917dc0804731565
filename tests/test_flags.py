"""The command line: which config results from which flags."""

import json
import pathlib

import pytest
from absl import flags

from tf_simclr import config
from tf_simclr import flags as command_line
from tf_simclr.config import RunConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent


def parse(*arguments):
    values = flags.FlagValues()
    command_line.define(values)
    values(["run.py", *arguments])
    return command_line.to_config(values, ROOT)


def test_no_flags_give_the_job_on_the_embedded_data():
    assert parse().data.dataset == "shapes"
    assert parse("--mode=train_then_eval").mode == "train_then_eval"


def test_a_data_set_alone_gives_the_defaults_of_the_reference():
    expected = config.override(RunConfig(), {"data.dataset": "cifar10", "name": "cifar10"})
    assert parse("--dataset=cifar10") == expected


def test_a_folder_alone_is_a_folder_of_images():
    run = parse("--data_dir=some/photos", "--image_size=64")
    assert (run.data.dataset, run.data.data_dir, run.data.image_size) == ("folder", "some/photos", 64)
    assert run.name == "photos"
    assert parse("--data_dir=tfds", "--dataset=cifar10").data.dataset == "cifar10"


def test_every_flag_reaches_its_field():
    samples = {int: "7", float: "0.25", bool: "false", str: "text"}
    choices = {"mode": "eval", "optimizer": "adam", "precision": "float32", "strategy": "default", "stem": "cifar"}
    choices |= {"learning_rate_scaling": "sqrt", "resnet_depth": "18"}
    for name, (field, kind, _) in command_line.FLAGS.items():
        text = choices.get(name, samples[kind])
        changes = config.differences(RunConfig(), parse("--dataset=imagenet2012", f"--{name}={text}"))
        assert config.override(RunConfig(), {field: text}) == config.override(
            RunConfig(), {field: changes[field][1]}
        ), name


def test_flags_override_the_config_file_and_set_overrides_flags():
    run = parse("--config=configs/cifar10_resnet18.py", "--train_epochs=3", "--temperature=0.7", "--set=train.epochs=5")
    assert (run.train.epochs, run.model.temperature, run.model.resnet_depth) == (5, 0.7, 18)


def test_a_model_dir_alone_means_the_run_that_it_holds(tmp_path):
    saved = config.override(RunConfig(), {"train.epochs": 3, "data.dataset": "cifar10", "model_dir": str(tmp_path)})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(saved)))
    assert parse(f"--model_dir={tmp_path}", "--mode=eval") == config.override(saved, {"mode": "eval"})


def test_a_config_file_with_a_wrong_field_is_named(tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text("from tf_simclr.config import ModelConfig\ndef get_config(): return ModelConfig(temprature=1)")
    with pytest.raises(ValueError, match="wrong.py is wrong: .*unexpected keyword argument 'temprature'"):
        parse(f"--config={path}")


def test_boolean_shorthands():
    assert parse("--dataset=x", "--use_blur=False").augmentation.blur_probability == 0
    assert parse("--dataset=x", "--nouse_blur").augmentation.blur_probability == 0
    assert parse("--dataset=x", "--use_blur").augmentation.blur_probability == 0.5
    assert parse("--dataset=x", "--use_tpu=True").strategy == "tpu"
    assert parse("--dataset=x", "--use_tpu=False").strategy == "auto"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_configs_load_and_carry_their_own_name(path):
    run = command_line.load_config(path)
    assert run.name == path.stem
    assert config.from_dict(config.to_dict(run)) == run


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--train_epoch=3"], flags.UnrecognizedFlagError, "Unknown command line flag 'train_epoch'.*train_epochs"),
        (["--train_epochs=many"], flags.IllegalFlagValueError, "train_epochs"),
        (["--set=train.epoch=3"], ValueError, r"no config field train.epoch. Did you mean train.epochs\?"),
        (["--set=train.epochs"], ValueError, "--set needs section.field=value. Received: train.epochs"),
        (["--temperature=0"], ValueError, "model.temperature must be positive. Received: 0.0"),
        (["--config=configs/cifar10_resnet81.py"], FileNotFoundError, "Did you mean configs/cifar10_resnet18.py"),
    ],
)
def test_refuses_what_it_does_not_know(arguments, error, message):
    with pytest.raises(error, match=message):
        parse(*arguments)

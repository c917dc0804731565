"""Configs: overrides, JSON and what they refuse."""

import json
import re

import pytest

from tf_simclr.settings import SETTINGS, VERSION, ExportConfig, RunConfig, differences, from_dict, override, to_dict


def test_override_converts_strings_to_the_type_of_the_field():
    changed = override(
        RunConfig(),
        {"export.batch_sizes": "2, 4", "export.formats": ["onnx"], "data.service": "", "export.keep": "none",
         "train.epochs": "7", "model.hidden_norm": "false", "optimizer.warmup_epochs": "0.5", "data.data_dir": "x",
         "seed": 3, "model.temperature": 1, "model_dir": "none"},
    )  # fmt: skip
    assert (changed.train.epochs, changed.model.hidden_norm, changed.optimizer.warmup_epochs) == (7, False, 0.5)
    assert (changed.data.data_dir, changed.seed, changed.model.temperature) == ("x", 3, 1.0)
    assert isinstance(changed.model.temperature, float)
    assert changed.model_dir is None
    assert (changed.export.batch_sizes, changed.export.formats) == ((2, 4), ("onnx",))
    assert (changed.data.service, changed.export.keep) == ((), None)
    assert differences(RunConfig(), changed)["train.epochs"] == (100, 7)


def test_json_round_trip():
    changed = override(RunConfig(), {"train.epochs": 7, "data.dataset": "shapes", "export.formats": "onnx,tflite"})
    assert json.loads(json.dumps(to_dict(changed))) == to_dict(changed)
    assert to_dict(changed)["version"] == VERSION
    assert from_dict(json.loads(json.dumps(to_dict(changed)))) == changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.epoch": 3}, r"no config field train.epoch. Did you mean train.epochs\?"),
        ({"model.temprature": 3}, r"Did you mean model.temperature\?"),
        ({"train.epochs": "many"}, "train.epochs needs a value of type int. Received: many"),
        ({"train.epochs": 1.5}, "train.epochs needs a value of type int. Received: 1.5"),
        ({"model.hidden_norm": "maybe"}, "model.hidden_norm needs a value of type bool"),
        ({"seed": None}, "seed needs a value of type int. Received: None"),
        ({"model.temperature": 0}, "model.temperature must be positive. Received: 0"),
        ({"model.temperature": -1}, "model.temperature must be positive"),
        ({"train.global_batch_size": 1}, r"train.global_batch_size must be at least 2, or none \(by --set\)"),
        ({"mode": "trian"}, r"--mode: mode must be one of .*Did you mean train\? Received: trian"),
        ({"optimizer.name": "sgd"}, "optimizer.name must be one of"),
        (
            {"train.steps": -1},
            r"--train_steps: train.steps must be at least 1, or none \(0 on the flag\). Received: -1",
        ),
        ({"train.steps": 0}, r"train.steps must be at least 1, or none \(0 on the flag\). Received: 0"),
        ({"seed": -1}, r"seed must be between 0 and 2\*\*32 - 1. Received: -1"),
        ({"strategy": "mirorred"}, "strategy must be one of auto, default"),
        ({"optimizer.base_learning_rate": "nan"}, "base_learning_rate must be at least 0. Received: nan"),
        ({"model.resnet_depth": 19}, "resnet_depth must be one of 10, 18"),
        ({"export.keep": -1}, "export.keep must be at least 1, or none"),
        ({"finetune.after_block": -1}, "finetune.after_block must be from 0 to 4, or none"),
        (
            {"export.batch_sizes": "8,1"},
            "export.batch_sizes must be increasing whole numbers of at least 1, separated by commas",
        ),
        ({"export.batch_sizes": "1,many"}, "export.batch_sizes needs comma-separated values of type int.*: 1,many"),
        ({"export.formats": "onnx;tflite"}, "formats must be any of tflite, onnx, separated by commas.*: onnx;tflite"),
        (
            {"data.cache": "disk", "data.service": "a:1,b:2"},
            "choose one, with --data_service= or --set=data.cache=none. Received: cache=disk, service=a:1,b:2",
        ),
    ],
)
def test_refuses_wrong_fields_and_values(changes, message):
    with pytest.raises(ValueError, match=message):
        override(RunConfig(), changes)


def test_every_refusal_names_the_flag():
    bad = {int: "-3", float: "nan", str: ""}
    refused = 0
    for name, one in SETTINGS.items():
        for value in ("abc", bad.get(one.kind, "maybe"), 10**25):
            try:
                override(RunConfig(), {name: value})
            except ValueError as error:
                refused += 1
                assert str(error).startswith(f"--{one.flag}: {name} " if one.flag else f"{name} "), name
    assert refused > 150


@pytest.mark.parametrize(
    "changes",
    [
        {"train.steps_per_execution": 4},
        {"train.steps_per_execution": 4, "train.log_every_steps": 4, "train.checkpoint_steps": 6},
        {"train_mode": "finetune"},
        {"train_mode": "distill"},
        {"distill.target": "representations", "distill.label_weight": 0.5},
        {"train_mode": "supervised", "train.microbatch_size": 8},
        {"model.classifier_layer": 3, "model.num_proj_layers": 2},
        {"data.cache": "disk", "data.service": "a:1"},
    ],
)
def test_two_settings_that_do_not_fit_are_refused_with_a_value_that_does(changes):
    with pytest.raises(ValueError) as refusal:
        override(RunConfig(), changes)
    flag, value = re.search(r"(?:use|such as|with) --([\w=.]+)=([\w/]*)", str(refusal.value)).groups()
    names = {one.flag: name for name, one in SETTINGS.items()}
    name = names[flag] if flag in names else flag.removeprefix("set=")
    override(RunConfig(), changes | {name: None if value == str(SETTINGS[name].unset) else value})


def test_a_batch_that_is_not_set_is_512_or_what_fewer_images_fill():
    sizes = {1: 2, 2: 2, 90: 64, 126: 64, 128: 128, 511: 256, 512: 512, 10**6: 512}
    assert {count: RunConfig().global_batch_size(count) for count in sizes} == sizes
    asked = override(RunConfig(), {"train.global_batch_size": 4096})
    assert {asked.global_batch_size(count) for count in sizes} == {4096}


def test_a_config_file_gives_lists_as_tuples():
    with pytest.raises(ValueError, match="export.batch_sizes must be a tuple. Received: '1,8'"):
        RunConfig(export=ExportConfig(batch_sizes="1,8"))


def test_what_a_resumed_run_may_change_and_what_a_card_leaves_out():
    of_run = ["name", "mode", "model_dir", "strategy", "tpu_name", "tpu_zone", "gcp_project"]
    of_run.append("distill.teacher")
    of_data = [
        "data.data_dir",
        "data.eval_split",
        "data.eval_data_dir",
        "data.max_broken_fraction",
        "data.cache",
        "data.service",
    ]
    of_train = [f"train.{name}" for name in ["checkpoint_epochs", "checkpoint_steps", "keep_checkpoints"]]
    of_train += ["train.log_every_seconds", "train.log_every_steps", "train.health", "train.health_every_steps"]
    sections = [name for name in SETTINGS if name.startswith(("eval.", "export.", "embed."))]
    assert {name for name, one in SETTINGS.items() if one.resumable} == {*of_run, *of_data, *of_train, *sections}
    machine = {"model_dir", "tpu_name", "tpu_zone", "gcp_project", "data.service", "eval.compare_encoders"}
    outputs = {name for name in SETTINGS if name.startswith(("export.", "embed."))}
    assert {name for name, one in SETTINGS.items() if one.card == "leave_out"} == machine | outputs
    assert {name for name, one in SETTINGS.items() if one.card == "shorten"} == {
        "checkpoint", "data.data_dir", "data.eval_data_dir", "eval.suite_dir", "distill.teacher"
    }  # fmt: skip


def test_every_default_is_of_its_type_and_every_help_is_a_sentence():
    for name, one in SETTINGS.items():
        values = one.default if one.is_list else [one.default]
        assert all(type(value) is one.kind or (value is None and one.is_optional) for value in values), name
        assert one.help.endswith(".") and len(one.help) < 120, name


def test_steps_are_counted_as_the_reference_does(golden_dir):
    for case in json.loads((golden_dir / "schedule.json").read_text()):
        run = override(
            RunConfig(),
            {
                "train.epochs": case["epochs"],
                "train.global_batch_size": case["batch"],
                "optimizer.warmup_epochs": case["warmup_epochs"],
            },
        )
        assert run.total_steps(case["num_examples"]) == case["total_steps"]
        assert run.warmup_steps(case["num_examples"]) == case["warmup_steps"]
    assert override(run, {"train.steps": 10}).total_steps(50_000) == 10


def test_stem_follows_the_image_size_unless_named():
    stems = [override(RunConfig(), {"data.image_size": size}).stem for size in (32, 33)]
    assert stems == ["cifar", "imagenet"]
    assert override(RunConfig(), {"data.image_size": 96, "model.stem": "cifar"}).stem == "cifar"


def test_what_happens_every_so_many_steps_happens_between_executions():
    for name in ("log_every_steps", "checkpoint_steps"):
        with pytest.raises(
            ValueError, match=f"train.{name} must be a multiple of train.steps_per_execution, 4: use .*=8. .*: 6"
        ):
            override(RunConfig(), {"train.log_every_steps": 4, "train.steps_per_execution": 4, f"train.{name}": 6})
    settings = {"train.log_every_steps": 4, "train.steps_per_execution": 4, "train.global_batch_size": 10}
    assert [override(RunConfig(), settings).checkpoint_steps(size) for size in (10, 100, 130)] == [4, 8, 12]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("distill.label_weight", "--distill_label_weight=0"),  # A number that stands for it.
        ("train.global_batch_size", "--set=train.global_batch_size=none"),  # Its flag takes numbers only.
        ("distill.teacher", "--teacher=none"),
        ("model.final_width", "--set=model.final_width=none"),
    ],
)
def test_not_set_is_typed_so_that_it_can_be(name, text):
    assert SETTINGS[name].typed(None) == text

"""The command line: which config results from which flags."""

import json
import pathlib

import pytest
from absl import flags
from command import parse, parse_stages
from paths import ROOT

from tf_simclr.settings import SETTINGS, RunConfig, command_line, differences, flatten, from_dict, override, to_dict

FLAGS = {flag: one for one in SETTINGS.values() for flag in (one.flag, one.alias) if flag is not None}


def test_no_flags_give_the_job_on_the_embedded_data():
    assert parse().data.dataset == "shapes"
    assert parse("--mode=train_then_eval").mode == "train_then_eval"


def test_a_data_set_alone_gives_the_defaults_of_the_reference():
    expected = override(RunConfig(), {"data.dataset": "cifar10", "name": "cifar10"})
    assert parse("--dataset=cifar10") == expected


def test_a_folder_alone_is_a_folder_of_images():
    run = parse("--data_dir=some/photos", "--image_size=64")
    assert (run.data.dataset, run.data.data_dir, run.data.image_size) == ("folder", "some/photos", 64)
    assert run.name == "photos"
    assert parse("--data_dir=tfds", "--dataset=cifar10").data.dataset == "cifar10"


# The flags of the reference's run.py and their defaults (None: no default). Ours differ in use_tpu, on purpose.
REFERENCE_FLAGS = {
    "learning_rate": 0.3,
    "learning_rate_scaling": "linear",
    "warmup_epochs": 10.0,
    "weight_decay": 1e-6,
    "batch_norm_decay": 0.9,
    "train_batch_size": 512,
    "train_split": "train",
    "train_epochs": 100,
    "train_steps": 0,
    "eval_steps": 0,
    "eval_batch_size": 256,
    "checkpoint_epochs": 1,
    "checkpoint_steps": 0,
    "eval_split": "validation",
    "dataset": "imagenet2012",
    "mode": "train",
    "train_mode": "pretrain",
    "lineareval_while_pretraining": True,
    "checkpoint": None,
    "zero_init_logits_layer": False,
    "fine_tune_after_block": -1,
    "master": None,
    "model_dir": None,
    "data_dir": None,
    "tpu_name": None,
    "tpu_zone": None,
    "gcp_project": None,
    "optimizer": "lars",
    "momentum": 0.9,
    "keep_checkpoint_max": 5,
    "keep_hub_module_max": 1,
    "temperature": 0.1,
    "hidden_norm": True,
    "proj_out_dim": 128,
    "num_proj_layers": 3,
    "ft_proj_selector": 0,
    "global_bn": True,
    "width_multiplier": 1,
    "resnet_depth": 50,
    "sk_ratio": 0.0,
    "se_ratio": 0.0,
    "image_size": 224,
    "color_jitter_strength": 1.0,
}
REFERENCE_SHORTHANDS = {"use_blur": True, "cache_dataset": False, "use_tpu": False, "proj_head_mode": "nonlinear"}
REFERENCE_UNUSED = ("eval_name",)
# The values of the reference's flags that mean "not set"; without an entry it has none.
UNSET_IN_REFERENCE = {
    "train_steps": 0,
    "eval_steps": 0,
    "checkpoint_steps": 0,
    "fine_tune_after_block": -1,
    "sk_ratio": 0.0,
    "se_ratio": 0.0,
}
STALE = ("train_summary_steps", "variable_schema")
CHOICES = {
    "mode": ("eval", "train_then_eval"),
    "train_mode": ("supervised",),
    "optimizer": ("momentum", "adam"),
    "learning_rate_scaling": ("sqrt",),
    "resnet_depth": ("18", "34", "101", "152", "200"),
    "fine_tune_after_block": ("0", "1", "2", "3", "4"),
    "ft_proj_selector": ("-1", "1", "2"),
    "num_proj_layers": ("0", "1", "2"),
    "image_size": ("32",),
    "checkpoint": (),  # it is read at once: see test_run.py
}


def test_every_flag_of_the_reference_is_there():
    accepted = {*FLAGS, *command_line.SHORTHANDS, *command_line.STALE_FLAGS}
    assert {*REFERENCE_FLAGS, *REFERENCE_SHORTHANDS, *REFERENCE_UNUSED, *STALE} <= accepted


@pytest.mark.parametrize(("name", "default"), REFERENCE_FLAGS.items())
def test_a_flag_of_the_reference_has_its_default_and_reaches_its_field(name, default):
    field, kind = FLAGS[name].name, FLAGS[name].kind
    defaults = parse("--dataset=imagenet2012")
    if name == "train_batch_size":  # not set, for fewer images than that, and the reference's for more
        assert flatten(defaults)[field] is None and defaults.global_batch_size(default) == default
    elif name in UNSET_IN_REFERENCE:
        assert default == UNSET_IN_REFERENCE[name] and flatten(defaults)[field] is None
    else:
        assert flatten(defaults)[field] == default
    if default is not None and name != "train_batch_size":
        assert parse("--dataset=imagenet2012", f"--{name}={default}") == defaults
    samples = {int: ("7",), float: ("0.25",), bool: ("false", "true"), str: ("text",)}
    for text in CHOICES.get(name, samples[kind]):
        parsed = parse("--dataset=imagenet2012", f"--{name}={text}")
        assert flatten(parsed)[field] == (text == "true" if kind is bool else kind(text))
        assert set(differences(defaults, parsed)) <= {field, "name"}


def test_our_own_flags_reach_their_fields():
    ours = {
        "eval_data_dir": "labelled",
        "max_broken_fraction": 0.5,
        "stem": "cifar",
        "strategy": "default",
        "teacher": "models/b#c",
        "distill_target": "representations",
        "distill_temperature": 0.1,
        "distill_distance": "squared",
        "distill_label_weight": 0.5,
        "label_percent": 10,
        "use_labels": False,
        "precision": "float32",
        "seed": 7,
        "eval_protocols": ("linear",),
        "knn_k": 20,
        "eval_head_layers": True,
        "proj_hidden_dim": 512,
        "eval_suite": "transfer",
        "eval_suite_dir": "suite",
        "label_efficiency": "frozen",
        "compare_encoder": ("runs/a", "models/b#c"),
        "data_service": ("a:1", "b:2"),
        "output_dir": "embeddings",
        "embed_encoder": "models/b#c",
        "embed_dtype": "float16",
        "shard": "2/8",
        "export_embedding": "normalized",
        "export_pca_dim": 3,
        "export_project": True,
        "export_precision": "float32",
        "export_batch_sizes": (1, 32),
        "export_micro_batch_size": 32,
        "export_micro_batch_timeout_us": 5,
        "export_micro_batch_threads": 4,
        "export_license": "MIT",
        "export_formats": ("tflite",),
        "deterministic": True,
        "microbatch_size": 128,
        "health": False,
        "health_every_steps": 50,
        "encoder": "resnet",
        "loss": "nt_xent",
        "margin": 0.8,
        "memory_size": 4096,
        "more_operators": (),
        "operators": ("crop", "jitter", "rotation"),
        "one_branch": True,
        "shared_crop": True,
        "num_views": 4,
        "num_small_views": 6,
        "small_view_size": 96,
    }
    assert set(ours) == set(FLAGS) - set(REFERENCE_FLAGS)
    for name, value in ours.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        assert flatten(parse(f"--{name}={text}"))[FLAGS[name].name] == value


def test_the_old_values_of_flags_still_mean_not_set():
    unset = {
        "train_steps": "0", "eval_steps": "0", "checkpoint_steps": "0", "sk_ratio": "0", "se_ratio": "0.0",
        "fine_tune_after_block": "-1", "keep_hub_module_max": "0", "microbatch_size": "0", "export_pca_dim": "0",
        "export_micro_batch_size": "0", "health_every_steps": "0", "memory_size": "0", "proj_hidden_dim": "0",
        "distill_label_weight": "0",
    }  # fmt: skip
    assert set(unset) == {flag for flag, one in FLAGS.items() if one.unset is not None}
    given = parse("--dataset=x", *(f"--{name}={value}" for name, value in unset.items()))
    assert all(flatten(given)[FLAGS[name].name] is None for name in unset)
    assert differences(parse("--dataset=x"), given) == {"export.keep": (1, None)}
    empty = parse("--dataset=x", "--export_batch_sizes=", "--export_formats=", "--data_service=")
    assert (empty.export.batch_sizes, empty.export.formats, empty.data.service) == ((), (), ())


def test_set_can_unset():
    run = parse("--dataset=x", "--train_steps=7", "--set=train.steps=none", "--set=export.batch_sizes=none")
    assert (run.train.steps, run.export.batch_sizes) == (None, ())


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--small_view_size=9"], ["--small_view_size=9 has no effect without --num_small_views"]),
        (["--small_view_size=9", "--num_small_views=2"], []),
        (["--fine_tune_after_block=2"], ["--fine_tune_after_block=2 has no effect without --train_mode=finetune or "]),
        (["--fine_tune_after_block=-1"], []),  # The default: nothing was asked for.
        (
            ["--train_mode=supervised", "--fine_tune_after_block=2", "--memory_size=8"],
            ["--memory_size=8 has no effect"],
        ),
        (
            ["--set=distill.distance=squared"],
            ["--distill_distance=squared has no effect without --distill_target=repr"],
        ),
        (["--encoder=vit_tiny", "--resnet_depth=18"], ["--resnet_depth=18 has no effect without --encoder=resnet"]),
        (["--margin=0.2", "--loss=margin_triplet"], []),
        (
            ["--temperature=0.3", "--loss=margin_triplet"],
            ["--temperature=0.3 has no effect without --loss=nt_xent or "],
        ),
        (
            ["--temperature=0.3", "--train_mode=supervised"],
            ["--temperature=0.3 has no effect without --train_mode=pre"],
        ),
        (["--optimizer=adamw", "--momentum=0.8"], ["--momentum=0.8 has no effect without --optimizer=lars or "]),
    ],
)
def test_what_has_no_effect_is_said(caplog, arguments, expected):
    parse(*arguments)
    warned = [record.getMessage() for record in caplog.records if "no effect" in record.getMessage()]
    assert len(warned) == len(expected)
    assert all(sentence.startswith(start) for sentence, start in zip(warned, expected, strict=True)), warned


def test_of_several_stages_one_must_feel_a_flag(caplog):
    parse_stages(
        "--config=configs/simclr_v2_semi_supervised.py",
        "--temperature=0.3",
        "--margin=0.2",
        "--set=pretrain.distill.temperature=3",
    )
    warned = [record.getMessage() for record in caplog.records if "no effect" in record.getMessage()]
    assert [sentence.partition(" ")[0] for sentence in warned] == ["--margin=0.2", "--distill_temperature=3.0"]


def test_what_a_setting_needs_is_declared_too():
    for one in SETTINGS.values():
        if one.needs is not None:
            needed, *allowed = one.needs
            for value in allowed:
                SETTINGS[needed].check(value)
            assert allowed or SETTINGS[needed].flag


def test_stale_flags_are_ignored_with_a_warning(caplog):
    assert parse("--dataset=x", "--train_summary_steps=0", "--variable_schema=(?!head)", "--eval_name=a") == parse(
        "--dataset=x"
    )
    warned = [record.getMessage() for record in caplog.records]
    for name in command_line.STALE_FLAGS:
        assert any(f"--{name} is accepted and ignored" in message for message in warned), warned


def test_a_tpu_is_found_by_its_name_or_else_by_the_master():
    assert parse("--dataset=x", "--master=grpc://a").tpu_name == "grpc://a"
    assert parse("--dataset=x", "--tpu_name=b", "--master=grpc://a").tpu_name == "b"
    assert parse("--dataset=x", "--use_tpu=False", "--strategy=multi_worker").strategy == "multi_worker"
    assert parse("--dataset=x", "--use_tpu=False", "--strategy=tpu").strategy == "auto"
    assert parse("--dataset=x", "--use_tpu=True", "--strategy=mirrored").strategy == "tpu"


@pytest.mark.parametrize(("strategy", "expected"), [("mirrored", "mirrored"), ("tpu", "auto")])
def test_no_tpu_says_nothing_against_the_strategy_of_a_config_file(tmp_path, strategy, expected):
    path = tmp_path / "own.py"
    path.write_text(
        f"from tf_simclr.settings import RunConfig\ndef get_config():\n    return RunConfig(strategy={strategy!r})\n"
    )
    assert parse(f"--config={path}", "--use_tpu=False").strategy == expected


def test_flags_override_the_config_file_and_set_overrides_flags():
    run = parse("--config=configs/cifar10_resnet18.py", "--train_epochs=3", "--temperature=0.7", "--set=train.epochs=5")
    assert (run.train.epochs, run.model.temperature, run.model.resnet_depth) == (5, 0.7, 18)


def test_a_model_dir_alone_means_the_run_that_it_holds(tmp_path):
    saved = override(RunConfig(), {"train.epochs": 3, "data.dataset": "cifar10", "model_dir": str(tmp_path)})
    (tmp_path / "config.json").write_text(json.dumps(to_dict(saved)))
    assert parse(f"--model_dir={tmp_path}", "--mode=eval") == override(saved, {"mode": "eval"})


def test_flags_on_a_run_that_has_started_change_its_settings_and_not_the_defaults(tmp_path):
    saved = override(RunConfig(), {"train.epochs": 3, "data.dataset": "folder", "data.data_dir": "d", "name": "mine"})
    saved = override(saved, {"model_dir": str(tmp_path), "mode": "train_then_eval"})
    (tmp_path / "config.json").write_text(json.dumps(to_dict(saved)))
    arguments = [f"--model_dir={tmp_path}", "--mode=eval", "--knn_k=50"]
    expected = override(saved, {"mode": "eval", "eval.knn_k": 50})
    assert parse(*arguments) == expected
    # A start that was refused leaves settings, too, but binds nobody.
    assert parse(*arguments, "--data_dir=d").train.epochs == RunConfig().train.epochs
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "ckpt-5.index").touch()
    assert parse(*arguments, "--data_dir=/moved/d/") == override(expected, {"data.data_dir": "/moved/d/"})
    assert parse(*arguments, "--dataset=folder", "--data_dir=d") == expected
    assert parse(*arguments, "--dataset=cifar10").data.dataset == "cifar10"
    tfds = override(saved, {"data.dataset": "cifar10"})
    (tmp_path / "config.json").write_text(json.dumps(to_dict(tfds)))
    assert parse(*arguments, "--data_dir=/moved").data == override(tfds, {"data.data_dir": "/moved"}).data


def test_the_run_of_a_data_set_that_has_started_keeps_its_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = override(RunConfig(), {"train.epochs": 5, "data.dataset": "folder", "data.data_dir": "x/d", "name": "d"})
    (tmp_path / "runs" / "d" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "d" / "config.json").write_text(json.dumps(to_dict(saved)))
    assert parse("--data_dir=x/d").train.epochs == RunConfig().train.epochs
    (tmp_path / "runs" / "d" / "checkpoints" / "ckpt-5.index").touch()
    assert parse("--data_dir=x/d", "--mode=eval") == override(saved, {"mode": "eval"})
    assert parse("--data_dir=x/e").train.epochs == RunConfig().train.epochs
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert parse("--data_dir=~").name == "me"


def test_a_config_file_with_a_wrong_field_is_named(tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text("from tf_simclr.settings import ModelConfig\ndef get_config(): return ModelConfig(temprature=1)")
    with pytest.raises(ValueError, match="wrong.py is wrong: .*unexpected keyword argument 'temprature'"):
        parse(f"--config={path}")


def test_shorthands():
    assert parse("--dataset=x", "--use_blur=False").augmentation.blur_probability == 0
    assert parse("--dataset=x", "--nouse_blur").augmentation.blur_probability == 0
    assert parse("--dataset=x", "--use_blur").augmentation.blur_probability == 0.5
    assert parse("--dataset=x", "--use_tpu=True").strategy == "tpu"
    assert parse("--dataset=x", "--use_tpu=False").strategy == "auto"
    assert parse("--dataset=x", "--proj_head_mode=none", "--num_proj_layers=3").model.num_proj_layers == 0
    assert parse("--dataset=x", "--proj_head_mode=linear").model.num_proj_layers == 1
    assert parse("--dataset=x", "--proj_head_mode=nonlinear", "--num_proj_layers=2").model.num_proj_layers == 2


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_configs_load_and_carry_their_own_name(path):
    planned = parse_stages(f"--config={path}") or {path.stem: command_line.load_config(path)}
    assert {name: run.name for name, run in planned.items()} == {name: name for name in planned}
    assert all(from_dict(to_dict(run)) == run for run in planned.values())
    for run in planned.values():
        start = pathlib.Path(run.checkpoint or "")
        if start.parent.name == "runs":  # Who starts from the run of another config has its encoder, and its head.
            fields = [
                "encoder",
                "resnet_depth",
                "width_multiplier",
                "stem",
                "num_groups",
                "sk_ratio",
                "se_ratio",
                "final_width",
            ]
            if run.train_mode == "pretrain":
                fields += ["num_proj_layers", "proj_hidden_dim", "proj_out_dim"]
            theirs = command_line.load_config(ROOT / "configs" / f"{start.name}.py").model
            assert {name: getattr(run.model, name) for name in fields} == {n: getattr(theirs, n) for n in fields}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--train_epoch=3"], flags.UnrecognizedFlagError, "Unknown command line flag 'train_epoch'.*train_epochs"),
        (["--train_epochs=many"], flags.IllegalFlagValueError, "train_epochs"),
        (["--set=train.epoch=3"], ValueError, r"no config field train.epoch. Did you mean train.epochs\?"),
        (["--set=train.epochs"], ValueError, "--set needs section.field=value. Received: train.epochs"),
        (["--temperature=0"], ValueError, "model.temperature must be positive. Received: 0.0"),
        (["--encoder=resnt"], ValueError, "encoder must be one of resnet.*Did you mean resnet.? Received: resnt"),
        (["--loss=infonce"], ValueError, "model.loss must be one of nt_xent.* Received: infonce"),
        (["--more_operators=warp"], ValueError, "augmentation.more_operators must be .*Received: warp"),
        (["--operators=crop,sobl"], ValueError, "augmentation.operators must be .*Did you mean sobel.? Received: sobl"),
        (["--config=configs/cifar10_resnet81.py"], FileNotFoundError, "Did you mean configs/cifar10_resnet18.py"),
    ],
)
def test_refuses_what_it_does_not_know(arguments, error, message):
    with pytest.raises(error, match=message):
        parse(*arguments)

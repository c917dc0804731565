"""The command line: the reference's flag names, and ours, on the fields of the config.

A flag that is not given leaves the field as the config file has it.
"""

import difflib
import importlib.util
import json
import pathlib
from typing import Any

from absl import flags, logging

from tf_simclr import settings
from tf_simclr.runs import weights
from tf_simclr.settings import DataConfig, RunConfig

# flag: (config field, type, help); the reference's flags first, under the reference's names.
FLAGS: dict[str, tuple[str, type, str]] = {
    "learning_rate": ("optimizer.base_learning_rate", float, "Learning rate per batch of 256 (linear scaling)."),
    "learning_rate_scaling": ("optimizer.learning_rate_scaling", str, "linear, sqrt or none."),
    "warmup_epochs": ("optimizer.warmup_epochs", float, "Epochs of linear warm-up."),
    "weight_decay": ("optimizer.weight_decay", float, "Weight decay."),
    "batch_norm_decay": ("model.batch_norm_momentum", float, "Share of the moving averages that a step keeps."),
    "train_batch_size": ("train.global_batch_size", int, "Images per step, over all replicas."),
    "train_split": ("data.train_split", str, "Split to train on."),
    "train_epochs": ("train.epochs", int, "Epochs to train for."),
    "train_steps": ("train.steps", int, "Steps to train for; overrides train_epochs unless 0."),
    "eval_steps": ("eval.steps", int, "Batches to evaluate on; 0 takes them all."),
    "eval_batch_size": ("eval.batch_size", int, "Images per batch in the evaluation."),
    "checkpoint_epochs": ("train.checkpoint_epochs", float, "Epochs between checkpoints."),
    "checkpoint_steps": ("train.checkpoint_steps", int, "Steps between checkpoints; overrides epochs unless 0."),
    "eval_split": ("data.eval_split", str, "Split to evaluate on."),
    "dataset": ("data.dataset", str, "Name of a TFDS data set, or shapes, the embedded one."),
    "mode": ("mode", str, "train, eval, train_then_eval, export or check (looks before a run starts)."),
    "train_mode": ("train_mode", str, "pretrain, finetune (a checkpoint, on labels) or supervised."),
    "lineareval_while_pretraining": ("model.online_classifier", bool, "Train a linear classifier on the side."),
    "checkpoint": (
        "checkpoint",
        str,
        "Weights to start from: a folder, a prefix or a SavedModel; ours or the reference's.",
    ),
    "zero_init_logits_layer": ("finetune.zero_init", bool, "Start the classifier of fine-tuning as zero."),
    "fine_tune_after_block": ("finetune.after_block", int, "Last frozen part: -1 none, 0 stem, 1-3 group, 4 encoder."),
    "master": ("tpu_name", str, "Address of the TPU, where there is no tpu_name."),
    "model_dir": ("model_dir", str, "Folder of the run; it is resumed if it holds one."),
    "data_dir": ("data.data_dir", str, "Images: folders, patterns, lists, TFRecord, .npz; or TFDS's folder."),
    "tpu_name": ("tpu_name", str, "Name of the TPU."),
    "tpu_zone": ("tpu_zone", str, "Zone of the Cloud TPU."),
    "gcp_project": ("gcp_project", str, "Project of the Cloud TPU."),
    "optimizer": ("optimizer.name", str, "lars, momentum (SGD with Nesterov momentum), adam or adamw."),
    "momentum": ("optimizer.momentum", float, "Momentum."),
    "keep_checkpoint_max": ("train.keep_checkpoints", int, "Checkpoints to keep."),
    "keep_hub_module_max": ("export.keep", int, "Exports to keep; 0 keeps all."),
    "temperature": ("model.temperature", float, "Temperature of the contrastive loss."),
    "hidden_norm": ("model.hidden_norm", bool, "Scale projections to unit length."),
    "proj_out_dim": ("model.proj_out_dim", int, "Width of the projections."),
    "num_proj_layers": ("model.num_proj_layers", int, "Layers of the projection head."),
    "ft_proj_selector": ("model.classifier_layer", int, "Layer of the head that a classifier reads; 0 the encoder."),
    "global_bn": ("model.global_bn", bool, "Batch-norm statistics over all replicas."),
    "width_multiplier": ("model.width_multiplier", float, "Multiplier of the encoder's channels."),
    "resnet_depth": ("model.resnet_depth", int, "18, 34, 50, 101, 152 or 200."),
    "sk_ratio": ("model.sk_ratio", float, "Selective kernels and ResNet-D if above 0 (SimCLR v2: 0.0625)."),
    "se_ratio": ("model.se_ratio", float, "Squeeze and excitation if above 0."),
    "image_size": ("data.image_size", int, "Height and width in pixels of views, and of images for the encoder."),
    "color_jitter_strength": ("augmentation.color_jitter_strength", float, "Strength of the colour jitter."),
    # ours
    "eval_data_dir": ("data.eval_data_dir", str, "Labelled images to evaluate on, where data_dir does not hold them."),
    "max_broken_fraction": ("data.max_broken_fraction", float, "Part of the files that may be broken."),
    "stem": ("model.stem", str, "auto, cifar, strided or imagenet."),
    "microbatch_size": ("train.microbatch_size", int, "Images encoded at a time, for the gradient of all; 0: at once."),
    "strategy": ("strategy", str, "auto, default, mirrored, multi_worker or tpu."),
    "precision": ("train.precision", str, "auto, float32 or mixed_bfloat16."),
    "data_service": ("data.service", str, "tf.data services that decode and crop: host:port,host:port,..."),
    "export_embedding": ("export.embedding", str, "Embeddings of the export: raw, or normalized to unit length."),
    "export_pca_dim": ("export.pca_dim", int, "Principal components that the export reduces embeddings to; 0 none."),
    "export_project": ("export.project", bool, "Export a signature for projections, too."),
    "export_precision": ("export.precision", str, "What the export computes in: run, float32 or mixed_bfloat16."),
    "export_batch_sizes": ("export.batch_sizes", str, "Batches to warm servers up for, such as 1,8,32."),
    "export_micro_batch_size": ("export.micro_batch_size", int, "Largest batch that requests share; 0: they do not."),
    "export_micro_batch_timeout_us": ("export.micro_batch_timeout_us", int, "Microseconds that such a batch waits."),
    "export_micro_batch_threads": ("export.micro_batch_threads", int, "Such batches at the same time."),
    "export_formats": ("export.formats", str, "Formats to convert the encoder to: tflite, onnx or tflite,onnx."),
    "export_license": ("export.license", str, "Licence of the weights, for the model card."),
    "seed": ("seed", int, "Seed of everything random."),
    "deterministic": ("train.deterministic", bool, "Bit-identical runs on accelerators, too; slower there."),
}
# flag: (what each of its values sets, help); they win over the flags above.
SHORTHANDS: dict[str, tuple[dict[Any, dict[str, Any]], str]] = {
    "use_blur": (
        {True: {"augmentation.blur_probability": 0.5}, False: {"augmentation.blur_probability": 0.0}},
        "Blur views in pretraining.",
    ),
    "cache_dataset": ({True: {"data.cache": "memory"}, False: {"data.cache": "none"}}, "Keep all images in memory."),
    "use_tpu": ({True: {"strategy": "tpu"}, False: {"strategy": "auto"}}, "Same as --strategy=tpu."),
    "proj_head_mode": (
        {"none": {"model.num_proj_layers": 0}, "linear": {"model.num_proj_layers": 1}, "nonlinear": {}},
        "none, linear (one layer) or nonlinear (num_proj_layers of them).",
    ),
}
# Flags of the reference that do nothing, in its TensorFlow 2 code or at all.
STALE_FLAGS = {
    "train_summary_steps": "metrics are written every train.log_every_steps",
    "variable_schema": "a checkpoint's encoder is always loaded, its classifier if the classes are the same",
    "eval_name": "the reference does not use it either",
}
DEFAULT_CONFIG = "configs/shapes.py"


def define(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines all flags; without a default each, so that a flag that is given can be told from one that is not."""
    definers: dict[type, Any] = {
        float: flags.DEFINE_float,
        int: flags.DEFINE_integer,
        str: flags.DEFINE_string,
        bool: flags.DEFINE_bool,
    }
    for name, (_, kind, text) in FLAGS.items():
        definers[kind](name, None, text, flag_values=values)
    for name, (choices, text) in SHORTHANDS.items():
        if True in choices:
            flags.DEFINE_bool(name, None, text, flag_values=values)
        else:
            flags.DEFINE_enum(name, None, list(choices), text, flag_values=values)
    for name, reason in STALE_FLAGS.items():
        flags.DEFINE_string(name, None, f"Ignored: {reason}.", flag_values=values)
    flags.DEFINE_string(
        "config", None, "File with get_config(), whose values are the defaults of the flags.", flag_values=values
    )
    flags.DEFINE_multi_string("set", [], "section.field=value: sets any field of the config.", flag_values=values)


def to_config(values: flags.FlagValues, root: pathlib.Path) -> RunConfig:
    """The config of this run: the config file, the flags on top of it, `--set` on top of them.

    Without `--config`, `--dataset` and `--data_dir` it is the run that the model_dir holds, or else the one on the
    embedded data; with a data set, a folder or a checkpoint but no config file, the reference's defaults hold, and the
    architecture is that of the checkpoint.

    Args:
      values: The parsed flags.
      root: The project's folder, which holds configs/.

    Raises:
      FileNotFoundError: If the config file does not exist.
      ValueError: If a field does not exist or a value is wrong.
    """
    has_data = values.dataset is not None or values.data_dir is not None
    saved = pathlib.Path(values.model_dir or "") / "config.json"
    if values.config is not None:
        base = load_config(pathlib.Path(values.config))
    elif not has_data and values.model_dir is not None and saved.is_file():
        base = settings.from_dict(json.loads(saved.read_text(encoding="utf-8")))
    elif values.checkpoint is not None:
        base = _config_of_checkpoint(values.checkpoint)
    elif has_data:
        base = RunConfig()
    else:
        base = load_config(root / DEFAULT_CONFIG)

    changes: dict[str, Any] = {}
    for name, (field, _, _) in FLAGS.items():
        if values[name].value is not None:
            changes[field] = values[name].value
    for name, (choices, _) in SHORTHANDS.items():
        if values[name].value is not None:
            changes |= choices[values[name].value]
    for name, reason in STALE_FLAGS.items():
        if values[name].value is not None:
            logging.warning("The flag --%s is accepted and ignored: %s", name, reason)
    if values.data_dir is not None and values.dataset is None:
        changes["data.dataset"] = "folder"
    if values.config is None and has_data:
        changes["name"] = values.dataset or _name_of(values.data_dir)
    for assignment in values.set:
        field, separator, value = assignment.partition("=")
        if not separator:
            raise ValueError(f"--set needs section.field=value. Received: {assignment}")
        changes[field] = value
    return settings.override(base, changes)


def _name_of(data_dir: str) -> str:
    """What a run on these images is called: the last part of the first path that has no wildcards, without suffix."""
    parts = [part for part in data_dir.partition(",")[0].split("/") if part and not set(part) & set("*?[")]
    name = parts[-1].partition(".")[0] if parts else ""
    return name or pathlib.Path.cwd().name


def _config_of_checkpoint(path: str) -> RunConfig:
    """The reference's defaults, with the architecture of a checkpoint, on the embedded data."""
    place = pathlib.Path(path).resolve()
    runs = [folder for folder in (place, *place.parents[:2]) if (folder / "checkpoints").is_dir()]
    if runs and (runs[0] / "config.json").is_file():
        run = settings.from_dict(json.loads((runs[0] / "config.json").read_text(encoding="utf-8")))
        base = RunConfig(model=run.model, data=DataConfig(image_size=run.data.image_size))
    else:
        found = weights.read_architecture(path)
        fields = {f"model.{name}": value for name, value in found.items() if name != "num_classes"}
        base = settings.override(RunConfig(), fields)
        base = settings.override(base, {"data.image_size": 32 if base.model.stem == "cifar" else 224})
    return settings.override(base, {"name": place.name, "data.dataset": "shapes"})


def load_config(path: pathlib.Path) -> RunConfig:
    """The `RunConfig` that a config file's `get_config()` returns.

    Raises:
      FileNotFoundError: If there is no such file; the error suggests the nearest.
      ValueError: If the file has no `get_config`.
    """
    if not path.is_file():
        siblings = [str(other) for other in sorted(path.parent.glob("*.py"))]
        nearest = difflib.get_close_matches(str(path), siblings, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        raise FileNotFoundError(f"There is no config file {path}.{hint}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"A config file is a Python file. Received: {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"The config file {path} must define get_config() -> RunConfig")
    try:
        loaded = module.get_config()
    except TypeError as error:  # a field that does not exist
        raise ValueError(f"The config file {path} is wrong: {error}") from error
    logging.info("Config %s", path)
    return loaded

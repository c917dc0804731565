"""Everything that a run can be told, as frozen dataclasses.

The defaults are the reference's. A config file returns a `RunConfig`, `override` sets single fields of it by name.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

from tf_simclr.settings.rules import CHOICES, RULES


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where images come from."""

    dataset: str = "imagenet2012"  # a TFDS data set by name, "shapes" (embedded) or "folder" (your images: data_dir)
    data_dir: str | None = None  # folders, patterns, lists, TFRecord or .npz files, or where TFDS data sets are kept
    eval_data_dir: str | None = None  # labelled images for the evaluation, where data_dir does not hold them
    image_feature: str | None = None  # names the image in TFRecord files and TFDS; found by its name or type if None
    label_feature: str | None = None  # names the class there
    max_pixels: int = 100_000_000  # images of more pixels count as broken
    max_broken_fraction: float = 0.05  # a run stops when more than this part of its files are broken
    train_split: str = "train"
    eval_split: str = "validation"
    image_size: int = 224  # height and width in pixels of the images that the encoder is for
    cache: str = "none"  # "memory": encoded images; "disk": decoded ones, in model_dir; small ones are kept anyway
    service: str | None = None  # tf.data services that decode and crop, host:port with commas between them


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """How views are made of an image."""

    view_size: int = 0  # height and width of the views in pixels; 0: data.image_size
    crop_sampler: str = "tensorflow"  # "tensorflow": as the reference; "uniform_area": as the paper describes it
    crop_min_area: float = 0.08  # smallest crop, as a share of the image
    color_jitter_strength: float = 1.0
    color_jitter_probability: float = 0.8
    brightness: str = "multiplicative"  # "multiplicative": as SimCLR v2; "additive": as v1
    grayscale_probability: float = 0.2
    blur_probability: float = 0.5


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Encoder, heads and loss."""

    resnet_depth: int = 50
    width_multiplier: float = 1.0
    stem: str = "auto"  # "cifar" up to 32 px and "imagenet" above, or one of these or "strided" by name
    num_groups: int = 4
    sk_ratio: float = 0.0  # above 0: selective kernels and ResNet-D (SimCLR v2: 0.0625)
    se_ratio: float = 0.0  # above 0: squeeze and excitation
    global_bn: bool = True  # batch-norm statistics over all replicas
    batch_norm_momentum: float = 0.9
    num_proj_layers: int = 3
    proj_out_dim: int = 128
    temperature: float = 0.1
    hidden_norm: bool = True  # whether projections are scaled to unit length
    objective_weight: float = 2.0  # the reference's loss is the sum over the two views, twice the paper's
    online_classifier: bool = True  # train a linear classifier on the side, where there are labels
    classifier_layer: int = 0  # what a classifier reads: 0 the representation, i a layer of the head, -1 the last


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """Training on labels from the weights of a checkpoint."""

    after_block: int = -1  # last frozen part: -1 none, 0 the stem, 1 to 3 a group of blocks, 4 all but the classifier
    zero_init: bool = False  # the classifier starts as zero, not with the checkpoint's weights or random ones


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The update rule and its schedule."""

    name: str = "lars"
    base_learning_rate: float = 0.3
    learning_rate_scaling: str = "linear"  # "linear": base * B / 256; "sqrt": base * sqrt(B); "none": base
    warmup_epochs: float = 10.0
    momentum: float = 0.9
    weight_decay: float = 1e-6


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length, size and bookkeeping of the training."""

    global_batch_size: int = 512
    epochs: int = 100
    steps: int = 0  # overrides epochs unless 0
    microbatch_size: int = 0  # above 0: images that a replica's encoder takes at a time; the gradient is that of all
    checkpoint_epochs: float = 1.0
    checkpoint_steps: int = 0  # overrides checkpoint_epochs unless 0
    keep_checkpoints: int = 5
    precision: str = "auto"
    jit_compile: str = "auto"  # XLA: "auto" where the device is one GPU, "on" or "off"; a TPU knows nothing else
    steps_per_execution: int = 1  # steps that one call of the training graph makes; more keep accelerators busy
    log_every_seconds: float = 10.0  # how often the terminal and speed.jsonl tell the speed
    log_every_steps: int = 10  # steps that a line of metrics.jsonl is the mean of
    deterministic: bool = False  # bit-identical runs on accelerators, too, where some kernels are slower then


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluation of the frozen encoder."""

    batch_size: int = 256
    steps: int = 0  # batches of the images to evaluate on; 0 takes them all
    baselines: bool = False  # whether to evaluate raw pixels and the untrained encoder as well


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """The SavedModel."""

    keep: int = 1  # exports that stay, those of the highest steps; 0 keeps all
    embedding: str = "raw"  # "normalized": scaled to unit length
    pca_dim: int = 0  # above 0: embeddings are this many principal components of the training images' features
    project: bool = False  # whether there is a signature for projections
    precision: str = "run"  # what the export computes in: "run" as the run, or "float32" or "mixed_bfloat16"
    batch_sizes: str = "1,8"  # what servers are warmed up for; with commas, in increasing order; "" for none
    micro_batch_size: int = 0  # above 0: requests at the same time share batches of the encoder up to this size
    micro_batch_timeout_us: int = 1000  # how long such a batch waits for more images, in microseconds
    micro_batch_threads: int = 2  # such batches at the same time
    license: str = "unknown"  # of the weights, for the model card
    formats: str = ""  # other formats to convert the encoder to: "tflite", "onnx" or "tflite,onnx"


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run."""

    name: str = "simclr"  # names the model_dir when none is given
    mode: str = "train"
    train_mode: str = "pretrain"  # "finetune" trains a checkpoint on labels, "supervised" a new network
    model_dir: str | None = None
    checkpoint: str | None = None  # weights to start from: ours, or the reference's
    seed: int = 0
    strategy: str = "auto"
    tpu_name: str | None = None
    tpu_zone: str | None = None
    gcp_project: str | None = None
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    model: ModelConfig = ModelConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    export: ExportConfig = ExportConfig()

    def __post_init__(self) -> None:
        flat = flatten(self)
        for name, choices in CHOICES.items():
            if flat[name] not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}. Received: {flat[name]}")
        for name, (rule, is_kept) in RULES.items():
            if not is_kept(flat[name]):
                raise ValueError(f"{name} must be {rule}. Received: {flat[name]}")
        if self.train_mode == "finetune" and self.checkpoint is None:
            raise ValueError("train_mode=finetune needs --checkpoint (train_mode=supervised does not). Received: None")
        for name in ("log_every_steps", "checkpoint_steps"):
            if getattr(self.train, name) % self.train.steps_per_execution:
                raise ValueError(
                    f"train.{name} must be a multiple of train.steps_per_execution, {self.train.steps_per_execution}. "
                    f"Received: {getattr(self.train, name)}"
                )
        if self.train_mode != "pretrain" and self.train.microbatch_size:
            raise ValueError(
                f"train.microbatch_size is for train_mode=pretrain. Received: {self.train.microbatch_size} with "
                f"train_mode={self.train_mode}"
            )

    @property
    def view_size(self) -> int:
        """Height and width in pixels of the views that the training makes."""
        return self.augmentation.view_size or self.data.image_size

    @property
    def stem(self) -> str:
        """The stem that "auto" stands for."""
        by_size = "cifar" if self.data.image_size <= 32 else "imagenet"
        return by_size if self.model.stem == "auto" else self.model.stem

    @property
    def trains(self) -> bool:
        """Whether the run trains before it does anything else."""
        return self.mode in ("train", "train_then_eval")

    def total_steps(self, num_examples: int) -> int:
        """Steps of the whole run, counted as the reference does: `steps`, or else N * epochs // B + 1."""
        return self.train.steps or num_examples * self.train.epochs // self.train.global_batch_size + 1

    def warmup_steps(self, num_examples: int) -> int:
        """Steps of the warm-up, as in the reference."""
        return round(self.optimizer.warmup_epochs * num_examples // self.train.global_batch_size)

    def checkpoint_steps(self, num_examples: int) -> int:
        """Steps between two checkpoints: a multiple of those of an execution, at least one of them."""
        executions_per_epoch = num_examples / self.train.global_batch_size / self.train.steps_per_execution
        executions = max(1, round(self.train.checkpoint_epochs * executions_per_epoch))
        return self.train.checkpoint_steps or executions * self.train.steps_per_execution


def override(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """A copy of the config with fields set by name.

    Args:
      config: The config to start from.
      changes: New values by field name, such as "seed" or "train.epochs". Strings are converted to the field's type.

    Raises:
      ValueError: If a field does not exist (the error suggests the nearest), or its value has the wrong type.
    """
    flat = flatten(config)
    for name, value in changes.items():
        if name not in flat:
            nearest = difflib.get_close_matches(name, flat, n=1, cutoff=0.4)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise ValueError(f"There is no config field {name}.{hint}")
        flat[name] = value
    return _build(RunConfig, flat, prefix="")


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The config as nested dictionaries that JSON can hold."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """The inverse of `to_dict`.

    Raises:
      ValueError: If a field does not exist or a value has the wrong type.
    """
    return override(RunConfig(), _flatten_dict(values))


def differences(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Fields whose values differ, as {name: (old, new)}."""
    old_flat, new_flat = flatten(old), flatten(new)
    return {name: (old_flat[name], new_flat[name]) for name in old_flat if old_flat[name] != new_flat[name]}


def flatten(config: RunConfig) -> dict[str, Any]:
    """All fields by name, such as "train.epochs"."""
    return _flatten_dict(dataclasses.asdict(config))


def _flatten_dict(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": inner_value for inner, inner_value in value.items()}
        else:
            flat[name] = value
    return flat


def _build(cls: Any, flat: Mapping[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(cls)
    values = {}
    for field in dataclasses.fields(cls):
        kind, name = hints[field.name], prefix + field.name
        if dataclasses.is_dataclass(kind):
            values[field.name] = _build(kind, flat, f"{name}.")
        else:
            values[field.name] = _convert(name, flat[name], kind)
    return cls(**values)


def _convert(name: str, value: Any, kind: Any) -> Any:
    """The value in the type of its field: strings, as the command line gives them, are read."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None or (value in ("none", "None") and type(None) in options):
        if type(None) in options:
            return None
        raise ValueError(f"{name} needs a value of type {kind.__name__}. Received: None")
    kind = options[0]
    try:
        if kind is bool and not isinstance(value, bool):
            return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        if kind is int and isinstance(value, float) and value != int(value):
            raise ValueError
        return kind(value)
    except (KeyError, ValueError, TypeError):
        raise ValueError(f"{name} needs a value of type {kind.__name__}. Received: {value}") from None

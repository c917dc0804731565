"""All settings of a run: the sections from `fields`, and the settings of the run as a whole.

A config file returns a `RunConfig`; `override` changes single fields by name.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from tf_simclr.settings import rules
from tf_simclr.settings.augmentation import AugmentationConfig
from tf_simclr.settings.declaration import Needs, declared, expand_paths, flatten, setting
from tf_simclr.settings.distill import DistillConfig
from tf_simclr.settings.embed import EmbedConfig
from tf_simclr.settings.evaluation import EvalConfig
from tf_simclr.settings.export import ExportConfig
from tf_simclr.settings.fields import (
    DataConfig,
    FinetuneConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)

# The reference's.
DEFAULT_BATCH_SIZE = 512


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The whole run."""

    name: str = setting("simclr", "Names the run, whose folder is runs/NAME without model_dir.", resumable=True)
    mode: Literal["train", "eval", "train_then_eval", "export", "embed", "check", "report"] = setting(
        "train",
        "What to do; check looks at a run before it starts, embed fills output_dir, report writes report.html.",
        flag="mode", resumable=True,
    )  # fmt: skip
    train_mode: Literal["pretrain", "finetune", "supervised", "distill"] = setting(
        "pretrain",
        "Pretrains; fine-tunes, or trains a new network (supervised), on labels; or learns from a teacher (distill).",
        flag="train_mode",
    )  # fmt: skip
    model_dir: str | None = setting(
        None, "Folder of the run, which resumes if the folder already holds it; none uses runs/NAME.",
        flag="model_dir", resumable=True, card="leave_out", is_path=True,
    )  # fmt: skip
    checkpoint: str | None = setting(
        None, "Weights to start from: a folder, a prefix or a SavedModel; ours or the reference's.",
        flag="checkpoint", card="shorten", is_path=True,
    )  # fmt: skip
    seed: int = setting(0, "Seed of all random numbers.", rule=rules.SEED, flag="seed")
    strategy: Literal["auto", "default", "mirrored", "multi_worker", "tpu"] = setting(
        "auto", "How the devices share the work; auto uses all GPUs of the machine.", flag="strategy", resumable=True
    )
    tpu_name: str | None = setting(
        None, "Name or address of the TPU.",
        flag="tpu_name", alias="master", resumable=True, card="leave_out",
    )  # fmt: skip
    tpu_zone: str | None = setting(None, "Zone of the Cloud TPU.", flag="tpu_zone", resumable=True, card="leave_out")
    gcp_project: str | None = setting(
        None, "Project of the Cloud TPU.", flag="gcp_project", resumable=True, card="leave_out"
    )
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    model: ModelConfig = ModelConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    distill: DistillConfig = DistillConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    export: ExportConfig = ExportConfig()
    embed: EmbedConfig = EmbedConfig()

    def __post_init__(self) -> None:
        expand_paths(self)
        for name, value in flatten(self).items():
            SETTINGS[name].check(value)
        check_together(self)

    @property
    def view_size(self) -> int:
        """Height and width in pixels of the training views."""
        return self.augmentation.view_size or self.data.image_size

    @property
    def small_view_size(self) -> int | None:
        """Height and width in pixels of the small training views, by default half of the others'; none without any."""
        if self.train_mode != "pretrain" or not self.augmentation.num_small_views:
            return None
        return self.augmentation.small_view_size or max(1, self.view_size // 2)

    @property
    def input_sizes(self) -> set[int]:
        """Heights and widths in pixels of all that the encoder gets: images, views and small views."""
        return {self.data.image_size, self.view_size, self.small_view_size or self.view_size}

    @property
    def stem(self) -> str:
        """The stem of the encoder, never "auto"."""
        by_size = "cifar" if self.data.image_size <= 32 else "imagenet"
        return by_size if self.model.stem == "auto" else self.model.stem

    @property
    def trains(self) -> bool:
        """Whether the run trains."""
        return self.mode in ("train", "train_then_eval")

    @property
    def folder(self) -> str:
        """The run's folder: `model_dir`, or else runs/<name>."""
        return self.model_dir or f"runs/{self.name}"

    def global_batch_size(self, num_examples: int) -> int:
        """Images per step: those asked for, or else 512 or the largest power of two that fewer images fill."""
        largest_that_fits = 1 << max(num_examples, 2).bit_length() - 1
        return self.train.global_batch_size or min(DEFAULT_BATCH_SIZE, largest_that_fits)

    def total_steps(self, num_examples: int) -> int:
        """Steps of the whole run, counted as in the reference: `steps`, or else N * epochs // B + 1."""
        return self.train.steps or num_examples * self.train.epochs // self.global_batch_size(num_examples) + 1

    def warmup_steps(self, num_examples: int) -> int:
        """Steps of the warm-up, as in the reference."""
        return round(self.optimizer.warmup_epochs * num_examples // self.global_batch_size(num_examples))

    def checkpoint_steps(self, num_examples: int) -> int:
        """Steps between two checkpoints: a positive multiple of `steps_per_execution`."""
        executions_per_epoch = num_examples / self.global_batch_size(num_examples) / self.train.steps_per_execution
        executions = max(1, round(self.train.checkpoint_epochs * executions_per_epoch))
        return self.train.checkpoint_steps or executions * self.train.steps_per_execution


def typed(**values: Any) -> str:
    """How to give settings these values on the command line; the dot of a name is written as `__`.

    >>> typed(train__epochs=3, model__num_groups=2)
    '--train_epochs=3 --set=model.num_groups=2'
    """
    return " ".join(SETTINGS[name.replace("__", ".")].typed(value) for name, value in values.items())


def without_effect(config: RunConfig, name: str) -> str | None:
    """A sentence, if this setting has another value than its default and still changes nothing."""
    values, one = flatten(config), SETTINGS[name]
    missing = _missing(values, name)
    if missing is None or values[name] == one.default:
        return None
    needed, *allowed = missing
    ways = [SETTINGS[needed].typed(value) for value in allowed] or [f"--{SETTINGS[needed].flag}"]
    return f"{one.typed(values[name])} has no effect without {' or '.join(ways)}"


def _missing(values: Mapping[str, Any], name: str) -> Needs | None:
    """What a setting needs, or what that needs in turn, and does not have; None if it has all."""
    needs = SETTINGS[name].needs
    if needs is None:
        return None
    needed, *allowed = needs
    has_it = values[needed] in allowed if allowed else values[needed]
    return _missing(values, needed) if has_it else needs


def check_together(config: RunConfig) -> None:
    """Checks the rules that involve two settings.

    Raises:
      ValueError: If the settings break a rule.
    """
    train, data, model = config.train, config.data, config.model
    _check_start(config)
    for name in ("log_every_steps", "checkpoint_steps", "health_every_steps"):
        steps = getattr(train, name)
        if steps is not None and steps % train.steps_per_execution:
            above = steps + -steps % train.steps_per_execution
            raise ValueError(
                f"{SETTINGS[f'train.{name}'].title} must be a multiple of train.steps_per_execution, "
                f"{train.steps_per_execution}: use {typed(**{f'train__{name}': above})}. Received: {steps}"
            )
    if config.train_mode != "pretrain" and train.microbatch_size is not None:
        raise ValueError(
            f"--microbatch_size is for --train_mode=pretrain: use {typed(train__microbatch_size=0)} with "
            f"--train_mode={config.train_mode}. Received: {train.microbatch_size}"
        )
    if model.classifier_layer > model.num_proj_layers:
        raise ValueError(
            f"--ft_proj_selector must be at most --num_proj_layers, {model.num_proj_layers}, the layers of the "
            f"projection head: use {typed(model__classifier_layer=model.num_proj_layers)}, or "
            f"{typed(model__num_proj_layers=model.classifier_layer)}. Received: {model.classifier_layer}"
        )
    smallest, largest = config.augmentation.small_crop_min_area, config.augmentation.small_crop_max_area
    if smallest > largest:
        raise ValueError(
            "augmentation.small_crop_min_area must be at most augmentation.small_crop_max_area: use "
            f"{typed(augmentation__small_crop_min_area=largest)}. Received: {smallest:g} and {largest:g}"
        )
    if data.cache != "none" and data.service:
        raise ValueError(
            "data.cache keeps images on this machine, data.service reads them on others: choose one, with "
            f"{typed(data__service='')} or {typed(data__cache='none')}. "
            f"Received: cache={data.cache}, service={','.join(data.service)}"
        )


def _check_start(config: RunConfig) -> None:
    """Checks that a run names the weights and the teacher that it needs, and no others."""
    if config.train_mode == "finetune" and config.checkpoint is None:
        raise ValueError(
            "--train_mode=finetune needs --checkpoint, the weights to start from, such as --checkpoint=runs/shapes "
            "(--train_mode=supervised does not). Received: none"
        )
    distill = config.distill
    if config.train_mode == "distill" and distill.teacher is None:
        raise ValueError(
            "--train_mode=distill needs --teacher, the run, checkpoint or SavedModel to learn from, such as "
            "--teacher=runs/finetuned. Received: none"
        )
    if distill.target == "representations" and distill.label_weight is not None:
        raise ValueError(
            "--distill_label_weight is for --distill_target=logits, since representations have no classes: use "
            f"{typed(distill__label_weight=None)}. Received: {distill.label_weight}"
        )


def check_name(name: str, value: str, choices: Iterable[str]) -> None:
    """Checks a value whose choices only its consumer knows, such as the name of an encoder.

    Args:
      name: The setting's name, such as "model.encoder".
      value: Its value, or one item of its list.
      choices: What it may be, where words in capitals stand for any, as in "keras:NAME".

    Raises:
      ValueError: If the value is not one of the choices; the error suggests the nearest.
    """
    choices = tuple(choices)
    if not any(re.fullmatch(re.sub(r"\b[A-Z]+\b", "[^:]+", re.escape(choice)), value) for choice in choices):
        needed = f"must be one of {', '.join(choices)}" if choices else "must be empty: it has no choices yet"
        raise ValueError(f"{SETTINGS[name].title} {needed}.{rules.nearest(value, choices)} Received: {value}")


SETTINGS = declared(RunConfig)

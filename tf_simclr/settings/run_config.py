"""All settings of a run: the sections from `fields`, and the settings of the run as a whole.

A config file returns a `RunConfig`; `override` changes single fields by name.
"""

import dataclasses
from typing import Literal

from tf_simclr.settings import rules
from tf_simclr.settings.declaration import declared, expand_paths, flatten, setting
from tf_simclr.settings.fields import (
    AugmentationConfig,
    DataConfig,
    EvalConfig,
    ExportConfig,
    FinetuneConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The whole run."""

    name: str = setting("simclr", "Names the run, whose folder is runs/NAME without model_dir.", resumable=True)
    mode: Literal["train", "eval", "train_then_eval", "export", "check"] = setting(
        "train", "What to do; check examines images, settings and machine before a run.", flag="mode", resumable=True
    )
    train_mode: Literal["pretrain", "finetune", "supervised"] = setting(
        "pretrain",
        "Pretrains without labels, fine-tunes a checkpoint on labels, or trains a new network on them (supervised).",
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
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    export: ExportConfig = ExportConfig()

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
    def stem(self) -> str:
        """The stem of the encoder, never "auto"."""
        by_size = "cifar" if self.data.image_size <= 32 else "imagenet"
        return by_size if self.model.stem == "auto" else self.model.stem

    @property
    def trains(self) -> bool:
        """Whether the run trains."""
        return self.mode in ("train", "train_then_eval")

    def total_steps(self, num_examples: int) -> int:
        """Steps of the whole run, counted as in the reference: `steps`, or else N * epochs // B + 1."""
        return self.train.steps or num_examples * self.train.epochs // self.train.global_batch_size + 1

    def warmup_steps(self, num_examples: int) -> int:
        """Steps of the warm-up, as in the reference."""
        return round(self.optimizer.warmup_epochs * num_examples // self.train.global_batch_size)

    def checkpoint_steps(self, num_examples: int) -> int:
        """Steps between two checkpoints: a positive multiple of `steps_per_execution`."""
        executions_per_epoch = num_examples / self.train.global_batch_size / self.train.steps_per_execution
        executions = max(1, round(self.train.checkpoint_epochs * executions_per_epoch))
        return self.train.checkpoint_steps or executions * self.train.steps_per_execution


def check_together(config: RunConfig) -> None:
    """Checks the rules that involve two settings.

    Raises:
      ValueError: If the settings break a rule.
    """
    train, data = config.train, config.data
    if config.train_mode == "finetune" and config.checkpoint is None:
        raise ValueError("train_mode=finetune needs --checkpoint (train_mode=supervised does not). Received: None")
    for name, steps in (("log_every_steps", train.log_every_steps), ("checkpoint_steps", train.checkpoint_steps)):
        if steps is not None and steps % train.steps_per_execution:
            raise ValueError(
                f"train.{name} must be a multiple of train.steps_per_execution, {train.steps_per_execution}. "
                f"Received: {steps}"
            )
    if config.train_mode != "pretrain" and train.microbatch_size is not None:
        raise ValueError(
            f"train.microbatch_size is for train_mode=pretrain. Received: {train.microbatch_size} with "
            f"train_mode={config.train_mode}"
        )
    if data.cache != "none" and data.service:
        raise ValueError(
            "data.cache keeps images on this machine, data.service reads them on others: choose one. "
            f"Received: cache={data.cache}, service={','.join(data.service)}"
        )


SETTINGS = declared(RunConfig)

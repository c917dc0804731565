"""The settings of a run."""

from tf_simclr.settings.augmentation import AugmentationConfig
from tf_simclr.settings.declaration import Setting, flatten, to_text
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
from tf_simclr.settings.override import VERSION, differences, from_dict, override, to_dict
from tf_simclr.settings.run_config import DEFAULT_BATCH_SIZE, SETTINGS, RunConfig, check_name, typed

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "SETTINGS",
    "VERSION",
    "AugmentationConfig",
    "DataConfig",
    "DistillConfig",
    "EmbedConfig",
    "EvalConfig",
    "ExportConfig",
    "FinetuneConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "Setting",
    "TrainConfig",
    "check_name",
    "differences",
    "flatten",
    "from_dict",
    "override",
    "to_dict",
    "to_text",
    "typed",
]

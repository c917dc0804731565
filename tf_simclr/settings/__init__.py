"""Everything that a run can be told."""

from tf_simclr.settings.fields import (
    AugmentationConfig,
    DataConfig,
    EvalConfig,
    ExportConfig,
    FinetuneConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    differences,
    flatten,
    from_dict,
    override,
    to_dict,
)

__all__ = [
    "AugmentationConfig",
    "DataConfig",
    "EvalConfig",
    "ExportConfig",
    "FinetuneConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "TrainConfig",
    "differences",
    "flatten",
    "from_dict",
    "override",
    "to_dict",
]

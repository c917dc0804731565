"""What the fields of the config may hold."""

import math
import re
from collections.abc import Callable
from typing import Any

CHOICES: dict[str, tuple[Any, ...]] = {
    "mode": ("train", "eval", "train_then_eval", "export", "check"),
    "train_mode": ("pretrain", "finetune", "supervised"),
    "strategy": ("auto", "default", "mirrored", "multi_worker", "tpu"),
    "data.cache": ("none", "memory", "disk"),
    "augmentation.crop_sampler": ("tensorflow", "uniform_area"),
    "augmentation.brightness": ("multiplicative", "additive"),
    "model.resnet_depth": (10, 18, 34, 50, 101, 152, 200),
    "model.stem": ("auto", "cifar", "strided", "imagenet"),
    "optimizer.name": ("lars", "momentum", "adam", "adamw"),
    "optimizer.learning_rate_scaling": ("linear", "sqrt", "none"),
    "export.embedding": ("raw", "normalized"),
    "export.precision": ("run", "float32", "mixed_bfloat16"),
    "train.precision": ("auto", "float32", "mixed_bfloat16"),
    "train.jit_compile": ("auto", "on", "off"),
}
_POSITIVE = ("positive", lambda value: 0 < value < math.inf)
_AT_LEAST_0 = ("at least 0", lambda value: 0 <= value < math.inf)
_AT_LEAST_1 = ("at least 1", lambda value: value >= 1)
_SHARE = ("between 0 and 1", lambda value: 0 <= value <= 1)
_INCREASING = (
    "whole numbers from 1 on, in increasing order, with commas between them",
    lambda value: (
        re.fullmatch(r"([1-9]\d*(,[1-9]\d*)*)?", value) is not None
        and (sizes := [int(size) for size in value.split(",") if size]) == sorted(set(sizes))
    ),
)
_FORMATS = {"", "tflite", "onnx"}
# field: (how an error puts it, whether a value keeps it)
RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "seed": ("between 0 and 2**32 - 1", lambda value: 0 <= value < 2**32),
    "data.image_size": _AT_LEAST_1,
    "data.max_pixels": _AT_LEAST_1,
    "data.max_broken_fraction": _SHARE,
    "augmentation.view_size": _AT_LEAST_0,
    "augmentation.crop_min_area": ("above 0, at most 1", lambda value: 0 < value <= 1),
    "augmentation.color_jitter_strength": _AT_LEAST_0,
    "augmentation.color_jitter_probability": _SHARE,
    "augmentation.grayscale_probability": _SHARE,
    "augmentation.blur_probability": _SHARE,
    "model.width_multiplier": _POSITIVE,
    "model.sk_ratio": _SHARE,
    "model.se_ratio": _SHARE,
    "model.num_groups": ("from 1 to 4", lambda value: 1 <= value <= 4),
    "model.batch_norm_momentum": _SHARE,
    "model.num_proj_layers": _AT_LEAST_0,
    "model.proj_out_dim": _AT_LEAST_1,
    "model.classifier_layer": ("at least -1", lambda value: value >= -1),
    "model.temperature": _POSITIVE,
    "model.objective_weight": _POSITIVE,
    "finetune.after_block": ("from -1 to 4", lambda value: -1 <= value <= 4),
    "optimizer.base_learning_rate": _AT_LEAST_0,
    "optimizer.warmup_epochs": _AT_LEAST_0,
    "optimizer.momentum": ("at least 0 and below 1", lambda value: 0 <= value < 1),
    "optimizer.weight_decay": _AT_LEAST_0,
    # An image is told apart from the others of its batch.
    "train.global_batch_size": ("at least 2", lambda value: value >= 2),
    "train.epochs": _AT_LEAST_0,
    "train.steps": _AT_LEAST_0,
    "train.microbatch_size": _AT_LEAST_0,
    "train.checkpoint_epochs": _POSITIVE,
    "train.checkpoint_steps": _AT_LEAST_0,
    "train.keep_checkpoints": _AT_LEAST_1,
    "train.steps_per_execution": _AT_LEAST_1,
    "train.log_every_seconds": _AT_LEAST_0,
    "train.log_every_steps": _AT_LEAST_1,
    "eval.batch_size": _AT_LEAST_1,
    "eval.steps": _AT_LEAST_0,
    "export.keep": _AT_LEAST_0,
    "export.pca_dim": _AT_LEAST_0,
    "export.batch_sizes": _INCREASING,
    "export.micro_batch_size": _AT_LEAST_0,
    "export.micro_batch_timeout_us": _AT_LEAST_0,
    "export.micro_batch_threads": _AT_LEAST_1,
    "export.formats": ("tflite, onnx, or both with a comma between", lambda value: set(value.split(",")) <= _FORMATS),
}

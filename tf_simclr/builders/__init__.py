"""The only place that turns settings into components."""

from tf_simclr.augment import OPERATORS, SIMCLR_NAMES
from tf_simclr.builders.data import Sources, build_archive, build_sources
from tf_simclr.builders.encoder import ENCODERS, FORMS, build_encoder
from tf_simclr.builders.model import build_augmentation, build_head, build_model, build_small_views
from tf_simclr.builders.optimizer import build_optimizer
from tf_simclr.losses import LOSSES

# The settings whose choices only their consumers know, with those choices.
NAMES: dict[str, tuple[str, ...]] = {
    "model.encoder": (*ENCODERS, *FORMS),
    "model.loss": tuple(LOSSES),
    "augmentation.more_operators": tuple(OPERATORS),
    "augmentation.operators": (*SIMCLR_NAMES, *OPERATORS),
}

__all__ = [
    "NAMES",
    "Sources",
    "build_archive",
    "build_augmentation",
    "build_encoder",
    "build_head",
    "build_model",
    "build_small_views",
    "build_optimizer",
    "build_sources",
]

"""The only place that turns settings into components."""

from tf_simclr.builders.data import Sources, build_sources
from tf_simclr.builders.model import build_augmentation, build_encoder, build_model
from tf_simclr.builders.optimizer import build_optimizer

__all__ = [
    "Sources",
    "build_augmentation",
    "build_encoder",
    "build_model",
    "build_optimizer",
    "build_sources",
]

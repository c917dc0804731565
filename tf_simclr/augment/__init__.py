"""Augmentation of batches on the device: stateless, and the same numbers with and without XLA."""

from tf_simclr.augment.crop import stateless_crop_boxes
from tf_simclr.augment.views import Augmentation

__all__ = ["Augmentation", "stateless_crop_boxes"]

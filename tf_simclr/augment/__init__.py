"""Augmentation of batches on the device: stateless, and the same numbers with and without XLA."""

from tf_simclr.augment.blur import GaussianBlur
from tf_simclr.augment.chain import Chain, simclr_chain
from tf_simclr.augment.crop import RandomCrop
from tf_simclr.augment.draws import FIRST_SMALL_VIEW, content_keys, example_keys
from tf_simclr.augment.flip import RandomFlip
from tf_simclr.augment.grayscale import RandomGrayscale
from tf_simclr.augment.jitter import ColorJitter
from tf_simclr.augment.noise import GaussianNoise
from tf_simclr.augment.operator import Operator
from tf_simclr.augment.views import Augmentation, crop_and_flip

# Operators that a run appends to the paper's chain by their names, with the defaults of their fields.
OPERATORS: dict[str, type[Operator]] = {"gaussian_noise": GaussianNoise}

__all__ = [
    "FIRST_SMALL_VIEW",
    "OPERATORS",
    "Augmentation",
    "Chain",
    "ColorJitter",
    "GaussianBlur",
    "GaussianNoise",
    "Operator",
    "RandomCrop",
    "RandomFlip",
    "RandomGrayscale",
    "content_keys",
    "crop_and_flip",
    "example_keys",
    "simclr_chain",
]

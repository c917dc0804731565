"""Augmentation of batches on the device: stateless, and the same numbers with and without XLA."""

from tf_simclr.augment.autoaugment import AutoAugment
from tf_simclr.augment.blur import GaussianBlur
from tf_simclr.augment.chain import SIMCLR_NAMES, Chain, simclr_chain
from tf_simclr.augment.crop import WHOLE_IMAGE, RandomCrop
from tf_simclr.augment.cutout import Cutout
from tf_simclr.augment.draws import FIRST_SMALL_VIEW, content_keys, example_keys
from tf_simclr.augment.flip import RandomFlip
from tf_simclr.augment.grayscale import RandomGrayscale
from tf_simclr.augment.jitter import ColorJitter
from tf_simclr.augment.noise import GaussianNoise
from tf_simclr.augment.operator import Operator
from tf_simclr.augment.rotation import RandomRotation
from tf_simclr.augment.sobel import Sobel
from tf_simclr.augment.views import Augmentation, crop_and_flip

# Operators that a run takes by their names, besides those of `simclr_chain`.
OPERATORS: dict[str, Operator] = {
    "gaussian_noise": GaussianNoise(),
    "rotation": RandomRotation(),
    "cutout": Cutout(),
    "sobel": Sobel(),
    "autoaugment_cifar10": AutoAugment("cifar10"),
    "autoaugment_imagenet": AutoAugment("imagenet"),
}

__all__ = [
    "FIRST_SMALL_VIEW",
    "OPERATORS",
    "SIMCLR_NAMES",
    "WHOLE_IMAGE",
    "Augmentation",
    "AutoAugment",
    "Chain",
    "ColorJitter",
    "Cutout",
    "GaussianBlur",
    "GaussianNoise",
    "Operator",
    "RandomCrop",
    "RandomFlip",
    "RandomGrayscale",
    "RandomRotation",
    "Sobel",
    "content_keys",
    "crop_and_flip",
    "example_keys",
    "simclr_chain",
]

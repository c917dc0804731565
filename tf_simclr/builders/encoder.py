"""The encoder of a run, from its settings."""

from collections.abc import Callable
from typing import Any

from tf_simclr import devices
from tf_simclr.builders.own_encoder import build_own, is_own
from tf_simclr.keras import keras
from tf_simclr.models import applications
from tf_simclr.models.resnet import NUM_GROUPS, ResNet, resnet, total_stride
from tf_simclr.models.vit import vit
from tf_simclr.settings import SETTINGS, RunConfig, check_name, typed

# Patches of a ViT: the largest, and how many there are at least along a side.
_LARGEST_PATCH, _FEWEST_PATCHES = 16, 8


def _build_resnet(config: RunConfig, **settings: Any) -> ResNet:
    _check_sizes(config, f"A ResNet with the {config.stem} stem", total_stride(config.stem, config.model.num_groups))
    return resnet(
        config.model.resnet_depth,
        config.model.width_multiplier,
        config.stem,
        num_groups=config.model.num_groups,
        sk_ratio=config.model.sk_ratio,
        se_ratio=config.model.se_ratio,
        final_width=config.model.final_width,
        image_size=_image_size(config),
        dtype=_policy(config),
        **settings,
    )


def _build_application(name: str, config: RunConfig, **settings: Any) -> keras.Model:
    fitting = _fitting(config, lambda size: max(size, applications.smallest_size(name)))
    if fitting:
        raise ValueError(f"{name} takes images of at least {applications.smallest_size(name)} px: {fitting}")
    return applications.application(name, _image_size(config), dtype=_policy(config), **settings)


def _build_vit(width: int, num_heads: int, config: RunConfig, *, l2: float = 0.0, **unused: Any) -> keras.Model:
    largest = max(1, config.data.image_size // _FEWEST_PATCHES)
    patch_size = min(_LARGEST_PATCH, 1 << largest.bit_length() - 1)
    fitting = _fitting(config, lambda size: max(1, round(size / patch_size)) * patch_size)
    if fitting:
        raise ValueError(f"The ViT cuts images into patches of {patch_size} px: {fitting}")
    size, policy = _image_size(config), _policy(config)
    return vit(patch_size, width, num_heads=num_heads, image_size=size, l2=l2, dtype=policy)


# Values of `--encoder`: name -> function of the config and of the keyword arguments that `build_encoder` describes.
# It honours train.precision and returns a Keras model from images [B, S, S, 3] in [0, 1] to float32 [B, F].
ENCODERS: dict[str, Callable[..., keras.Model]] = {
    "resnet": _build_resnet,
    "vit_tiny": lambda config, **settings: _build_vit(192, 3, config, **settings),
    "vit_small": lambda config, **settings: _build_vit(384, 6, config, **settings),
    "convnext_tiny": lambda config, **settings: _build_application("ConvNeXtTiny", config, **settings),
}
# Further values, where words in capitals stand for any: a Keras application, and a function of the user's.
FORMS = ("keras:NAME", "MODULE:FUNCTION")


def build_encoder(config: RunConfig, **settings: Any) -> keras.Model:
    """The encoder that `model.encoder` names.

    Args:
      config: The run.
      **settings: Optional settings of its layers: `synchronized`, whether batch-norm statistics cover all replicas;
        `batch_norm_momentum`, the share of the moving averages that a step keeps; `l2`, the coefficient of a penalty
        on every weight except those of normalisation. A function of the user's gets the last one alone.

    Raises:
      ValueError: If the encoder's name is unknown, or its settings do not fit together.
    """
    name = config.model.encoder
    check_name("model.encoder", name, (*ENCODERS, *FORMS))
    if name in ENCODERS:
        return ENCODERS[name](config, **settings)
    if is_own(name):
        return build_own(config, **settings)
    check_name("model.encoder", name, [f"keras:{one}" for one in applications.NAMES])
    return _build_application(name.partition(":")[2], config, **settings)


def _policy(config: RunConfig) -> str:
    """The dtype policy of the encoder's layers."""
    return devices.resolve_precision(config.train.precision)[0]


def _image_size(config: RunConfig) -> int | None:
    """The size of all images that the encoder gets, in pixels; None if views have another."""
    return config.data.image_size if len(config.input_sizes) == 1 else None


def _check_sizes(config: RunConfig, network: str, stride: int) -> None:
    """Raises a `ValueError` if the network would shrink its images or the views to nothing; it names sizes that fit."""
    if fitting := _fitting(config, lambda size: max(size, stride)):
        raise ValueError(f"{network} shrinks images by a factor of {stride}: {fitting}")


def _fitting(config: RunConfig, fit: Callable[[int], int]) -> str | None:
    """The end of a sentence that gives sizes in pixels which a network takes; None if it takes those of the run.

    Args:
      config: The run.
      fit: From a size to one that the network takes, the same if it takes this one.
    """
    sizes = {"data__image_size": config.data.image_size}
    if config.augmentation.view_size is not None:
        sizes["augmentation__view_size"] = config.augmentation.view_size
    if config.small_view_size is not None:
        sizes["augmentation__small_view_size"] = config.small_view_size
    fitting = {name: fit(size) for name, size in sizes.items() if fit(size) != size}
    received = ", ".join(f"{name.partition('__')[2]} {sizes[name]}" for name in fitting)
    return f"use {typed(**fitting)}. Received: {received}" if fitting else None


def freeze(encoder: keras.Model, after_block: int) -> None:
    """Freezes an encoder from its input up to a part; only a ResNet has several parts.

    Args:
      encoder: The encoder.
      after_block: Last part to freeze: 0 the stem, 1 to 3 a group of blocks, 4 the whole encoder.

    Raises:
      ValueError: If the encoder has no such part.
    """
    if isinstance(encoder, ResNet):
        encoder.freeze(after_block)
    elif after_block == NUM_GROUPS:
        encoder.trainable = False
    else:
        raise ValueError(
            f"{SETTINGS['finetune.after_block'].title} must be {NUM_GROUPS}, the whole encoder, or none (-1 on "
            f"the flag) where the encoder is not a ResNet. Received: {after_block}"
        )

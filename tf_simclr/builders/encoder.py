"""The encoder of a run, from its settings."""

from collections.abc import Callable
from typing import Any

from tf_simclr import devices
from tf_simclr.keras import keras
from tf_simclr.models.convnext import TOTAL_STRIDE, convnext_tiny
from tf_simclr.models.resnet import NUM_GROUPS, ResNet, resnet, total_stride
from tf_simclr.settings import SETTINGS, RunConfig, check_name, typed


def _build_resnet(config: RunConfig, **settings: Any) -> ResNet:
    policy, _ = devices.resolve_precision(config.train.precision)
    _check_sizes(config, f"A ResNet with the {config.stem} stem", total_stride(config.stem, config.model.num_groups))
    return resnet(
        config.model.resnet_depth,
        config.model.width_multiplier,
        config.stem,
        num_groups=config.model.num_groups,
        sk_ratio=config.model.sk_ratio or 0.0,
        se_ratio=config.model.se_ratio or 0.0,
        image_size=_only_size(config),
        dtype=policy,
        **settings,
    )


def _build_convnext_tiny(config: RunConfig, *, l2: float = 0.0, **unused: Any) -> keras.Model:
    policy, _ = devices.resolve_precision(config.train.precision)
    _check_sizes(config, "ConvNeXt", TOTAL_STRIDE)
    return convnext_tiny(_only_size(config), l2=l2, dtype=policy)


def _only_size(config: RunConfig) -> int | None:
    """The size of the images that the encoder takes, or `None` if its views have another."""
    sizes = {config.data.image_size, config.view_size, config.small_view_size or config.view_size}
    return config.data.image_size if len(sizes) == 1 else None


def _check_sizes(config: RunConfig, network: str, stride: int) -> None:
    """Raises a `ValueError` if the network would shrink its images or the views to nothing; it names sizes that fit."""
    sizes = {"data__image_size": config.data.image_size, "augmentation__view_size": config.view_size}
    if config.augmentation.view_size is None:
        del sizes["augmentation__view_size"]
    if config.small_view_size is not None:
        sizes["augmentation__small_view_size"] = config.small_view_size
    fitting = {name: stride for name, size in sizes.items() if size < stride}
    received = ", ".join(f"{name.partition('__')[2]} {sizes[name]}" for name in fitting)
    if fitting:
        raise ValueError(
            f"{network} shrinks images by a factor of {stride}: use {typed(**fitting)}. Received: {received}"
        )


# Values of `--encoder`: name -> function of the config and of the keyword arguments that `build_encoder` describes.
# It honours train.precision and returns a Keras model from images [B, S, S, 3] in [0, 1] to float32 [B, F].
ENCODERS: dict[str, Callable[..., keras.Model]] = {"resnet": _build_resnet, "convnext_tiny": _build_convnext_tiny}


def build_encoder(config: RunConfig, **settings: Any) -> keras.Model:
    """The encoder that `model.encoder` names.

    Args:
      config: The run.
      **settings: Optional settings of its layers: `synchronized`, whether batch-norm statistics cover all replicas;
        `batch_norm_momentum`, the share of the moving averages that a step keeps; `l2`, the coefficient of a penalty
        on every weight except those of normalisation.

    Raises:
      ValueError: If the encoder's name is unknown, or its settings do not fit together.
    """
    check_name("model.encoder", config.model.encoder, ENCODERS)
    return ENCODERS[config.model.encoder](config, **settings)


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

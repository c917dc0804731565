"""Arguments of models: which of them go together."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from tf_simclr.augment import FIRST_SMALL_VIEW, Augmentation
from tf_simclr.keras import keras
from tf_simclr.losses import Loss, NTXent, Pairs

_SMALL_VIEW_PAIRS = ("large", "all")


def choose_loss(loss: Loss | None, temperature: float | None) -> Loss:
    """The loss, for which a temperature is short; raises a `ValueError` if both are given."""
    if temperature is None:
        return NTXent() if loss is None else loss
    if loss is not None:
        raise ValueError(
            "temperature is short for loss=NTXent(temperature): give one of the two. "
            f"Received: loss={loss}, temperature={temperature}"
        )
    return NTXent(temperature)


def check_small_views(small_views: Augmentation | None, pairs: str, augmentation: Augmentation) -> Augmentation | None:
    """The small views; raises a `ValueError` if they do not fit the large ones, or `pairs` is unknown."""
    if pairs not in _SMALL_VIEW_PAIRS:
        raise ValueError(f"small_view_pairs must be one of {', '.join(_SMALL_VIEW_PAIRS)}. Received: {pairs!r}")
    if small_views is not None and set(small_views.view_numbers) & set(augmentation.view_numbers):
        raise ValueError(
            "Small views need random numbers of their own: make their augmentation with "
            f"first_view={FIRST_SMALL_VIEW}. Received: first_view={small_views.first_view}"
        )
    return small_views


def choose_pairs(augmentation: Augmentation, small_views: Augmentation | None, small_view_pairs: str) -> Pairs:
    """Which views of an image are compared, on one replica; raises a `ValueError` if there are too few."""
    num_large, num_small = augmentation.num_views, small_views.num_views if small_views else 0
    are_anchors_alone = num_small > 0 and small_view_pairs == "large"
    return Pairs(num_large + num_small, num_large=num_large if are_anchors_alone else None)


def check_small_images(small_views: Augmentation, small_images: tf.TensorSpec | None) -> None:
    """Raises a `ValueError` unless there are crops for the small views where those of the others are cut already."""
    if small_images is None:
        size = small_views.image_size
        raise ValueError(
            "Where the views are already cropped, a model with small views needs these, too: batches of {'images', "
            f"'small_images', 'keys'}}, with small_images [n, {small_views.num_views}, {size}, {size}, 3]. "
            "Received: no small_images"
        )
    small_views.check_spec(small_images)


def check_optimizer(optimizer: Any) -> None:
    """Raises a `ValueError` if an optimizer accumulates the gradients of several steps."""
    if steps := getattr(optimizer, "gradient_accumulation_steps", None):
        raise ValueError(
            "Accumulating gradients of small batches is not equal to one large batch, in which each image is "
            "compared with all others: use microbatch_size in place of gradient_accumulation_steps. "
            f"Received: gradient_accumulation_steps={steps}"
        )


def check_precision(optimizer: Any, layers: Iterable[keras.layers.Layer]) -> None:
    """Raises a `ValueError` if gradients would be float16, in which small ones vanish: no step scales its loss."""
    if isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer):
        found = type(optimizer).__name__
    else:
        found = next((f"{layer.name} in float16" for layer in layers if layer.compute_dtype == "float16"), "")
    if found:
        raise ValueError(f"Models do not train in float16: use mixed_bfloat16 or float32. Received: {found}")

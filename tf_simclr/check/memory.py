"""Estimates the memory of a training step."""

from typing import NamedTuple

from tf_simclr.activation_memory import bytes_per_view
from tf_simclr.models.trainer import EncoderTrainer
from tf_simclr.runs.checkpoints import in_variables
from tf_simclr.settings import RunConfig


class Memory(NamedTuple):
    """Bytes on one device.

    Attributes:
      parameters: Weights, trained or not, and their gradients.
      optimizer: State of the optimizer.
      activations: Outputs of the encoder's forward pass; the gradient needs most of them.
    """

    parameters: int
    optimizer: int
    activations: int


def images_at_once(config: RunConfig, images_on_replica: int) -> int:
    """How many of a replica's images are encoded at a time."""
    return min(config.train.microbatch_size or images_on_replica, images_on_replica)


def estimate(model: EncoderTrainer, images_at_once: int) -> Memory:
    """Estimates the memory of a step of a compiled model, without the working memory of single operations."""
    augmentations = [model.augmentation, *([model.small_views] if model.small_views else [])]
    per_image = sum(one.num_views * bytes_per_view(model.encoder, one.image_size) for one in augmentations)
    return Memory(
        in_variables(model.variables) + in_variables(model.trainable_variables),
        in_variables(model.optimizer.variables),
        images_at_once * per_image,
    )

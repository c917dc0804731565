"""Losses that compare the views of images, and their common interface."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import tensorflow as tf

from tf_simclr.losses.dcl import DCL
from tf_simclr.losses.dclw import DCLW
from tf_simclr.losses.margin_triplet import MarginTriplet
from tf_simclr.losses.nt_logistic import NTLogistic
from tf_simclr.losses.nt_xent import NTXent
from tf_simclr.losses.pairs import Pairs
from tf_simclr.losses.supcon import SupCon

__all__ = ["DCL", "DCLW", "LOSSES", "Loss", "MarginTriplet", "NTLogistic", "NTXent", "Pairs", "SupCon"]


class Loss(Protocol):
    """What `SimCLR` expects of a loss.

    A loss is a frozen dataclass whose fields are its settings, in its own module. It imports nothing from the models
    and knows about replicas only what `Pairs` says.

    Attributes:
      metric_names: The metrics that a call returns besides the loss, in reporting order.
      uses_labels: Whether it reads `Pairs.labels`; a loss that leaves this out does not.

    One with the metric "contrastive_entropy" also has `entropy_candidates(num_views, global_batch_size)`: how many
    candidates that entropy is over, without a memory.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    metric_names: ClassVar[tuple[str, ...]]
    uses_labels: ClassVar[bool]

    def __call__(self, projections: tf.Tensor, pairs: Pairs = ...) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Compares the views of a batch.

        Args:
          projections: Float tensor [V n, D], view after view: the projections of the n images of this replica.
          pairs: The number of views V, and how to reach the projections of the other replicas.

        Returns:
          loss: Scalar with a gradient: the mean over the anchors of this replica. The mean over the replicas is the
            loss of the global batch.
          metrics: A scalar for each of `metric_names`, without a gradient.
        """

    def collapse_value(self, num_views: int, global_batch_size: int) -> float | None:
        """The loss when all projections are equal, or `None` if no single value indicates a collapsed encoder."""


# The losses by their names on the command line, each created with those of the settings that are its fields.
LOSSES: dict[str, Callable[..., Loss]] = {
    "nt_xent": NTXent,
    "dcl": DCL,
    "dclw": DCLW,
    "nt_logistic": NTLogistic,
    "nt_logistic_semi_hard": functools.partial(NTLogistic, semi_hard=True),
    "margin_triplet": MarginTriplet,
    "margin_triplet_semi_hard": functools.partial(MarginTriplet, semi_hard=True),
    "supcon": SupCon,
}

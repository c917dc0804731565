"""The interface of every operator in a chain, and helpers that operators share."""

from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

Planes = Sequence[tf.Tensor]


class Operator:
    """Changes some images of a batch, each by its own random numbers.

    They compute for all images alike, by `tf.where`: AutoGraph rewrites no Python `if` on a tensor for them.
    Operators are frozen dataclasses: equal fields mean the same operator. They hold no state and draw nothing
    themselves, so they give the same pixels with and without XLA, in any part of a batch. At probability 0 they return
    their input.

    Attributes:
      num_draws: Uniform random numbers that the operator takes for each image, at most 1024.
      on_planes: Whether it takes and returns a batch as its red, green and blue planes, three times float32
        `[n, S, S]`, or stacked, float32 `[n, 3, S, S]`. Operators that combine whole planes take planes: each of their
        steps is one contiguous loop, and a CPU runs consecutive operators on planes as one compiled call. Their result
        is clipped to [0, 1] before an operator on stacked planes gets it.
      stream: Number in [0, 65535] that keys its random numbers; no two operators of a chain share one. It is part of
        what a seed means, so it never changes once in use.
      probability: Share of the images that the operator changes.
    """

    num_draws: ClassVar[int]
    on_planes: ClassVar[bool] = True
    stream: int
    probability: float

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(
                f"`{type(self).__name__}.probability` must be between 0 and 1. Received: {self.probability!r}"
            )

    @property
    def is_identity(self) -> bool:
        """Whether the operator changes nothing, so that a chain leaves it out."""
        return self.probability == 0

    def __call__(self, images: Any, draws: tf.Tensor) -> Any:
        """Applies the operator.

        Args:
          images: Three times float32 `[n, S, S]` if `on_planes`, else float32 `[n, 3, S, S]`.
          draws: float32 `[n, num_draws]`, uniform in [0, 1).

        Returns:
          The images in the layout of `images`.
        """
        raise NotImplementedError


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError if the value is not one of the choices."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}. Received: {value!r}")


def select(condition: tf.Tensor, chosen: Planes, other: Planes) -> list[tf.Tensor]:
    """The planes of `chosen` where the condition, bool `[n, 1, 1]`, holds, and those of `other` elsewhere."""
    return [tf.where(condition, first, second) for first, second in zip(chosen, other, strict=True)]

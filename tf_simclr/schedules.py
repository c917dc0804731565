"""The learning rate: scaled with the batch, then linear warm-up and cosine decay, as in the reference."""

import math
from typing import Any

import tensorflow as tf

from tf_simclr.keras import keras


def peak_learning_rate(base_learning_rate: float, global_batch_size: int, scaling: str = "linear") -> float:
    """The learning rate at the end of the warm-up.

    >>> peak_learning_rate(0.3, global_batch_size=512)
    0.6
    >>> round(peak_learning_rate(0.075, global_batch_size=512, scaling="sqrt"), 3)
    1.697

    Source: SimCLR, section 2.2 and appendix B.1.

    Args:
      base_learning_rate: Learning rate before scaling, >= 0.
      global_batch_size: B, images in a step on all replicas.
      scaling: "linear" (base * B / 256), "sqrt" (base * sqrt(B)) or "none" (base).

    Raises:
      ValueError: If the scaling is unknown.
    """
    if scaling == "linear":
        return base_learning_rate * global_batch_size / 256
    if scaling == "sqrt":
        return base_learning_rate * math.sqrt(global_batch_size)
    if scaling == "none":
        return base_learning_rate
    raise ValueError(f"learning rate scaling must be linear, sqrt or none. Received: {scaling}")


@keras.saving.register_keras_serializable("tf_simclr")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0 to the peak, then half a cosine down to 0 at `total_steps`, and 0 from there on.

    With a warm-up, the learning rate of step 0 is 0, as in the reference.

    >>> schedule = WarmupCosine(0.6, total_steps=10, warmup_steps=2)
    >>> [round(float(schedule(step)), 3) for step in (0, 1, 2, 6, 10, 11)]
    [0.0, 0.3, 0.6, 0.3, 0.0, 0.0]
    """

    def __init__(self, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, name: str | None = None):
        """Makes the schedule.

        Args:
          peak_learning_rate: Learning rate at step `warmup_steps`, >= 0.
          total_steps: Length of the run in steps, > 0.
          warmup_steps: Length of the warm-up in steps, from 0 up to `total_steps` - 1.
          name: Name of the operations.

        Raises:
          ValueError: If the warm-up does not end before the run does.
        """
        super().__init__()
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(
                "The warm-up must end before the run does: lower the warm-up (warmup_epochs) or train for longer. "
                f"Received: {warmup_steps} warm-up steps, {total_steps} total steps"
            )
        self.peak_learning_rate = peak_learning_rate
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.name = name

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """The learning rate of a step, counted from 0: a float32 scalar."""
        step = tf.cast(step, tf.float32)
        warmup_share = step / max(self.warmup_steps, 1)
        decay_share = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        cosine = 0.5 * (1.0 + tf.cos(math.pi * tf.clip_by_value(decay_share, 0.0, 1.0)))
        return self.peak_learning_rate * tf.where(step < self.warmup_steps, warmup_share, cosine)

    def get_config(self) -> dict[str, Any]:
        return {
            "peak_learning_rate": self.peak_learning_rate,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "name": self.name,
        }

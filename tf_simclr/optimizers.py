"""LARS, an optimizer for large batches."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from tf_simclr.keras import check_is_ours, keras


@keras.saving.register_keras_serializable("tf_simclr")
class LARS(keras.optimizers.Optimizer):
    """Layer-wise adaptive rate scaling with momentum, as the SimCLR reference computes it.

    For a kernel w with gradient g, learning rate lr, trust coefficient c, momentum m:

        g <- g + weight_decay * w
        v <- m * v + lr * c * |w| / |g| * g        (the ratio is 1 when |w| or |g| is 0)
        w <- w - v

    Parameters of rank 0 or 1 (biases, batch-norm scales and offsets) and those passed to `exclude_from_adaptation`
    get neither weight decay nor the ratio: for them this is SGD with momentum.

    Source: You et al., "Large Batch Training of Convolutional Networks" (2017). Here, as in the reference, |g| includes
    the weight decay, and the learning rate is part of the velocity.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        name: str = "LARS",
        **kwargs: Any,
    ):
        """Makes the optimizer.

        Args:
          learning_rate: Number or schedule.
          momentum: Share of the velocity that a step keeps, in [0, 1).
          weight_decay: L2 coefficient, >= 0. It is coupled: added to the gradient before its norm is taken.
          trust_coefficient: c, > 0, the size of a step relative to the norm of the kernel.
          name: Name of the optimizer.
          **kwargs: Arguments of `keras.optimizers.Optimizer`, such as gradient clipping.

        Raises:
          ValueError: If the momentum or the weight decay is out of range, or the schedule is of another Keras.
        """
        check_is_ours("learning_rate", learning_rate)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1). Received: {momentum}")
        if weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative. Received: {weight_decay}")
        kwargs.pop("jit_compile", None)  # Only the train step as a whole may be compiled; see SimCLR.compile.
        # Keras' own weight decay is decoupled, which is a different method; it stays off.
        super().__init__(name=name, jit_compile=False, **kwargs)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.momentum = momentum
        self.coupled_weight_decay = weight_decay
        self.trust_coefficient = trust_coefficient
        self._excluded: set[str] = set()

    def exclude_from_adaptation(self, variables: Iterable[tf.Variable]) -> None:
        """Excludes these variables from weight decay and the trust ratio."""
        self._excluded.update(self._var_key(variable) for variable in variables)

    def build(self, var_list: list[tf.Variable]) -> None:
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self._velocities = [self.add_variable_from_reference(variable, "velocity") for variable in var_list]
        self._built = True

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        learning_rate = tf.cast(self.learning_rate, variable.dtype)
        velocity = self._velocities[self._index_dict[self._var_key(variable)]]
        if isinstance(gradient, tf.IndexedSlices):
            gradient = tf.convert_to_tensor(gradient)
        if variable.shape.rank > 1 and self._var_key(variable) not in self._excluded:
            gradient += self.coupled_weight_decay * variable
            learning_rate = learning_rate * self._trust_ratio(variable, gradient)
        velocity.assign(self.momentum * velocity + learning_rate * gradient)
        variable.assign_sub(velocity)

    def _trust_ratio(self, variable: tf.Variable, gradient: tf.Tensor) -> tf.Tensor:
        variable_norm, gradient_norm = tf.norm(variable), tf.norm(gradient)
        ratio = self.trust_coefficient * tf.math.divide_no_nan(variable_norm, gradient_norm)
        return tf.where(ratio > 0, ratio, tf.ones_like(ratio))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            learning_rate=self._serialize_hyperparameter(self._learning_rate),
            momentum=self.momentum,
            weight_decay=self.coupled_weight_decay,
            trust_coefficient=self.trust_coefficient,
        )
        return config

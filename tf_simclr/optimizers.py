"""LARS, an optimizer for large batches, and Muon, one for short trainings."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from tf_simclr import devices
from tf_simclr.keras import check_is_ours, keras

# Of Muon: Adam's constants, those of Keras, and the root mean square of a step of Adam at a learning rate of 1.
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7
_RMS_OF_ADAM = 0.2
_STEPS = 5  # of the iteration that makes a matrix orthogonal


class _Momentum(keras.optimizers.Optimizer):
    """Has a velocity for every variable, and variables that it treats otherwise than the rest, or does not decay.

    An optimizer that is saved once it is built knows these by their positions among all.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
        momentum: float,
        **kwargs: Any,
    ):
        check_is_ours("learning_rate", learning_rate)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1). Received: {momentum}")
        kwargs.pop("jit_compile", None)  # Only the train step as a whole may be compiled; see SimCLR.compile.
        super().__init__(jit_compile=False, **kwargs)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.momentum = momentum
        self._excluded: set[str] = set()
        self._positions: dict[str, list[int]] = {"excluded_positions": [], "undecayed_positions": []}

    def _exclude(self, variables: Iterable[tf.Variable]) -> None:
        if getattr(self, "_built", False):
            raise ValueError("Variables must be excluded before the optimizer is built. Received: a built optimizer")
        self._excluded.update(self._var_key(variable) for variable in variables)

    def build(self, var_list: list[tf.Variable]) -> None:
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        excluded, undecayed = ([var_list[i] for i in positions] for positions in self._positions.values())
        self._exclude(excluded)
        known = getattr(self, "_exclude_from_weight_decay", [])
        self._exclude_from_weight_decay = [*known, *(self._var_key(variable) for variable in undecayed)]
        self._positions = {
            "excluded_positions": [i for i, one in enumerate(var_list) if self._var_key(one) in self._excluded],
            "undecayed_positions": [i for i, one in enumerate(var_list) if not self._use_weight_decay(one)],
        }
        self._velocities = [self.add_variable_from_reference(variable, "velocity") for variable in var_list]
        self._build_more(var_list)
        self._built = True

    def _build_more(self, var_list: list[tf.Variable]) -> None:
        """Makes what the optimizer keeps beside the velocities."""

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        index = self._index_dict[self._var_key(variable)]
        self._update(tf.convert_to_tensor(gradient), variable, index, tf.cast(self.learning_rate, variable.dtype))

    def _update(self, gradient: tf.Tensor, variable: tf.Variable, index: int, learning_rate: tf.Tensor) -> None:
        """Moves the variable of this position."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(learning_rate=self._serialize_hyperparameter(self._learning_rate), momentum=self.momentum)
        return config | {name: list(positions) for name, positions in self._positions.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "_Momentum":
        positions = {name: config[name] for name in ("excluded_positions", "undecayed_positions") if name in config}
        rest = {name: value for name, value in config.items() if name not in positions}
        optimizer = super().from_config(rest, custom_objects)
        optimizer._positions.update(positions)
        return optimizer


@keras.saving.register_keras_serializable("tf_simclr")
class LARS(_Momentum):
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
        # Keras' own weight decay is decoupled, which is a different method; it stays off.
        super().__init__(learning_rate, momentum, name=name, weight_decay=None, **kwargs)
        _check_weight_decay(weight_decay)
        self.coupled_weight_decay = weight_decay
        self.trust_coefficient = trust_coefficient

    def exclude_from_adaptation(self, variables: Iterable[tf.Variable]) -> None:
        """Excludes these variables from weight decay and the trust ratio.

        Raises:
          ValueError: If the optimizer is built.
        """
        self._exclude(variables)

    def exclude_from_weight_decay(self, *args: Any, **kwargs: Any) -> None:
        """Not for LARS, whose weight decay is part of the gradient that it adapts: see `exclude_from_adaptation`.

        Raises:
          ValueError: Always.
        """
        raise ValueError("LARS has no exclusion from weight decay alone: use exclude_from_adaptation")

    def _update(self, gradient: tf.Tensor, variable: tf.Variable, index: int, learning_rate: tf.Tensor) -> None:
        velocity = self._velocities[index]
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
        config.update(weight_decay=self.coupled_weight_decay, trust_coefficient=self.trust_coefficient)
        return config


@keras.saving.register_keras_serializable("tf_simclr")
class Muon(_Momentum):
    """Momentum whose step is made orthogonal: it moves a kernel equally far in all directions.

    A kernel of rank 2 or more counts as the matrix w [n, m] of all axes but the last by the last. With its gradient g,
    learning rate lr, momentum mu and weight decay d:

        v <- mu * v + g
        w <- w - lr * (0.2 * sqrt(max(n, m)) * orthogonal(g + mu * v) + d * w)

    `orthogonal` replaces the singular values by numbers of about 1. With the factor before it, the root mean square of
    the entries of a step is 0.2 lr at most, about that of a step of Adam.

    Parameters of rank 0 or 1 (biases, batch-norm scales and offsets), kernels of depthwise convolutions, and those
    passed to `exclude_from_orthogonalization`, such as the kernel of a classifier, are left to Adam.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the factor: Liu et al.,
    "Muon is scalable for LLM training" (2025), equation 4.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
        momentum: float = 0.95,
        weight_decay: float | None = None,
        name: str = "Muon",
        **kwargs: Any,
    ):
        """Makes the optimizer.

        Args:
          learning_rate: Number or schedule, for Adam's parameters, too.
          momentum: Share of the velocity that a step keeps, in [0, 1).
          weight_decay: Decoupled weight decay, >= 0, on all parameters but those passed to
            `exclude_from_weight_decay`; None for none. About 10 / (learning rate * steps) suits short trainings from
            random weights.
          name: Name of the optimizer.
          **kwargs: Arguments of `keras.optimizers.Optimizer`, such as gradient clipping.

        Raises:
          ValueError: If the momentum or the weight decay is out of range, or the schedule is of another Keras.
        """
        super().__init__(learning_rate, momentum, name=name, weight_decay=weight_decay, **kwargs)
        _check_weight_decay(weight_decay or 0.0)

    def exclude_from_orthogonalization(self, variables: Iterable[tf.Variable]) -> None:
        """Leaves these variables to Adam.

        Raises:
          ValueError: If the optimizer is built.
        """
        self._exclude(variables)

    def _build_more(self, var_list: list[tf.Variable]) -> None:
        # Adam's second moments, None for what is not Adam's.
        self._squares = [
            self.add_variable_from_reference(variable, "squares")
            if variable.shape.rank < 2 or variable.shape[-1] == 1 or self._var_key(variable) in self._excluded
            else None
            for variable in var_list
        ]

    def _update(self, gradient: tf.Tensor, variable: tf.Variable, index: int, learning_rate: tf.Tensor) -> None:
        velocity, squares = self._velocities[index], self._squares[index]
        if squares is None:
            step = self._step_of_muon(gradient, velocity)
        else:
            step = self._step_of_adam(gradient, velocity, squares)
        variable.assign_sub(learning_rate * step)

    def _step_of_muon(self, gradient: tf.Tensor, velocity: tf.Variable) -> tf.Tensor:
        velocity.assign(self.momentum * velocity + gradient)
        outputs = velocity.shape[-1]
        matrix = tf.reshape(gradient + self.momentum * velocity, [velocity.shape.num_elements() // outputs, outputs])
        size = _RMS_OF_ADAM * max(matrix.shape) ** 0.5
        return size * tf.reshape(orthogonal(matrix), velocity.shape)

    def _step_of_adam(self, gradient: tf.Tensor, mean: tf.Variable, square: tf.Variable) -> tf.Tensor:
        mean.assign(_BETA_1 * mean + (1 - _BETA_1) * gradient)
        square.assign(_BETA_2 * square + (1 - _BETA_2) * tf.square(gradient))
        power = tf.cast(self.iterations + 1, gradient.dtype)
        return mean / (1 - _BETA_1**power) / (tf.sqrt(square / (1 - _BETA_2**power)) + _EPSILON)


def orthogonal(matrix: tf.Tensor) -> tf.Tensor:
    """Nearly the orthogonal matrix closest to a matrix [n, m] up to its scale: singular values of about 1.

    Five steps of the Newton-Schulz iteration of Jordan et al., whose polynomial trades exactness for speed: it brings
    singular values of at least 0.01 times the norm of the matrix to between 0.68 and 1.21. Those of 0 stay 0.

    Each step multiplies the matrix, which bears the rounding of products in TensorFloat-32 and bfloat16. On CPUs, where
    float32 is float32, the steps multiply its smaller Gram matrix, and the matrix is multiplied once, at the end. That
    takes less than half the time for the kernel of a 3x3 convolution, a third more for a square one, and changes the
    result by less than a thousandth in float32.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    matrix /= tf.norm(matrix) + _EPSILON
    if devices.on_accelerator() or matrix.dtype not in (tf.float32, tf.float64):
        for _ in range(_STEPS):
            # The largest term stays out of the product, which rounds.
            matrix = 3.4445 * matrix + _times(matrix, _factor(_gram(matrix, is_tall)), is_tall)
        return matrix
    gram = _gram(matrix, is_tall)
    product = factor = _plus_identity(_factor(gram))
    for _ in range(_STEPS - 1):
        gram = tf.matmul(factor, tf.matmul(gram, factor))
        factor = _plus_identity(_factor(gram))
        product = tf.matmul(product, factor)
    return _times(matrix, product, is_tall)


def _plus_identity(factor: tf.Tensor) -> tf.Tensor:
    """Adds 3.4445 to the diagonal.

    As a sum of three matrices, TensorFlow's optimizer of graphs would order it anew in every process, and a resumed run
    would round otherwise.
    """
    return tf.linalg.set_diag(factor, tf.linalg.diag_part(factor) + 3.4445)


def _gram(matrix: tf.Tensor, is_tall: bool) -> tf.Tensor:
    return tf.matmul(matrix, matrix, transpose_a=is_tall, transpose_b=not is_tall)


def _factor(gram: tf.Tensor) -> tf.Tensor:
    return -4.7750 * gram + 2.0315 * tf.matmul(gram, gram)


def _times(matrix: tf.Tensor, factor: tf.Tensor, is_tall: bool) -> tf.Tensor:
    return tf.matmul(matrix, factor) if is_tall else tf.matmul(factor, matrix)


def _check_weight_decay(weight_decay: float) -> None:
    if weight_decay < 0:
        raise ValueError(f"weight_decay must not be negative. Received: {weight_decay}")

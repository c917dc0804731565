"""Linear evaluation by gradient descent, with the settings that the reference's flags have for it.

Source: Chen et al. (2020), appendix B.6.
"""

import dataclasses
import math
import time
from typing import ClassVar

import numpy as np
from absl import logging
from scipy.special import softmax
from tqdm import tqdm

from tf_simclr.evaluation.features import Features, check_one_label
from tf_simclr.evaluation.regression import blas_threads
from tf_simclr.evaluation.scores import Scores
from tf_simclr.schedules import peak_learning_rate

# Separate the random numbers for different purposes.
_WEIGHTS, _ORDER = 0, 1
_ANNOUNCE_SECONDS = 30.0

# Products of fewer classes are thin: more threads speed them up little, and wait for each other.
_MANY_CLASSES = 64


@dataclasses.dataclass(frozen=True)
class LinearSGD:
    """Judges representations by a linear classifier that momentum descent trains on them.

    As in the reference: softmax cross entropy of the features as they are, Nesterov momentum, a learning rate that goes
    from its peak to 0 on half a cosine, no decay, no warm-up. Unlike there, an image has one representation, that of
    its evaluation: it is not cropped and flipped anew in every epoch.

    Attributes:
      seed: Decides the initial weights and the order of every epoch.
      epochs: Passes over the training images, each of as many whole batches as they fill.
      batch_size: Capped at the number of training images.
      learning_rate: The peak for 256 images; it grows in proportion to the batch.
      momentum: In [0, 1).
    """

    seed: int = 0
    epochs: int = 90
    batch_size: int = 4096
    learning_rate: float = 0.1
    momentum: float = 0.9

    name: ClassVar[str] = "linear_sgd"
    title: ClassVar[str] = "linear (SGD)"

    def __call__(self, train: Features, test: np.ndarray) -> Scores:
        """The probabilities of the classifier after the last epoch.

        Raises:
          ValueError: If an image may have several labels, or training diverges.
        """
        check_one_label(train, "Linear evaluation by SGD")
        weights, bias = self.fit(train)
        batch_size = min(self.batch_size, len(train))
        settings = {
            "epochs": self.epochs,
            "batch_size": batch_size,
            "peak_learning_rate": peak_learning_rate(self.learning_rate, batch_size),
            "momentum": self.momentum,
            "augmentation": "none",
            "seed": self.seed,
        }

        def probabilities(rows: slice) -> np.ndarray:
            return softmax((test[rows] @ weights + bias).astype(np.float64), axis=1)

        return Scores(probabilities, (len(test), train.num_classes), settings)

    def fit(self, train: Features) -> tuple[np.ndarray, np.ndarray]:
        """Trains the weights, float32 [F, C], and the bias, float32 [C]."""
        num_features, num_classes = train.representations.shape[1], train.num_classes
        batch_size = min(self.batch_size, len(train))
        per_epoch = len(train) // batch_size
        peak = peak_learning_rate(self.learning_rate, batch_size)
        parameters = np.zeros([num_features + 1, num_classes], np.float32)
        parameters[:-1] = np.random.default_rng([self.seed, _WEIGHTS]).normal(0, 0.01, [num_features, num_classes])
        velocity = np.zeros_like(parameters)
        start = time.monotonic()
        with blas_threads(None if num_classes >= _MANY_CLASSES else 1):
            for step in range(self.epochs * per_epoch):
                epoch, place = divmod(step, per_epoch)
                if place == 0:
                    order = np.random.default_rng([self.seed, _ORDER, epoch]).permutation(len(train))
                    _report(start, epoch, self.epochs)
                rows = order[place * batch_size : (place + 1) * batch_size]
                rate = 0.5 * peak * (1 + math.cos(math.pi * step / (self.epochs * per_epoch)))
                update = np.float32(rate) * _gradient(parameters, train.representations[rows], train.labels[rows])
                # As Keras has it: the velocity holds learning rates.
                velocity = np.float32(self.momentum) * velocity - update
                parameters += np.float32(self.momentum) * velocity - update
        if not np.isfinite(parameters).all():
            raise ValueError(
                "Linear evaluation by SGD diverged: the features are too large for its learning rate; use linear "
                f"(eval.protocols). Received: features up to {np.abs(train.representations).max():g}"
            )
        return parameters[:-1], parameters[-1]


def _gradient(parameters: np.ndarray, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """That of the mean cross entropy with respect to the weights and, in the last row, the bias, [F + 1, C]."""
    residuals = softmax(features @ parameters[:-1] + parameters[-1], axis=1)
    residuals[np.arange(len(labels)), labels] -= 1
    residuals /= np.float32(len(labels))
    return np.concatenate([features.T @ residuals, residuals.sum(axis=0, keepdims=True)])


def _report(start: float, epoch: int, epochs: int) -> None:
    """Logs how much time is left after the first epoch and every tenth, unless it is short."""
    if epoch == 1 or epoch and epoch % 10 == 0:
        left = (time.monotonic() - start) / epoch * (epochs - epoch)
        if left > _ANNOUNCE_SECONDS:
            logging.info("Linear evaluation by SGD: epoch %d of %d, %s left", epoch, epochs, tqdm.format_interval(left))

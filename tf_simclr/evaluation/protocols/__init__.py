"""Ways to judge representations, one module each; see `tf_simclr.evaluation.scores.Protocol`."""

from collections.abc import Callable

from tf_simclr.evaluation.protocols.knn import KNN
from tf_simclr.evaluation.protocols.linear import Linear, Linear45
from tf_simclr.evaluation.protocols.linear_sgd import LinearSGD
from tf_simclr.evaluation.scores import Protocol
from tf_simclr.settings import RunConfig

# What `eval.protocols` may name.
PROTOCOLS: dict[str, Callable[[RunConfig], Protocol]] = {
    "knn": lambda config: KNN(k=config.eval.knn_k),
    "linear": lambda config: Linear(seed=config.seed),
    "linear_45": lambda config: Linear45(seed=config.seed),
    "linear_sgd": lambda config: LinearSGD(seed=config.seed),
}

"""Judges frozen representations: protocols such as kNN and linear evaluation, and the program that runs them."""

from tf_simclr.evaluation.features import Features
from tf_simclr.evaluation.protocols import PROTOCOLS
from tf_simclr.evaluation.protocols.knn import KNN
from tf_simclr.evaluation.protocols.linear import Linear
from tf_simclr.evaluation.scores import Protocol, Scores
from tf_simclr.evaluation.tuned import TUNED

# The settings whose choices only the evaluation knows, with those choices.
NAMES: dict[str, tuple[str, ...]] = {"eval.protocols": (*PROTOCOLS, *TUNED)}

__all__ = ["KNN", "NAMES", "Features", "Linear", "Protocol", "Scores"]

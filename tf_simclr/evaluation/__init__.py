"""Judges frozen representations: protocols such as kNN and linear evaluation, and the program that runs them."""

from tf_simclr.evaluation.features import Features, extract
from tf_simclr.evaluation.protocols.knn import KNN
from tf_simclr.evaluation.protocols.linear import Linear
from tf_simclr.evaluation.scores import Protocol, Scores

__all__ = ["KNN", "Features", "Linear", "Protocol", "Scores", "extract"]

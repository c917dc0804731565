"""Several replicas: choosing a strategy, gathering across replicas, summing gradients."""

from tf_simclr.distribute.collectives import (
    gather,
    largest_of_workers,
    num_replicas,
    replica_id,
    replicas_here,
    sum_gradients,
    total,
)
from tf_simclr.distribute.strategy import (
    STRATEGIES,
    has_workers,
    is_chief,
    is_first_worker,
    make_strategy,
    wait_for_workers,
)

__all__ = [
    "STRATEGIES",
    "gather",
    "has_workers",
    "is_chief",
    "is_first_worker",
    "largest_of_workers",
    "make_strategy",
    "num_replicas",
    "replica_id",
    "replicas_here",
    "sum_gradients",
    "total",
    "wait_for_workers",
]

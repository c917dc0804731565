"""Decodes and crops on other machines, with tf.data services, and keeps the order of the batches.

A tf.data service with several workers has no order that its reader can predict: workers take whatever is left (dynamic
sharding), each makes every batch (no sharding), or they take turns in the order of a hash (coordinated reads). So every
machine runs its own service with one worker, and the reader takes batches from the machines in turn: of n machines,
machine i makes only the batches of steps i, i + n, i + 2 n, ...
"""

import socket
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

_CONNECT_SECONDS = 10.0


def read_in_turn(make_lane: Callable[[tuple[int, int]], tf.data.Dataset], addresses: Sequence[str]) -> tf.data.Dataset:
    """Reads batches from n tf.data services in the order of the steps.

    Args:
      make_lane: Maps (i, n) to the dataset that runs on machine i: the batches of steps i, i + n, i + 2 n, ...
      addresses: "host:port" of the dispatchers, one per machine, each with one worker.

    Returns:
      Dataset of the batches. Reading it fails with an `InvalidArgumentError` if a service repeats or loses a batch,
      as it does when its worker restarts.

    Raises:
      ValueError: If an address does not answer.
    """
    service = tf.data.experimental.service
    lanes = []
    for index, address in enumerate(addresses):
        _check_answers(address)
        lane = make_lane((index, len(addresses))).enumerate().prefetch(tf.data.AUTOTUNE)
        # Views hardly compress, and cores are scarce.
        lanes.append(lane.apply(service.distribute(service.ShardingPolicy.OFF, f"grpc://{address}", compression=None)))
    turns = tf.data.Dataset.range(len(lanes)).repeat()
    in_turn = tf.data.Dataset.choose_from_datasets(lanes, turns, stop_on_empty_dataset=True)

    def check(index: tf.Tensor, numbered: tuple[tf.Tensor, Any]) -> Any:
        number, batch = numbered
        message = "A tf.data service repeated or lost a batch: start the command again to resume the run."
        with tf.control_dependencies([tf.debugging.assert_equal(number, index // len(lanes), message)]):
            return tf.nest.map_structure(tf.identity, batch)

    return in_turn.enumerate().map(check)


def _check_answers(address: str) -> None:
    """Raises a `ValueError` unless the address answers; TensorFlow itself would try for an hour."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"data.service must be the addresses of running tf.data services, host:port separated by commas "
            f"({error}). Received: {address}"
        ) from None

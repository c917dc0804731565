"""Decoding and cropping on other machines, by tf.data services, without giving up the order of the batches.

A tf.data service with several workers has no order that its reader could know: workers take what is left (dynamic
sharding), each of them makes every batch (none), or they take turns in the order of a hash (coordinated reads). So
every machine runs a service of its own with one worker, and the reader goes round: of n machines, machine i makes
the batches of the steps i, i + n, i + 2 n, ... and no others.
"""

import socket
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

_CONNECT_SECONDS = 10.0


def read_in_turn(make_lane: Callable[[tuple[int, int]], tf.data.Dataset], addresses: Sequence[str]) -> tf.data.Dataset:
    """Reads batches that are made by n tf.data services, in the order of the steps.

    Args:
      make_lane: Maps (i, n) to a dataset of the batches of steps i, i + n, i + 2 n, ..., which runs on machine i.
      addresses: "host:port" of the dispatchers, on every machine one with one worker.

    Returns:
      Dataset of the batches. Reading it fails with an `InvalidArgumentError` if a service repeats or loses a batch,
      as after a restart of its worker.

    Raises:
      ValueError: If nobody answers at an address.
    """
    service = tf.data.experimental.service
    lanes = []
    for index, address in enumerate(addresses):
        _check_answers(address)
        lane = make_lane((index, len(addresses))).enumerate().prefetch(tf.data.AUTOTUNE)
        # Views hardly compress, and it is cores that are short.
        lanes.append(lane.apply(service.distribute(service.ShardingPolicy.OFF, f"grpc://{address}", compression=None)))
    turns = tf.data.Dataset.range(len(lanes)).repeat()
    in_turn = tf.data.Dataset.choose_from_datasets(lanes, turns, stop_on_empty_dataset=True)

    def check(index: tf.Tensor, numbered: tuple[tf.Tensor, Any]) -> Any:
        number, batch = numbered
        message = "A tf.data service repeated or lost a batch: start the command again, which resumes the run."
        with tf.control_dependencies([tf.debugging.assert_equal(number, index // len(lanes), message)]):
            return tf.nest.map_structure(tf.identity, batch)

    return in_turn.enumerate().map(check)


def _check_answers(address: str) -> None:
    """TensorFlow itself would try for an hour."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"data.service must be the addresses of running tf.data services, host:port with commas between them "
            f"({error}). Received: {address}"
        ) from None

"""Chooses a `tf.distribute` strategy, and waits for its workers."""

import contextlib
import json
import os
import socket
import textwrap
import time

import tensorflow as tf
from absl import logging

# What workers say to the first one, and what it answers when all are there.
_GREETING = b"tf_simclr worker %d waits\n"
_LEAVE = b"tf_simclr: all are there\n"
_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 2.0

STRATEGIES = ("auto", "default", "mirrored", "multi_worker", "tpu")


def make_strategy(
    name: str = "auto",
    *,
    tpu_address: str | None = None,
    tpu_zone: str | None = None,
    gcp_project: str | None = None,
) -> tf.distribute.Strategy:
    """Makes the `tf.distribute` strategy of this name.

    Args:
      name: "auto" takes every GPU of this machine (one device needs no strategy), "default" one device, "mirrored" all
        GPUs, or all logical CPUs if there is no GPU, "multi_worker" the machines in TF_CONFIG, "tpu" a TPU.
      tpu_address: Name or address of the TPU; `None` finds the local one.
      tpu_zone: Zone of a Cloud TPU that is given by name.
      gcp_project: Project of a Cloud TPU that is given by name.

    Raises:
      ConnectionError: If a worker does not answer.
      ValueError: If the name is unknown, or the accelerator or TF_CONFIG is missing.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}. Received: {name}")
    gpus = len(tf.config.list_physical_devices("GPU"))
    if name != "tpu":
        logging.info("TensorFlow finds %s", f"{gpus} GPU{'s'[: gpus - 1]}" if gpus else "no GPU: the CPU computes")
    # These two must come before anything else touches a device.
    if name == "multi_worker":
        wait_for_workers(*_read_cluster())
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        return _tpu_strategy(tpu_address, tpu_zone, gcp_project)
    if name == "mirrored" or (name == "auto" and gpus > 1):
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def _tpu_strategy(address: str | None, zone: str | None, project: str | None) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(address or "local", zone, project)
    except (tf.errors.OpError, ValueError, TypeError, RuntimeError, OSError) as error:
        raise ValueError(
            f"strategy=tpu finds no TPU ({textwrap.shorten(str(error), 80)}): name it with --tpu_name, or take another "
            f"--strategy. Received: tpu_name={address}"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _read_cluster() -> tuple[list[str], int]:
    """Reads the addresses of the workers, the chief first, and the index of this process from TF_CONFIG."""
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        addresses = [*cluster.get("chief", []), *cluster["worker"]]
        index = int(task["index"]) + (len(cluster.get("chief", [])) if task["type"] == "worker" else 0)
        addresses[index].rindex(":")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise ValueError(
            "strategy=multi_worker reads the workers from the environment variable TF_CONFIG, such as "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}; '
            f"docs/several-machines.md shows how to set it. Received: {text!r}"
        ) from None
    return addresses, index


def is_first_worker() -> bool:
    """Whether TF_CONFIG, if it is set, makes this process the first of the workers."""
    return not os.environ.get("TF_CONFIG") or _read_cluster()[1] == 0


def wait_for_workers(addresses: list[str], index: int, timeout_seconds: float = 300.0) -> None:
    """Waits until all workers wait; TensorFlow itself would wait silently for a missing one.

    The first worker gathers the others and lets all go at once. So one that has died and come back does not join those
    that still train with the one it was: it waits until they have noticed the loss and come back, too.

    Args:
      addresses: "host:port" of every worker.
      index: The index of this process among them.
      timeout_seconds: How long to wait.

    Raises:
      ConnectionError: If some do not answer in time; the error names them.
    """
    deadline = time.monotonic() + timeout_seconds
    if index == 0:
        missing = _gather(addresses, deadline)
    else:
        missing = [] if _await_leave(addresses[0], index, deadline) else addresses[:1]
    if missing:
        raise ConnectionError(
            f"These workers of TF_CONFIG do not answer after {timeout_seconds:.0f} s: {', '.join(missing)}. "
            "Start run.py on all of them, and check addresses and firewalls"
        )


def _gather(addresses: list[str], deadline: float) -> list[str]:
    """Waits for all other workers and lets them go, until the deadline; returns those that are missing."""
    waiting: dict[bytes, socket.socket] = {}
    wanted = {_GREETING % number: address for number, address in enumerate(addresses) if number > 0}
    with contextlib.ExitStack() as stack:
        both = socket.has_dualstack_ipv6()  # IPv6 and IPv4.
        server = stack.enter_context(
            socket.create_server(
                ("", int(addresses[0].rpartition(":")[2])),
                family=socket.AF_INET6 if both else socket.AF_INET,
                backlog=1024,
                dualstack_ipv6=both,
            )
        )
        server.settimeout(_POLL_SECONDS)
        while missing := [address for greeting, address in wanted.items() if greeting not in waiting]:
            if time.monotonic() > deadline:
                return missing
            with contextlib.suppress(OSError):
                other = stack.enter_context(server.accept()[0])
                other.settimeout(_ANSWER_SECONDS)
                greeting = other.recv(len(_GREETING) + 16)
                if greeting in wanted:
                    waiting[greeting] = other
                else:  # A worker that still trains asks whether the one that was lost is there.
                    other.close()
            waiting = {greeting: other for greeting, other in waiting.items() if not _has_left(other)}
        for other in waiting.values():
            with contextlib.suppress(OSError):  # It died just now, and asks again when it is back.
                other.sendall(_LEAVE)
    return []


def _await_leave(chief: str, index: int, deadline: float) -> bool:
    """Waits until the first worker lets this one go; returns whether it did by the deadline."""
    host, _, port = chief.rpartition(":")
    logging.info("Waiting for the worker %s, and with it for all others", chief)
    while (seconds := deadline - time.monotonic()) > 0:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS) as one,
        ):
            one.sendall(_GREETING % index)
            one.settimeout(seconds)
            if one.recv(len(_LEAVE)) == _LEAVE:  # Otherwise it trains with others, or has left.
                return True
        time.sleep(_POLL_SECONDS)
    return False


def _has_left(other: socket.socket) -> bool:
    """Whether a worker that waits has closed its connection."""
    other.setblocking(False)
    try:
        return not other.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the files: the first of several workers, or the only process."""
    return strategy.extended.should_checkpoint


def has_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether several processes train together."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)

"""Chooses a `tf.distribute` strategy, and waits for its workers."""

import contextlib
import json
import os
import socket
import textwrap
import time
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

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


def wait_for_workers(addresses: list[str], index: int, timeout_seconds: float = 300.0) -> None:
    """Waits until all workers answer; TensorFlow itself would wait silently for a missing one.

    Args:
      addresses: "host:port" of every worker.
      index: The index of this process among them.
      timeout_seconds: How long to wait.

    Raises:
      ConnectionError: If some do not answer in time; the error names them.
    """
    deadline = time.monotonic() + timeout_seconds
    missing = [address for number, address in enumerate(addresses) if number != index]
    with _listening(int(addresses[index].rpartition(":")[2])):
        while missing:
            logging.info("Waiting for the workers %s", ", ".join(missing))
            time.sleep(min(1.0, timeout_seconds))
            missing = [address for address in missing if not _answers(address)]
            if missing and time.monotonic() > deadline:
                raise ConnectionError(
                    f"These workers of TF_CONFIG do not answer after {timeout_seconds:.0f} s: {', '.join(missing)}. "
                    "Start run.py on all of them, and check addresses and firewalls"
                )


@contextlib.contextmanager
def _listening(port: int) -> Iterator[None]:
    """Answers the other workers until TensorFlow's own server takes the port."""
    with socket.create_server(("", port), backlog=1024):
        yield


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2.0).close()
    except OSError:
        return False
    return True


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the files: the first of several workers, or the only process."""
    return strategy.extended.should_checkpoint


def has_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether several processes train together."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)

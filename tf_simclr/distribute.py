"""Replicas: choosing a `tf.distribute` strategy, gathering across replicas, and summing gradients."""

import contextlib
import json
import os
import socket
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
    """The `tf.distribute` strategy that a name stands for.

    Args:
      name: "auto" takes every GPU of this machine (one device needs no strategy), "default" one device, "mirrored"
        all GPUs, or all logical CPUs where there is no GPU, "multi_worker" the machines in TF_CONFIG, "tpu" a TPU.
      tpu_address: Name or address of the TPU; `None` finds the local one.
      tpu_zone: Zone of a Cloud TPU that is given by name.
      gcp_project: Project of a Cloud TPU that is given by name.

    Raises:
      ConnectionError: If a worker does not answer.
      ValueError: If the name is unknown, or there is no such accelerator or no TF_CONFIG.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}. Received: {name}")
    # These two must come before anything else touches a device.
    if name == "multi_worker":
        wait_for_workers(*_read_cluster())
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        return _tpu_strategy(tpu_address, tpu_zone, gcp_project)
    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        cpus = [device.name for device in tf.config.list_logical_devices("CPU")]
        return tf.distribute.MirroredStrategy(gpus or cpus)
    return tf.distribute.get_strategy()


def _tpu_strategy(address: str | None, zone: str | None, project: str | None) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(address or "local", zone, project)
    except (tf.errors.OpError, ValueError, TypeError, RuntimeError, OSError) as error:
        raise ValueError(
            f"strategy=tpu finds no TPU ({str(error).splitlines()[0]}): name it with --tpu_name, or choose another "
            f"--strategy. Received: tpu_name={address}"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _read_cluster() -> tuple[list[str], int]:
    """Addresses of the workers, the chief first, and which of them this process is, from TF_CONFIG."""
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
            f"docs/reliability.md shows how to set it. Received: {text!r}"
        ) from None
    return addresses, index


def wait_for_workers(addresses: list[str], index: int, timeout_seconds: float = 300.0) -> None:
    """Returns once all workers answer; TensorFlow itself would wait for a missing one without a word.

    Args:
      addresses: "host:port" of every worker.
      index: Which of them this process is.
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
    """Whether this process is the one that writes files: the first of several workers, or the only process."""
    return strategy.extended.should_checkpoint


def has_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether several processes train together."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def largest_of_workers(number: int) -> int:
    """The largest of the numbers that the workers call this with, which all of them must do at the same time."""
    strategy = tf.distribute.get_strategy()
    if not has_workers(strategy):
        return number
    numbers = strategy.experimental_distribute_values_from_function(lambda _: tf.constant([number], tf.int64))
    return int(tf.reduce_max(strategy.gather(numbers, axis=0)))


def num_replicas() -> int:
    """Replicas that the current strategy keeps in sync; 1 without a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def replicas_here() -> int:
    """Those of the current strategy's replicas that share this machine's memory."""
    strategy = tf.distribute.get_strategy()
    return len(strategy.extended.worker_devices) if has_workers(strategy) else strategy.num_replicas_in_sync


def replica_id() -> tf.Tensor | int:
    """Position of this replica among all, inside a replica's computation."""
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def gather(tensor: tf.Tensor) -> tf.Tensor:
    """Concatenates a tensor [n, ...] of every replica to [R * n, ...], in the order of the replicas.

    The gradient flows back to every replica's rows, summed over the replicas that used them. That sum is what makes
    the gradient right for anchors that serve other replicas as negatives.
    """
    if num_replicas() == 1:
        return tensor
    gathered = tf.distribute.get_replica_context().all_gather(tensor, axis=0)
    return tf.ensure_shape(gathered, [None, *tensor.shape[1:]])


def sum_gradients(gradients: list[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """Sums every gradient over the replicas; `None`, of a variable that the loss does not reach, stays `None`."""
    if num_replicas() == 1:
        return gradients
    present = [gradient for gradient in gradients if gradient is not None]
    context = tf.distribute.get_replica_context()
    summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, present))
    return [gradient if gradient is None else next(summed) for gradient in gradients]


def resolve_precision(name: str) -> tuple[str, str]:
    """The Keras dtype policy that a precision stands for, and why.

    Args:
      name: "float32", "mixed_bfloat16", or "auto": mixed_bfloat16 where the current device computes in bfloat16
        (a TPU, an NVIDIA GPU from Ampere on, an x86 CPU with AMX or AVX512-BF16), else float32.

    Returns:
      policy: "float32" or "mixed_bfloat16".
      reason: A few words for the log.
    """
    if name != "auto":
        return name, "as asked"
    if isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy):
        return "mixed_bfloat16", "the device is a TPU"
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        policy = "mixed_bfloat16" if capability >= (8, 0) else "float32"
        return policy, f"the GPU has compute capability {capability[0]}.{capability[1]}"
    features = _cpu_features() & {"amx_bf16", "avx512_bf16"}
    if features:
        return "mixed_bfloat16", f"the CPU has {' and '.join(sorted(features))}"
    return "float32", "the CPU does not compute in bfloat16"


def resolve_jit_compile(name: str) -> bool:
    """Whether Keras should compile the training step with XLA.

    Args:
      name: "on", "off", or "auto": on one GPU. There XLA fuses what lies between the convolutions. It does nothing for
        a CPU, whose fast convolutions it does not know, and cannot compile a step that several GPUs take together. A
        TPU compiles everything with XLA in any case.
    """
    if name != "auto":
        return name == "on"
    has_one_device = num_replicas() == 1 and not isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)
    return has_one_device and bool(tf.config.list_physical_devices("GPU"))


def _cpu_features() -> set[str]:
    """Instruction set extensions of this machine's CPU; empty where Linux does not list them."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())
    except OSError:
        return set()

"""This machine's accelerators, instruction sets and memory, and the precision and compiler that suit them."""

import os
import pathlib

import tensorflow as tf

# Where Linux says what a container may take.
_CGROUP = pathlib.Path("/sys/fs/cgroup")


def on_accelerator() -> bool:
    """Whether TensorFlow has a GPU or a TPU."""
    return any(device.device_type != "CPU" for device in tf.config.list_logical_devices())


def resolve_precision(name: str) -> tuple[str, str]:
    """The Keras dtype policy for a precision, and the reason.

    Args:
      name: "float32", "mixed_bfloat16", or "auto": mixed_bfloat16 where the current device computes in bfloat16
        (a TPU, an NVIDIA GPU from Ampere on, an x86 CPU with AMX or AVX512-BF16), else float32.

    Returns:
      policy: "float32" or "mixed_bfloat16".
      reason: A few words for the log.
    """
    if name != "auto":
        return name, "as requested"
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
      name: "on", "off", or "auto": on one GPU, where XLA fuses the operations between the convolutions. XLA gains
        nothing on a CPU, whose fast convolutions it lacks, and cannot compile a step that several GPUs share. A TPU
        always compiles everything with XLA.
    """
    if name != "auto":
        return name == "on"
    has_one_device = tf.distribute.get_strategy().num_replicas_in_sync == 1 and not isinstance(
        tf.distribute.get_strategy(), tf.distribute.TPUStrategy
    )
    return has_one_device and bool(tf.config.list_physical_devices("GPU"))


def _cpu_features() -> set[str]:
    """Instruction set extensions of this machine's CPU; empty where Linux does not list them."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())
    except OSError:
        return set()


def total_memory() -> int:
    """The memory of this machine in bytes, or what its container may take of it."""
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_container_memory()[:1]])


def free_memory() -> int:
    """The memory available to programs in bytes; the machine's total if the system does not say."""
    free = total_memory()
    try:
        lines = dict(line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        pass
    return min([free, *_container_memory()[1:]])


def _container_memory() -> tuple[int, ...]:
    """The memory that this container may take, and what is left of it, in bytes; empty without a limit."""
    try:
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        parts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return limit, limit - used + int(parts["inactive_file"])  # Files that are kept in memory give way.
    except (OSError, ValueError, KeyError):  # No cgroup of version 2, or "max".
        return ()

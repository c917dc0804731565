"""What a run picks for the devices that it finds: precision and XLA."""

import pytest
import tensorflow as tf
from replicas import mirrored

from tf_simclr import devices


@pytest.fixture
def machine(monkeypatch):
    """Makes this machine one with such a CPU and GPUs of such a compute capability."""

    def make(cpu=(), gpus=()):
        monkeypatch.setattr(devices, "_cpu_features", lambda: set(cpu))
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else [])
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": gpu})

    return make


@pytest.mark.parametrize(
    ("parts", "policy", "reason"),
    [
        ({"cpu": ["sse4_1", "avx512f"]}, "float32", "the CPU does not compute in bfloat16"),
        ({"cpu": ["avx512_bf16", "amx_bf16"]}, "mixed_bfloat16", "the CPU has amx_bf16 and avx512_bf16"),
        ({"cpu": ["amx_bf16"], "gpus": [(7, 5)]}, "float32", "the GPU has compute capability 7.5"),
        ({"gpus": [(9, 0), (9, 0)]}, "mixed_bfloat16", "the GPU has compute capability 9.0"),
    ],
)
def test_auto_takes_bfloat16_where_the_device_computes_in_it(machine, parts, policy, reason):
    machine(**parts)
    assert devices.resolve_precision("auto") == (policy, reason)
    assert devices.resolve_precision("float32") == ("float32", "as requested")


@pytest.mark.parametrize(("gpus", "expected"), [([], False), ([(8, 0)], True)])
def test_auto_compiles_with_xla_on_a_gpu_of_its_own(machine, gpus, expected):
    machine(gpus=gpus)
    assert devices.resolve_jit_compile("auto") == expected
    assert devices.resolve_jit_compile("on") and not devices.resolve_jit_compile("off")
    with mirrored(2).scope():
        assert not devices.resolve_jit_compile("auto")


def test_a_container_has_the_memory_that_it_may_take(tmp_path, monkeypatch):
    machine = devices.total_memory()
    monkeypatch.setattr(devices, "_CGROUP", tmp_path)
    for name, content in {"max": "4000\n", "current": "3500\n", "stat": "anon 3000\ninactive_file 300\n"}.items():
        (tmp_path / f"memory.{name}").write_text(content)
    assert (devices.total_memory(), devices.free_memory()) == (4000, 800)
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.total_memory() >= machine and devices.free_memory() > 4000

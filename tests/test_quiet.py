"""What TensorFlow says on stderr while it loads, and what of it reaches the terminal."""

import os
import subprocess
import sys

import pytest
from paths import ROOT

import quiet

REMARKS = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n",
    b"I0000 00:00:1.0 port.cc:153] oneDNN custom operations are on. You may see slightly different results\n",
    b"2026-11-26 09:19:10.2: E cuda_dnn.cc:9261] Unable to register cuDNN factory: Attempting to register factory\n",
)
ABOUT_CUDA = (
    b"I0000 00:00:1.0 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used.\n",
    b"E0000 00:00:1.0 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: UNKNOWN ERROR (303)\n",
)
OTHERS = (b"F0000 The library was compiled to use AVX instructions, but these are not available\n", b"half a line")


@pytest.mark.parametrize("has_driver", [False, True])
def test_remarks_are_dropped_and_everything_else_arrives(capfd, monkeypatch, has_driver):
    monkeypatch.setattr(quiet, "has_gpu_driver", lambda: has_driver)
    with pytest.raises(ImportError), quiet.without_remarks():
        for line in (*REMARKS, *ABOUT_CUDA, *OTHERS):
            os.write(2, line)
        raise ImportError
    os.write(2, b" and what follows")
    expected = b"".join([*(ABOUT_CUDA if has_driver else ()), *OTHERS]) + b" and what follows"
    assert capfd.readouterr().err.encode() == expected


@pytest.mark.parametrize(
    "code",
    [
        "import quiet\nwith quiet.without_remarks(): pass",
        "import examples.serving_client; examples.serving_client.import_quietly('types')",
    ],
)
def test_a_program_without_stderr_runs(code):
    done = subprocess.run([sys.executable, "-c", f"import os; os.close(2)\n{code}"], cwd=ROOT)
    assert done.returncode == 0


def test_the_driver_of_a_gpu_shows_in_the_file_system(tmp_path, monkeypatch):
    monkeypatch.setattr(quiet, "_DRIVERS", (str(tmp_path / "nvidia"),))
    assert not quiet.has_gpu_driver()
    (tmp_path / "nvidia").mkdir()
    assert quiet.has_gpu_driver()

"""Keeps off the terminal what TensorFlow says while it loads, above all about CUDA on machines that have none.

It says so before it reads TF_CPP_MIN_LOG_LEVEL, and it marks some of it as errors. Only programs use this: a library
should leave its caller's stderr alone.
"""

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

# Never a problem: a heading, a note on the kernels of CPUs, and plugins that are linked twice.
_REMARKS = (
    r"All log messages before absl::InitializeLog",
    r"oneDNN custom operations are on",
    r"Unable to register cu[A-Z]+ factory",
    r"computation placer already registered",
)
# No news where no driver of a GPU is loaded.
_REMARKS_WITHOUT_DRIVER = (r"Could not find cuda drivers", r"failed call to cuInit")
_DRIVERS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
# A process of its own passes the other lines on, so they arrive even if TensorFlow ends this one.
_FILTER = """
import re, sys
for line in sys.stdin.buffer:
    if not re.search(sys.argv[1].encode(), line):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
"""


def has_gpu_driver() -> bool:
    """Whether the driver of a GPU is loaded, so that it is news if TensorFlow finds none."""
    return any(pathlib.Path(path).exists() for path in _DRIVERS)


@contextlib.contextmanager
def without_remarks() -> Iterator[None]:
    """Leaves TensorFlow's remarks out of what is written to stderr in the context, if it is open."""
    remarks = "|".join(_REMARKS if has_gpu_driver() else _REMARKS + _REMARKS_WITHOUT_DRIVER)
    stderr = None
    with contextlib.suppress(OSError):
        stderr = os.dup(2)
    if stderr is None:
        yield
        return
    try:
        command = [sys.executable, "-ISc", _FILTER, remarks]
        # In a session of its own, Ctrl-C does not end it first.
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stderr, start_new_session=True) as passing_on:
            os.dup2(passing_on.stdin.fileno(), 2)  # type: ignore[union-attr]
            try:
                yield
            finally:
                os.dup2(stderr, 2)
    finally:
        os.close(stderr)

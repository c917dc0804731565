"""Fixtures shared by the tests, and four logical CPUs in place of four accelerators."""

import os
import pathlib
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Started in the background by a shell without job control, the tests would ignore SIGINT, and so would the runs that
# they start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
import tensorflow as tf
from paths import GOLDEN, ROOT

from tf_simclr.data.formats import decode

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    """Escapes what is not UTF-8, such as names of files in the log, which a report cannot take to another process."""
    outcome = yield
    report = outcome.get_result()
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]


@pytest.fixture(scope="session")
def golden_dir() -> pathlib.Path:
    """Folder with numbers returned by the reference implementation; its README.md says what they are."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """Folder beside the checkout with real images and the SavedModel of the reference; skips where it is missing."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: it holds what is too large for the repository")
    return folder


@pytest.fixture(scope="session")
def photos() -> np.ndarray:
    """Sixteen images that differ from one another in structure, not in noise alone: uint8 [16, 32, 32, 3]."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:32, 0:32] / 32
    waves = rng.uniform(1, 20, [16, 3, 2])
    phase = waves[..., 0, None, None] * rows + waves[..., 1, None, None] * columns
    return np.moveaxis(127.5 * (1 + np.sin(phase)), 1, -1).astype(np.uint8)


@pytest.fixture
def quick_decoder(monkeypatch):
    """Has graphs decode PNG and JPEG files by one operation, for tests of what surrounds the decoding.

    The graph that knows every kind of file takes TensorFlow a second in each new pipeline. Why a file is broken is
    found outside of graphs, and still by the whole decoder.
    """
    whole = decode.decode_image

    def decode_image(encoded, max_pixels=decode.headers.MAX_PIXELS):
        if tf.executing_eagerly():
            return whole(encoded, max_pixels)
        return tf.ensure_shape(tf.io.decode_image(encoded, channels=3, expand_animations=False), [None, None, 3])

    monkeypatch.setattr(decode, "decode_image", decode_image)


@pytest.fixture
def start_service():
    """Starts tf.data services of one worker each; returns their addresses."""
    service, servers = tf.data.experimental.service, []

    def start():
        dispatcher = service.DispatchServer()
        address = dispatcher.target.removeprefix("grpc://")
        servers.extend([dispatcher, service.WorkerServer(service.WorkerConfig(address, heartbeat_interval_ms=100))])
        return address

    yield start
    servers.clear()

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
from decoding import decode_quickly
from paths import GOLDEN, ROOT

from tf_simclr.keras import keras

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    """Escapes what is not UTF-8, such as names of files in the log, which a report cannot take to another process."""
    outcome = yield
    report = outcome.get_result()
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Weights that a test draws, and orders that Keras draws, are the same in every run and after any other test."""
    keras.utils.set_random_seed(0)


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
    """Has graphs decode image files by one operation, see `decode_quickly`."""
    decode_quickly(monkeypatch)


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

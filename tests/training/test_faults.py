"""Runs of `run.py` that are killed, stopped and starved while they write: what they leave, and how they go on."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from processes import NUM_KILLS, SETTINGS, STEPS, finish, newest_step, start, variables, wait_for_step, write_images

from tf_simclr.runs import checkpoints, models, writers
from tf_simclr.runs.checkpoint_list import list_checkpoints
from tf_simclr.runs.folder import open_run
from tf_simclr.settings import RunConfig, override

pytestmark = pytest.mark.slow

NUM_MOMENTS = int(os.environ.get("MOMENTS", "100"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


def assert_same_state(prefix, expected_prefix):
    found, expected = variables(prefix), variables(expected_prefix)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def assert_as_uninterrupted(model_dir, uninterrupted):
    newest, expected = (list(list_checkpoints(folder).items())[-1] for folder in (model_dir, uninterrupted))
    assert newest[0] == expected[0] == STEPS
    assert_same_state(newest[1], expected[1])
    assert (model_dir / "metrics.jsonl").read_bytes() == (uninterrupted / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(images, tmp_path_factory):
    """Folder of a run that nothing happened to, with a checkpoint of every step."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    status, said = finish(start(folder, images, train__keep_checkpoints=STEPS))
    assert status == 0, said
    return folder


def test_runs_that_are_killed_and_stopped_end_as_if_nothing_had_happened(images, uninterrupted, tmp_path):
    rng = random.Random(0)
    faults = [signal.SIGKILL] * NUM_KILLS + [signal.SIGTERM, signal.SIGINT]
    for done, fault in enumerate(faults):
        process = start(tmp_path, images)
        wait_for_step(process, tmp_path, newest_step(tmp_path) + 1)
        with (
            pytest.raises(ValueError, match=f"is in use by process {process.pid} on"),
            open_run(override(RunConfig(), {"model_dir": str(tmp_path)})),
        ):
            pass
        wait_for_step(process, tmp_path, newest_step(tmp_path) + rng.randrange(1, 2 + STEPS // (2 * len(faults))))
        time.sleep(rng.uniform(0, 0.03))
        process.send_signal(fault)
        status, said = finish(process)
        if fault == signal.SIGKILL:
            assert status == -signal.SIGKILL, (done, said)
        else:
            step = newest_step(tmp_path)
            assert status == 128 + fault, said
            assert f"stopped by {fault.name} after step {step}, which is saved; the same command continues" in said
    status, said = finish(start(tmp_path, images))
    assert status == 0, said
    assert_as_uninterrupted(tmp_path, uninterrupted)


def test_every_moment_leaves_a_state_to_go_on_from(images, uninterrupted, tmp_path):
    """A stopped process has left on the disk what a killed one leaves; that is copied, and the process goes on."""
    rng, model_dir, copy = random.Random(0), tmp_path / "run", tmp_path / "copy"
    settings = override(RunConfig(), SETTINGS | {"data.data_dir": str(images), "model_dir": str(copy)})
    checkpoint = checkpoints.make_checkpoint(models.initial_model(settings, 36, 2))
    process, moments, midst, logged = start(model_dir, images, train__keep_checkpoints=2), 0, 0, 0
    wait_for_step(process, model_dir, 1)
    while process.poll() is None and moments < NUM_MOMENTS:
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGSTOP)
        shutil.copytree(model_dir, copy)
        process.send_signal(signal.SIGCONT)
        step = checkpoints.restore_latest(checkpoint, copy)
        assert step >= 1
        assert_same_state(
            str(copy / "checkpoints" / f"ckpt-{step}"), str(uninterrupted / "checkpoints" / f"ckpt-{step}")
        )
        writers.cut_after(copy / "metrics.jsonl", step)
        expected = [line for line in (uninterrupted / "metrics.jsonl").open() if json.loads(line)["step"] <= step]
        if expected:
            assert (copy / "metrics.jsonl").read_text().splitlines(True) == expected
            logged += 1
        whole = 1 + 2 * len(list_checkpoints(copy))  # TensorFlow's list, and two files for each
        midst += len(list((copy / "checkpoints").iterdir())) != whole
        checkpoints.make_manager(checkpoint, copy, keep=2)
        assert len(list((copy / "checkpoints").iterdir())) == 1 + 2 * len(list_checkpoints(copy))
        shutil.rmtree(copy)
        moments += 1
    process.kill()
    finish(process)
    assert moments >= NUM_MOMENTS / 2 and midst > 0 and logged > 0
    sys.stderr.write(f"{moments} moments, {midst} of them in the midst of writing or removing a checkpoint\n")


@contextlib.contextmanager
def small_disk(folder, megabytes):
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stops_the_run_with_a_sentence_and_space_lets_it_go_on(images, uninterrupted, tmp_path):
    with small_disk(tmp_path / "disk", 2) as disk:
        process = start(disk / "run", images)
        wait_for_step(process, disk / "run", 3)
        with contextlib.suppress(OSError), (disk / "ballast").open("wb") as ballast:
            while process.poll() is None:
                ballast.write(bytes(1 << 12))
                ballast.flush()
        status, said = finish(process)
        assert status == 2 and "Traceback" not in said, said
        assert f"{disk / 'run'} cannot be written (" in said
        assert "free some space or fix the cause, then run the same command again" in said
        (disk / "ballast").unlink()
        status, said = finish(start(disk / "run", images))
        assert status == 0, said
        assert_as_uninterrupted(disk / "run", uninterrupted)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        read_only = override(RunConfig(), {"model_dir": str(disk / "run")})
        with pytest.raises(ValueError, match="must be a writable folder .Read-only file system"), open_run(read_only):
            pass

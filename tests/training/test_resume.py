"""What a run finds again when it comes back: checkpoints, broken ones too, its images, its lock."""

import logging
import math
import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr import builders
from tf_simclr.data import sources
from tf_simclr.data.batches.waiting import WaitClock
from tf_simclr.keras import keras
from tf_simclr.runs import checkpoints, identity, lock, weights
from tf_simclr.runs.cadence import Cadence
from tf_simclr.runs.checkpoint_list import list_checkpoints
from tf_simclr.settings import DataConfig
from tf_simclr.training import callbacks, stopping
from tf_simclr.training.progress import Progress


def make_checkpoint():
    """Of a model with one weight, whose step and weight can be set."""
    model = keras.Sequential([keras.layers.Dense(1000, use_bias=False)])
    model.build([None, 1])
    model.compile(keras.optimizers.SGD(momentum=0.9, jit_compile=False))
    model.optimizer.build(model.trainable_variables)
    return checkpoints.make_checkpoint(model)


def save(checkpoint, folder, step, keep=3):
    checkpoint.model.set_weights([np.full([1, 1000], step, np.float32)])
    checkpoint.optimizer.iterations.assign(step)
    checkpoints.make_manager(checkpoint, folder, keep).save(checkpoint_number=step)


@pytest.fixture(scope="module")
def saved_steps(tmp_path_factory):
    """A run's folder with checkpoints of the steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("run")
    for step in (2, 4, 6):
        save(make_checkpoint(), folder, step)
    return folder


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DATA, INDEX = "ckpt-6.data-00000-of-00001", "ckpt-6.index"
DAMAGE = {
    "data cut": lambda folder: cut(folder / DATA, 0.5),
    "data gone": lambda folder: (folder / DATA).unlink(),
    "data empty": lambda folder: cut(folder / DATA, 0),
    "data flipped": lambda folder: flip_a_byte(folder / DATA),
    "index cut": lambda folder: cut(folder / INDEX, 0.5),
    "index empty": lambda folder: cut(folder / INDEX, 0),
    "index flipped": lambda folder: flip_a_byte(folder / INDEX),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_the_checkpoint_before_a_broken_one_is_used_and_that_is_said(saved_steps, tmp_path, damage, caplog):
    folder = shutil.copytree(saved_steps, tmp_path / "run")
    damage(folder / "checkpoints")
    checkpoint = make_checkpoint()
    assert checkpoints.restore_latest(checkpoint, folder) == 4
    assert checkpoint.optimizer.iterations == 4 and np.all(checkpoint.model.get_weights()[0] == 4)
    assert "ckpt-6 is broken; continuing from the one before" in caplog.text
    checkpoints.make_manager(checkpoint, folder, keep=3)
    assert weights.find_checkpoint(folder).endswith("ckpt-4")  # Others take what the run has taken.
    left = {path.name for path in (folder / "checkpoints").glob("*ckpt-6*")}
    assert left and all(name.startswith("unreadable_ckpt-6.") for name in left)
    save(checkpoint, folder, 6)
    checkpoint = make_checkpoint()
    assert checkpoints.restore_latest(checkpoint, folder) == 6
    assert np.all(checkpoint.model.get_weights()[0] == 6)


def test_tensorflow_s_list_of_checkpoints_is_mended(saved_steps, tmp_path):
    folder = shutil.copytree(saved_steps, tmp_path / "run")
    cut(folder / "checkpoints" / "checkpoint", 0.3)
    checkpoint = make_checkpoint()
    assert checkpoints.restore_latest(checkpoint, folder) == 6
    checkpoints.make_manager(checkpoint, folder, keep=3)
    assert tf.train.latest_checkpoint(folder / "checkpoints").endswith("ckpt-6")


def test_what_a_kill_leaves_half_written_or_half_deleted_is_removed(saved_steps, tmp_path):
    folder = shutil.copytree(saved_steps, tmp_path / "run")
    whole = {path.name for path in (folder / "checkpoints").iterdir()}
    (folder / "checkpoints" / "ckpt-8_temp").mkdir()
    (folder / "checkpoints" / "ckpt-8_temp" / "part-00000-of-00001.index").touch()
    for name in ("ckpt-1.data-00000-of-00001", "checkpoint.tmp1f1", ".123.checkpoint"):
        (folder / "checkpoints" / name).touch()
    checkpoint = make_checkpoint()
    checkpoints.restore_latest(checkpoint, folder)
    manager = checkpoints.make_manager(checkpoint, folder, keep=2)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == whole
    manager.save(checkpoint_number=8)
    assert list(list_checkpoints(folder)) == [6, 8]


def test_a_run_without_a_readable_checkpoint_does_not_start_anew_by_itself(saved_steps, tmp_path):
    folder = shutil.copytree(saved_steps, tmp_path / "run")
    for path in (folder / "checkpoints").glob("*.index"):
        cut(path, 0.5)
    with pytest.raises(ValueError, match=r"None of the checkpoints can be read: .*ckpt-2, .*ckpt-6"):
        checkpoints.restore_latest(make_checkpoint(), folder)


@pytest.mark.parametrize("name", ["a[1]", os.fsdecode(b"caf\xe9")])
def test_checkpoints_are_kept_pruned_and_found_in_a_folder_that_tensorflow_misreads(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    for step in (2, 4, 6):
        checkpoint = make_checkpoint()
        assert checkpoints.restore_latest(checkpoint, folder) == max(step - 2, 0)
        save(checkpoint, folder, step, keep=2)
    assert list(list_checkpoints(folder)) == [4, 6]
    assert weights.find_checkpoint(folder).endswith("ckpt-6")
    prefix = weights.find_checkpoint(folder / "checkpoints" / "ckpt-4")
    assert "save_counter/.ATTRIBUTES/VARIABLE_VALUE" in tf.train.load_checkpoint(prefix).get_variable_to_shape_map()


def test_a_second_run_in_a_folder_is_refused_by_name_and_process(tmp_path):
    holder = f"process {os.getpid()} on {os.uname().nodename}"
    refused = pytest.raises(ValueError, match=f"{tmp_path} is in use by {holder}: stop that run")
    with lock.hold(tmp_path), refused, lock.hold(tmp_path):  # The kernel's locks are those of open files.
        pass


def test_the_lock_of_a_dead_process_is_no_obstacle(tmp_path):
    (tmp_path / ".lock").write_text("process 1 on elsewhere, once upon a time")
    with lock.hold(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"process {os.getpid()} on {os.uname().nodename}"


def test_images_that_have_changed_under_a_run_are_noticed(photos, tmp_path):
    labels = np.arange(16) % 2
    source = sources.ArraySource(photos, labels)

    def check(train, start_step, test=source, **settings):
        images = builders.Sources(train, train, test)
        identity.check_same_images(images, DataConfig(**settings), tmp_path, start_step)

    check(source, start_step=0)
    check(sources.ArraySource(photos.copy(), labels), start_step=5)
    for other, difference in (
        (source.subset(np.arange(15)), "images was 16, is 15; digest of the names"),
        (sources.ArraySource(photos, 1 - labels), "digest of the labels"),
        (sources.ArraySource(255 - photos, labels), "digest of the names"),
        (sources.FileSource("", tuple(map(str, range(16))), labels), "digest of the names"),
    ):
        with pytest.raises(ValueError, match=f"The images have changed since the run .* started: {difference}"):
            check(other, start_step=5)
    with pytest.raises(ValueError, match="started: test images was 16, is 15; test digest of the names"):
        check(source, start_step=5, test=source.subset(np.arange(15)))
    check(source, start_step=5, test=source.subset(np.arange(15)), eval_data_dir="labelled")  # asked for
    check(source, start_step=5, test=source.subset(np.arange(15)), eval_data_dir="labelled")
    check(sources.ArraySource(255 - photos), start_step=0)


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stopping.catch_signals() as request:
            assert signal.getsignal(number) == signal.SIG_IGN
            os.kill(os.getpid(), number)
            assert not request
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_the_first_signal_asks_to_stop_and_the_second_stops():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Background jobs of scripts ignore it.
    with pytest.raises(KeyboardInterrupt), stopping.catch_signals() as request:
        assert not request
        os.kill(os.getpid(), signal.SIGINT)
        assert request.signal_number == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    stopped = stopping.Stopped(signal.SIGTERM, 7)
    assert stopped.exit_code == 143 and str(stopped).startswith("stopped by SIGTERM after step 7, which is saved")


def test_a_step_is_read_where_it_is_reported_and_otherwise_when_the_next_one_is_under_way(tmp_path):
    reads = set()

    class OnDevice:
        """A value that an accelerator may still be computing: who reads it has to wait."""

        def __init__(self, step):
            self.step = step

        def __float__(self):
            reads.add((step, self.step))
            return 1.0

    checkpoint, clock = make_checkpoint(), WaitClock()
    manager = checkpoints.make_manager(checkpoint, tmp_path, keep=1)
    every = {"start_step": 0, "cadence": Cadence(every=5, total=99)}
    reporting = {"steps_per_epoch": 9, "global_batch_size": 8, "every_seconds": 1e9, "wait_clock": clock}
    saving = {"stop_request": stopping.StopRequest(), "agreement": Cadence(every=5, total=99)}
    used = [
        callbacks.StopOnNaN(manager, **every),
        Progress(tmp_path, **every, **reporting),
        callbacks.SaveCheckpoint(manager, **every, **saving),
        callbacks.WarnOfCollapse(math.log(15), **every),
    ]
    container = keras.callbacks.CallbackList(used, model=checkpoint.model)
    assert container._supports_tf_logs  # or Keras reads every step for them
    container.on_train_begin()
    for step in range(1, 11):
        clock._arrivals.append(0.0)
        container.on_train_batch_begin(step - 1)
        container.on_train_batch_end(step - 1, {"loss": OnDevice(step), "gradient_norm": OnDevice(step)})
    late = {(step + 1, step) for step in (1, 2, 3, 4, 6, 7, 8, 9)}
    assert reads == late | {(5, 5), (10, 10)}


@pytest.mark.parametrize(("offset", "warnings"), [(0.0, 1), (0.0005, 1), (0.002, 0), (-0.002, 0)])
def test_a_loss_that_stays_at_its_trivial_value_is_called_a_collapse_once(offset, warnings, caplog):
    callback = callbacks.WarnOfCollapse(math.log(15), start_step=0, cadence=Cadence(every=2, total=99), after_steps=10)
    loss = math.log(15) * (1 + offset)
    with caplog.at_level(logging.WARNING, logger="absl"):
        for number, value in enumerate([loss] * 4 + [1.0] + [loss] * 20):
            callback.on_train_batch_end(2 * number + 1, {"loss": value})
    assert caplog.text.count("stayed at 2.708, its value when all projections are equal, for 10 steps") == warnings

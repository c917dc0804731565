"""The check of a machine: mistakes across replicas are found, rounding is not; what is measured is what is there."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from checks import make_config, photo, write
from paths import ROOT
from replicas import mirrored
from zoo import encode

from tf_simclr import distribute
from tf_simclr.augment import Augmentation
from tf_simclr.check import equality, machine, measure
from tf_simclr.data.sources import ArraySource
from tf_simclr.keras import keras
from tf_simclr.models.simclr import SimCLR


def cut(tensor, whole=distribute.gather):
    """A gather that lets no gradient through to other replicas: the most frequent mistake of all."""
    gathered, count = tf.stop_gradient(whole(tensor)), tf.shape(tensor)[0]
    first = distribute.replica_id() * count
    return tf.concat([gathered[:first], tensor, gathered[first + count :]], axis=0)


def mean_gradients(gradients, whole=distribute.sum_gradients):
    """The mean over the replicas of what is already divided by their number."""
    return [gradient / distribute.num_replicas() for gradient in whole(gradients)]


def settings(tmp_path, **changes):
    return make_config(tmp_path, tmp_path, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("count", [2, 4])
def test_replicas_that_agree_pass_by_far(tmp_path, monkeypatch, precision, count):
    monkeypatch.setattr(equality, "_TOLERANCES", {name: 0.3 * value for name, value in equality._TOLERANCES.items()})
    finding = equality.compare_replicas(settings(tmp_path, train__precision=precision), mirrored(count))
    assert finding.severity == "pass", finding
    assert f"{count} replicas and one, in {precision}" in finding.found


@pytest.mark.parametrize("precision", ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("name", "mistake", "seen"),
    [
        ("gather", cut, "gradient"),
        pytest.param("sum_gradients", mean_gradients, "gradient", marks=pytest.mark.slow),
        pytest.param("model.global_bn", False, "gradient", marks=pytest.mark.slow),
    ],
)
def test_mistakes_across_replicas_fail(tmp_path, monkeypatch, precision, name, mistake, seen):
    if name == "model.global_bn":
        monkeypatch.setitem(equality._SETTINGS, name, mistake)
    else:
        monkeypatch.setattr(distribute, name, mistake)
    finding = equality.compare_replicas(settings(tmp_path, train__precision=precision), mirrored(2))
    assert finding.severity == "fail"
    assert any(detail.startswith(seen) for detail in finding.details)
    # By far: the largest difference is several times what is allowed.
    assert float(finding.details[0].split(": ")[1]) > 3 * equality._TOLERANCES[precision]


def test_one_replica_has_nothing_to_be_compared_with(tmp_path):
    finding = equality.compare_replicas(settings(tmp_path), tf.distribute.get_strategy())
    assert finding.severity == "info" and "one replica" in finding.found


def test_what_is_not_finite_is_a_difference():
    found, expected = ({"weight": [("a", np.array([value, 1.0]))]} for value in (np.nan, 1.0))
    assert list(equality._differences(found, expected)) == [(np.inf, "weight a")]


def test_time_of_a_gather(monkeypatch):
    def slow(tensor, whole=distribute.gather):
        with tf.control_dependencies([tf.numpy_function(lambda: time.sleep(0.02), [], [])]):
            return whole(tf.identity(tensor))

    monkeypatch.setattr(distribute, "gather", slow)
    strategy = mirrored(2)
    with strategy.scope():
        assert 0.02 <= measure.gather_seconds(strategy, 4, 2, 8) < 0.2


def test_speed_of_a_disk(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        measure.os, "fsync", lambda file: sizes.append(measure.os.fstat(file).st_size) or time.sleep(0.05)
    )
    assert 100_000 / 0.2 < measure.write_speed(tmp_path, 100_000) <= 100_000 / 0.05
    assert sizes == [100_000]
    sizes.clear()
    measure.write_speed(tmp_path, 1 << 40, max_seconds=0.1)
    assert 1 <= len(sizes) <= 3
    assert not list(tmp_path.iterdir())


def test_speed_of_data():
    def slow(number):
        tf.numpy_function(lambda: time.sleep(0.01), [], [])
        return number

    first, speed = measure.data_speed(tf.data.Dataset.range(10_000).map(slow), 4, max_seconds=0.5)
    assert first == 0
    assert 1 < speed <= 401  # A busy machine may be as slow as it likes.


class SlowModel(keras.Model):
    def train_step(self, data):
        images, labels = data
        seconds = tf.numpy_function(self.work, [tf.shape(images)[0], labels[0]], tf.float32)
        with tf.control_dependencies([seconds]):
            return {"loss": tf.constant(0.0)}

    def work(self, count, label):
        self.sizes.append(int(count))
        time.sleep(0.3 if len(self.sizes) == 1 else 0.05)
        return np.float32(0)


def test_time_of_a_step_is_that_of_one_after_the_first():
    model = SlowModel()
    model.sizes = []
    model.compile()
    assert 0.05 <= measure.step_seconds(model, (np.zeros([4, 2]), np.arange(4)), 8) < 0.3
    assert set(model.sizes) == {8}


def tiny_model():
    encoder = keras.Sequential([keras.Input([8, 8, 3]), keras.layers.Flatten()])
    model = SimCLR(encoder, keras.layers.Dense(4), image_size=8, augmentation=Augmentation(8))
    model.compile(keras.optimizers.Adam())
    model.optimizer.build(model.trainable_variables)
    return model


# A view and its representation are 192 numbers each, two views of 512 images 1.6 MB: too many for 80 % of 1.5 MB.
@pytest.mark.parametrize(
    ("seconds_per_image", "memory", "measured"),
    [(0.001, 1 << 40, [8, 512]), (0.1, 1 << 40, [8, 64]), (10.0, 1 << 40, [8]), (0.001, 1_500_000, [8, 64])],
)
def test_a_batch_that_takes_long_is_not_tried(tmp_path, photos, monkeypatch, seconds_per_image, memory, measured):
    tried = []
    monkeypatch.setattr(machine.measure, "data_speed", lambda dataset, size: (next(iter(dataset)), 256.0))
    monkeypatch.setattr(
        machine.measure, "step_seconds", lambda model, batch, size: tried.append(size) or size * seconds_per_image
    )
    monkeypatch.setattr(machine.devices, "total_memory", lambda: memory)
    config = settings(tmp_path, train__global_batch_size=512, data__image_size=8)
    speed = machine._measure_speed(config, tiny_model(), ArraySource(photos[:, :8, :8]))
    assert tried == measured
    assert speed == machine.Speed(2.0, pytest.approx(512 * seconds_per_image), measured[-1])
    (finding, *more) = machine._speed(config, speed, ArraySource(photos))
    assert finding.severity == ("warn" if seconds_per_image < 0.002 else "pass")
    assert len(more) == (measured[-1] < 512)


@pytest.mark.parametrize(
    ("free", "speed", "severity", "said"),
    [
        # Kernel and offset, 192 x 4 + 4, three times with Adam's moments, five metrics of two numbers, two of Adam's:
        # 9.3 kB. There are four checkpoints at a time, and two exports without Adam, 3.1 kB each.
        (1e9, 1e6, "pass", "take up to 44 kB more"),
        (1e9, 1e3, "warn", "writing one takes 9.3 s"),
        (40e3, 1e6, "fail", "and 40 kB are free"),
    ],
)
def test_space_and_speed_of_the_disk(tmp_path, photos, monkeypatch, free, speed, severity, said):
    monkeypatch.setattr(machine.checkpoints.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": int(free)}))
    monkeypatch.setattr(machine.measure, "write_speed", lambda folder, size: speed)
    config = settings(tmp_path, train__keep_checkpoints=3, train__checkpoint_steps=10)
    step = machine.Speed(1.0, 1.0, 4)
    (finding,) = machine._disk(config, tiny_model(), step, ArraySource(photos), tmp_path)
    assert finding.severity == severity and said in finding.found, finding


def test_time_of_the_steps_that_are_left(tmp_path, photos):
    config = settings(tmp_path, train__steps=5000)
    speed = machine.Speed(data=1.0, step=2.0, images=4)
    assert (
        "About 4.2 hours for the 5,000 steps, 3 s each"
        in machine._length(config, speed, ArraySource(photos), tmp_path).found
    )
    write(tmp_path / "checkpoints" / "ckpt-4990.index", b"")
    found = machine._length(config, speed, ArraySource(photos), tmp_path).found
    assert "About 30 seconds for the 10 of 5,000 steps that are left" in found


def test_a_step_that_does_not_fit_fails(tmp_path, photos, monkeypatch):
    def fail(*arguments):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nand so on")

    monkeypatch.setattr(machine.measure, "step_seconds", fail)
    monkeypatch.setattr(machine.measure, "data_speed", lambda dataset, size: (next(iter(dataset)), 256.0))
    found = machine.examine(
        settings(tmp_path, data__image_size=8),
        tf.distribute.get_strategy(),
        tiny_model(),
        ArraySource(photos),
        tmp_path,
    )
    assert [one.severity for one in found if one.topic == "speed"] == ["fail"]
    assert "OOM when allocating tensor." in found[1].found and "--microbatch_size" in found[1].advice


RUN = """
import runpy, sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
sys.path[:0] = ["tests/check", "tests/support", "."]
if CUT:
    import test_machine
    test_machine.distribute.gather = test_machine.cut
runpy.run_path("run.py", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_cut", [False, True])
def test_the_whole_check_on_two_replicas(tmp_path, is_cut):
    for seed in range(16):
        write(tmp_path / "images" / "ab"[seed % 2] / f"{seed}.png", encode(photo(seed), "PNG"))
    program = RUN.replace("CUT", str(is_cut))
    arguments = ["--mode=check", "--strategy=mirrored", f"--data_dir={tmp_path}/images", f"--model_dir={tmp_path}/run"]
    arguments += ["--image_size=16", "--resnet_depth=10", "--width_multiplier=0.1", "--stem=strided"]
    arguments += [
        "--train_batch_size=8",
        "--warmup_epochs=1",
        "--precision=float32",
        "--set=train.steps_per_execution=10",
    ]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == int(is_cut), done.stderr[-2000:]
    found = json.loads((tmp_path / "run" / "check.json").read_text())["findings"]
    severities = {one["topic"]: one["severity"] for one in found}
    assert severities["replicas"] == ("fail" if is_cut else "pass"), done.stdout
    assert {"gather", "speed", "disk", "memory", "time"} <= set(severities)

"""Runs `run.py` in processes of its own."""

import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf
from paths import ROOT

from tf_simclr.runs.checkpoint_list import list_checkpoints

NUM_KILLS = int(os.environ.get("KILLS", "3"))
STEPS = max(80, 4 * NUM_KILLS)
SETTINGS = {
    "mode": "train",
    "data.dataset": "folder",
    "data.image_size": 16,
    "model.resnet_depth": 10,
    "model.width_multiplier": 0.0625,
    "model.stem": "strided",
    "model.num_groups": 2,
    "optimizer.warmup_epochs": 0.5,
    "train.global_batch_size": 8,
    "train.steps": STEPS,
    "train.checkpoint_steps": 1,
    "train.log_every_steps": 7,
    "train.precision": "mixed_bfloat16",
}


def write_images(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "images.npz"
    rng = np.random.default_rng(0)
    np.savez(path, images=rng.integers(0, 256, [40, 16, 16, 3], np.uint8), labels=np.arange(40) % 2)
    return path


def start(model_dir, images, environment=None, **changes):
    """Starts `run.py` on these images."""
    settings = SETTINGS | {"model_dir": model_dir, "data.data_dir": images}
    settings |= {name.replace("__", "."): value for name, value in changes.items()}
    arguments = [f"--set={name}={value}" for name, value in settings.items()]
    command = [sys.executable, "run.py", f"--data_dir={images}", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    """Waits for a process to end; returns its exit status and its stderr."""
    _, said = process.communicate()
    return process.returncode, said


def newest_step(model_dir):
    return max(list_checkpoints(model_dir), default=0)


def wait_for_step(process, model_dir, step):
    """Waits until the run has saved this step or has ended."""
    while process.poll() is None and newest_step(model_dir) < step:
        time.sleep(0.01)


def variables(prefix):
    """All variables in a checkpoint except the counter of saves."""
    reader = tf.train.load_checkpoint(prefix)
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith("VARIABLE_VALUE")]
    return {name: reader.get_tensor(name) for name in names if not name.startswith("save_counter")}

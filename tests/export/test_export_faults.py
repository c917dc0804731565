"""Exports under fire: thousands of damaged images at once, processes that are killed, training that goes on."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from exports import make_encoder, make_files, make_images, open_session
from paths import ROOT, SUPPORT

from tf_simclr.export import export_encoder

pytestmark = pytest.mark.slow
NUM_MUTATIONS = 2000
BATCH = 5


def mutate(file: bytes, rng: np.random.Generator) -> bytes:
    """Flips, cuts, repeats or overwrites a part of a file."""
    damaged = bytearray(file)
    start, size = rng.integers(0, len(file)), int(rng.integers(1, 64))
    kind = rng.integers(0, 4)
    if kind == 0:
        for place in rng.integers(0, len(file), size):
            damaged[place] ^= 1 << rng.integers(0, 8)
    elif kind == 1:
        del damaged[start:]
    elif kind == 2:
        damaged[start:start] = damaged[start : start + size]
    else:
        damaged[start : start + size] = rng.bytes(size)
    return bytes(damaged)


def test_mutated_images_from_8_threads_harm_no_neighbour(tmp_path):
    directory = export_encoder(make_encoder(), tmp_path / "1")
    whole = [file for file, ok in zip(*make_files(), strict=True) if ok]
    whole.append(tf.io.encode_jpeg(make_images(1, 33, 35)[0], progressive=True).numpy())
    with open_session(directory) as ask:
        expected = [ask("serving_default", image_bytes=[file])["embedding"][0].tobytes() for file in whole]

        def send(seed):
            rng = np.random.default_rng(seed)
            mutations = [mutate(whole[rng.integers(0, len(whole))], rng) for _ in range(BATCH)]
            neighbours = rng.integers(0, len(whole), BATCH)
            order = rng.permutation(2 * BATCH)
            batch = [*mutations, *(whole[index] for index in neighbours)]
            answer = ask("serving_default", image_bytes=[batch[index] for index in order])
            rows = {int(index): row for index, row in zip(order, answer["embedding"], strict=True)}
            valid = {int(index): bool(is_valid) for index, is_valid in zip(order, answer["valid"], strict=True)}
            for place, index in enumerate(neighbours):
                assert valid[BATCH + place] and rows[BATCH + place].tobytes() == expected[index], seed
            for place in range(BATCH):
                assert np.isfinite(rows[place]).all() and (valid[place] or not rows[place].any()), seed
            return sum(valid[place] for place in range(BATCH))

        with concurrent.futures.ThreadPoolExecutor(8) as clients:
            num_valid = sum(clients.map(send, range(NUM_MUTATIONS // BATCH)))
    assert 0 < num_valid < NUM_MUTATIONS  # Some were damaged beyond decoding, and some were not.


_EXPORT_FOREVER = """
import itertools, sys
sys.path[:0] = sys.argv[2:]
from exports import make_encoder
from tf_simclr.export import export_encoder
encoder = make_encoder()
for version in itertools.count(1):
    export_encoder(encoder, f"{sys.argv[1]}/{version}")
    print(version, flush=True)
"""


def test_a_process_that_is_killed_leaves_whole_exports_alone(tmp_path):
    """Killed three times at a random moment of an export; each time, what is there under a number can be served."""
    rng = np.random.default_rng(0)
    for round_number in range(3):
        folder = tmp_path / str(round_number)
        command = [sys.executable, "-c", _EXPORT_FOREVER, str(folder), str(ROOT), str(SUPPORT)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        process.stdout.readline()  # Version 1 is there.
        start = time.monotonic()
        process.stdout.readline()
        time.sleep(rng.uniform(0.2, 0.9) * (time.monotonic() - start))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        versions = sorted(path for path in folder.iterdir() if path.name.isdigit())
        assert len(versions) >= 2
        file = tf.io.encode_png(make_images(1, 8, 8)[0]).numpy()
        with open_session(str(versions[-1])) as ask:
            assert ask("serving_default", image_bytes=[file])["valid"].all()
        export_encoder(make_encoder(), folder / "99")
        assert all(path.name.isdigit() for path in folder.iterdir())


def test_an_export_while_training_goes_on(tmp_path):
    settings = [
        "--dataset=shapes", f"--model_dir={tmp_path}", "--image_size=16", "--resnet_depth=10", "--width_multiplier=0.1",
        "--train_batch_size=16", "--train_steps=100000", "--warmup_epochs=0", "--checkpoint_steps=10",
        "--precision=float32", "--keep_checkpoint_max=2", "--set=model.stem=strided", "--export_batch_sizes=1",
    ]  # fmt: skip
    command = [sys.executable, str(ROOT / "run.py"), *settings]
    training = subprocess.Popen([*command, "--mode=train"], stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "checkpoints").glob("ckpt-*.index")):
        assert training.poll() is None, training.stderr.read()[-2000:]
        time.sleep(0.2)
    exported = subprocess.run([*command, "--mode=export"], capture_output=True, text=True, check=False)
    goes_on = training.poll() is None
    training.kill()
    training.wait()
    assert exported.returncode == 0 and goes_on, exported.stderr[-2000:]
    (version,) = (tmp_path / "saved_model").iterdir()
    assert int(version.name) % 10 == 0 and (version / "model_card.json").is_file()

"""Training speed against lightly with PyTorch, in one run: images per second, end to end.

    python benchmarks/peers.py --peer_python=PEER/bin/python
    python benchmarks/peers.py --peer_python=PEER/bin/python --precision=mixed_bfloat16

PEER is a virtual environment with `pip install torch torchvision lightly`.

Both train ResNet-18 with the CIFAR stem by SimCLR, 128 images of 32 px a step: uint8 images in memory are cropped,
flipped, jittered and made gray at lightly's strengths without blur, encoded, projected to 128 numbers by two layers and
compared by NT-Xent at a temperature of 0.5; SGD with momentum updates the weights. lightly makes its views by
`SimCLRTransform` in a DataLoader of as many workers as there are cores, and computes in the memory format
channels-last. Each runs in a process of its own, and they take turns: whoever does not have its turn is stopped, with
all its workers.

Prints images per second, medians over the rounds, and the ratio of every round.
"""

import argparse
import contextlib
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # As in run.py.

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.arguments import at_least_1  # noqa: E402

BATCH, SIZE_PX, NUM_IMAGES = 128, 32, 4096
WARMUP_STEPS = 2


def make_images() -> np.ndarray:
    """Random images, uint8 [N, 32, 32, 3]."""
    return np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, SIZE_PX, SIZE_PX, 3), np.uint8)


def ours(precision: str) -> Callable[[], None]:
    """A step of this package, as `fit` makes it."""
    import tensorflow as tf

    from tf_simclr import NTXent, ProjectionHead, SimCLR, resnet
    from tf_simclr.augment import Augmentation, simclr_chain
    from tf_simclr.data import batches, sources
    from tf_simclr.keras import keras

    chain = simclr_chain(crop_area=(0.08, 1.0), jitter_strength=1.0, blur_probability=0.0)
    augmentation = Augmentation(SIZE_PX, branches=(chain, chain))
    model = SimCLR(
        resnet(depth=18, stem="cifar", dtype=precision),
        ProjectionHead(num_layers=2, output_dim=128, dtype=precision),
        image_size=SIZE_PX,
        loss=NTXent(temperature=0.5),
        augmentation=augmentation,
    )
    model.compile(optimizer=keras.optimizers.SGD(0.06, momentum=0.9, jit_compile=False))
    dataset = batches.train_dataset(
        sources.ArraySource(make_images()),
        global_batch_size=BATCH,
        seed=0,
        total_steps=1 << 20,
        augmentation=augmentation,
    )
    iterator, step = iter(dataset), model.make_train_function()
    print(f"TensorFlow {tf.__version__}", flush=True)
    return lambda: step(iterator)["loss"].numpy()


def lightly(precision: str) -> Callable[[], None]:
    """A step of lightly, on views of its own transform."""
    import torch
    import torchvision
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from PIL import Image

    images, transform = make_images(), SimCLRTransform(input_size=SIZE_PX, gaussian_blur=0.0)

    class Views(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> list[torch.Tensor]:
            return transform(Image.fromarray(images[index]))

    trunk = torchvision.models.resnet18()
    trunk.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    trunk.maxpool, trunk.fc = torch.nn.Identity(), torch.nn.Identity()
    model = torch.nn.Sequential(trunk, SimCLRProjectionHead(512, 512, 128)).to(memory_format=torch.channels_last)
    loss = NTXentLoss(temperature=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9)
    loader = torch.utils.data.DataLoader(
        Views(), BATCH, shuffle=True, drop_last=True, num_workers=len(os.sched_getaffinity(0)), persistent_workers=True
    )

    def forever():
        while True:
            yield from loader

    batches = forever()

    def step() -> None:
        view_a, view_b = (views.to(memory_format=torch.channels_last) for views in next(batches))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "mixed_bfloat16"):
            value = loss(model(view_a), model(view_b))
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        value.item()

    print(f"lightly with PyTorch {torch.__version__}", flush=True)
    return step


CONTESTANTS = {"ours": ours, "lightly": lightly}


def take_turns(step: Callable[[], None], steps: int) -> None:
    """For every line that comes in, makes some steps and prints the seconds that they took."""
    for _ in range(WARMUP_STEPS):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        print(time.perf_counter() - start, flush=True)


class Process:
    """A contestant in a process group of its own, which is stopped but for its turns."""

    def __init__(self, python: str, name: str, options: argparse.Namespace):
        command = [python, __file__, f"--contestant={name}", f"--precision={options.precision}"]
        self._process = subprocess.Popen(
            [*command, f"--steps={options.steps}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def warm_up(self) -> None:
        """Waits until it has made its first steps, and stops it."""
        self.name = self._process.stdout.readline().strip()
        if self._process.stdout.readline().strip() != "ready":
            raise SystemExit("A contestant cannot run: see above")
        self._signal(signal.SIGSTOP)

    def turn(self) -> float:
        """Seconds of a turn."""
        self._signal(signal.SIGCONT)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seconds = float(self._process.stdout.readline())
        self._signal(signal.SIGSTOP)
        return seconds

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # It has ended.
            os.killpg(self._process.pid, number)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer_python", help="the Python of an environment with lightly")
    parser.add_argument("--precision", choices=["float32", "mixed_bfloat16"], default="float32")
    parser.add_argument("--steps", type=at_least_1, default=2, help="steps of a turn")
    parser.add_argument("--rounds", type=at_least_1, default=5)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        take_turns(CONTESTANTS[options.contestant](options.precision), options.steps)
        return
    if not options.peer_python:
        parser.error("--peer_python is missing")
    with Process(sys.executable, "ours", options) as here:
        here.warm_up()
        with Process(options.peer_python, "lightly", options) as there:
            there.warm_up()
            turns = [(here.turn(), there.turn()) for _ in range(options.rounds)]
    for process, seconds in zip((here, there), zip(*turns, strict=True), strict=True):
        print(f"{process.name:30}{options.steps * BATCH / statistics.median(seconds):8.1f} images/s")
    ratios = sorted(second / first for first, second in turns)
    print(f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), {options.precision}")


if __name__ == "__main__":
    main()

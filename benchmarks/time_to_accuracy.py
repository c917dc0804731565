"""The accuracy that a config reaches, and the processor time of its whole run: one line to compare with others.

    python benchmarks/time_to_accuracy.py --data_dir=cifar10 --seeds=0,1,2
    python benchmarks/time_to_accuracy.py --config=configs/shapes.py

Runs `run.py --mode=train_then_eval` for every seed in a process of its own: pretraining without labels, the evaluation
of the frozen encoder beside its baselines, the export and the report. All of it counts. A run that is stopped goes on
with the next start of the same command; its time is added up. If this program itself was killed, a part of the time is
lost, and the line says "at least".
"""

import argparse
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tf_simclr import files  # noqa: E402
from tf_simclr.settings.command_line import load_config  # noqa: E402

PROTOCOLS = ("linear", "knn")


def run(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Runs a seed to its end, unless that was done; returns its result and its seconds, by processor and clock."""
    name = load_config(pathlib.Path(options.config)).name
    folder = pathlib.Path(options.model_dir) / f"{name}_{seed}"
    ledger = folder.with_name(f"{folder.name}_time.json")
    command = [sys.executable, str(ROOT / "run.py"), "--mode=train_then_eval", f"--config={options.config}"]
    command += [f"--seed={seed}", f"--model_dir={folder}"]
    command += [f"--data_dir={options.data_dir}"] if options.data_dir else []
    new = {"command": command[2:], "processor": 0.0, "clock": 0.0, "is_done": False, "is_running": False, "lost": False}
    taken = files.read_json(ledger) if ledger.is_file() else new
    if taken.get("command") != new["command"]:
        sys.exit(f"{ledger} is of another command: use another --model_dir")
    if not taken["is_done"]:
        folder.parent.mkdir(parents=True, exist_ok=True)
        taken |= {"lost": taken["lost"] or taken["is_running"], "is_running": True}
        files.write_json(ledger, taken)
        start = time.monotonic()
        process = subprocess.Popen(command)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except KeyboardInterrupt:  # It has got it, too.
            _, status, usage = os.wait4(process.pid, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        taken["processor"] += usage.ru_utime + usage.ru_stime
        taken["clock"] += time.monotonic() - start
        files.write_json(ledger, taken | {"is_done": status == 0, "is_running": False})
        if status:
            sys.exit(f"The run of seed {seed} ended too early, see above; the same command continues it.")
    return files.read_json(folder / "result.json") | {"seconds": taken}


def accuracies(result: dict[str, Any]) -> str:
    """The accuracies of a result, with their intervals."""
    cells = []
    for protocol in PROTOCOLS:
        value, low, high = (100 * result[f"eval/{protocol}_top_1_accuracy{end}"] for end in ("", "_low", "_high"))
        cells.append(f"{value:.1f} % {protocol} [{low:.1f}, {high:.1f}]")
    return ", ".join(cells)


def describe(seed: int, result: dict[str, Any]) -> str:
    """What a seed reached, in one line."""
    taken = result["seconds"]
    bound = "at least " if taken["lost"] else ""
    return (
        f"seed {seed}: {accuracies(result)} in {bound}{taken['processor']:,.0f} s of processor time, "
        f"{taken['clock'] / 60:.0f} min by the clock"
    )


def machine() -> str:
    """The processor, how many of its cores there are, and TensorFlow."""
    text = pathlib.Path("/proc/cpuinfo").read_text() if pathlib.Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    extensions = [one for one in ("avx512_bf16", "amx_bf16") if one in text]
    return (
        f"{len(os.sched_getaffinity(0))} cores of {found[1] if found else platform.processor()}"
        f"{''.join(f', {one}' for one in extensions)}, TensorFlow {version('tensorflow')}"
    )


def main() -> None:
    """Runs all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", default="configs/cifar10_cpu.py")
    parser.add_argument("--data_dir", help="the images, unless the config has its own")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--model_dir", default="runs/time_to_accuracy")
    options = parser.parse_args()
    lines = []
    for seed in map(int, options.seeds.split(",")):
        lines.append(describe(seed, run(seed, options)))
        print(lines[-1], flush=True)
    print(f"\n{options.config}, {machine()}", *lines, sep="\n")


if __name__ == "__main__":
    main()

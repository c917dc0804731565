"""The accuracy that a config reaches, and the processor time of its whole run: one line to compare with others.

    python benchmarks/time_to_accuracy.py --data_dir=cifar10 --seeds=0,1,2
    python benchmarks/time_to_accuracy.py --config=configs/shapes.py --train_epochs=4 --model_dir=runs/short

Runs `run.py --mode=train_then_eval` for every seed in a process of its own: pretraining without labels, the evaluation
of the frozen encoder beside its baselines, the export and the report. All of it counts. Further flags are run.py's. A
run that is stopped goes on with the next start of the same command; its time is added up. If this program itself was
killed, a part of the time is lost, and the line says "at least".
"""

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.ledger import Ledger, machine  # noqa: E402
from tf_simclr import files  # noqa: E402
from tf_simclr.settings import to_dict  # noqa: E402
from tf_simclr.settings.command_line import load_config  # noqa: E402

PROTOCOLS = ("linear", "knn")


def run(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Runs a seed to its end, unless that was done; returns its result and its seconds, by processor and clock."""
    config = load_config(pathlib.Path(options.config))
    folder = pathlib.Path(options.model_dir) / f"{config.name}_{seed}"
    command = ["--mode=train_then_eval", f"--config={options.config}", f"--seed={seed}", f"--model_dir={folder}"]
    command += [f"--data_dir={options.data_dir}"] if options.data_dir else []
    command += options.flags
    ledger = Ledger(folder.with_name(f"{folder.name}_time.json"), command=command, config=to_dict(config))
    new = {"processor": 0.0, "clock": 0.0, "is_done": False, "is_running": False, "lost": False}
    taken = new | ledger.values
    if not taken["is_done"]:
        ledger.write(**taken | {"lost": taken["lost"] or taken["is_running"], "is_running": True})
        start = time.monotonic()
        process = subprocess.Popen([sys.executable, str(ROOT / "run.py"), *command])
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except KeyboardInterrupt:  # It has got it, too.
            _, status, usage = os.wait4(process.pid, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ledger.write(
            processor=taken["processor"] + usage.ru_utime + usage.ru_stime,
            clock=taken["clock"] + time.monotonic() - start,
            is_done=status == 0,
            is_running=False,
        )
        if status:
            sys.exit(f"The run of seed {seed} ended too early, see above; the same command continues it.")
    return files.read_json(folder / "result.json") | {"seconds": ledger.values}


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


def main() -> None:
    """Runs all seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", default="configs/cifar10_cpu.py")
    parser.add_argument("--data_dir", help="the images, unless the config has its own")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--model_dir", default="runs/time_to_accuracy")
    options, options.flags = parser.parse_known_args()
    if own := [flag for flag in options.flags if flag.partition("=")[0] in ("--mode", "--seed")]:
        parser.error(f"this program sets it itself. Received: {', '.join(own)}")
    lines = []
    for seed in map(int, options.seeds.split(",")):
        lines.append(describe(seed, run(seed, options)))
        print(lines[-1], flush=True)
    print(f"\n{' '.join([options.config, *options.flags])}, {machine()}", *lines, sep="\n")


if __name__ == "__main__":
    main()

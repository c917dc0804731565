"""Starts run.py as one of several workers, on machines that Kubernetes or Slurm has started.

    python deploy/worker.py --mode=train --data_dir=/shared/photos --model_dir=/shared/run

Writes the environment variable TF_CONFIG, which `--strategy=multi_worker` reads, and becomes run.py with that strategy
and the arguments that follow. It takes the workers from

- an Indexed Job of Kubernetes: JOB_COMPLETION_INDEX and HOSTNAME, which Kubernetes sets, and WORKERS, the number of
  completions. SUBDOMAIN is the headless service of the pods, by default that of the job's name. See training.yaml.
- a step of Slurm: SLURM_PROCID, SLURM_STEP_NODELIST and SLURM_STEP_TASKS_PER_NODE, which `srun` sets. Ranks must
  follow the machines, as they do by default.

Port 2222 and, for more tasks on a machine, those above it must be free; WORKER_PORT names another.
"""

import json
import os
import pathlib
import re
import sys


def describe() -> dict[str, object]:
    """What TF_CONFIG says of this worker and all others.

    Raises:
      ValueError: If the variables of Kubernetes and Slurm are missing or make no sense.
    """
    port = _number("WORKER_PORT", "2222")
    if "JOB_COMPLETION_INDEX" in os.environ:
        addresses, index = _of_kubernetes(port)
    elif "SLURM_PROCID" in os.environ:
        addresses, index = _of_slurm(port)
    else:
        raise ValueError(
            "Neither JOB_COMPLETION_INDEX nor SLURM_PROCID is set: start this as a pod of an Indexed Job or by srun, "
            "or start run.py with a TF_CONFIG of your own"
        )
    if index >= len(addresses):
        raise ValueError(f"This worker's number must be below that of the workers, {len(addresses)}. Received: {index}")
    return {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}


def _of_kubernetes(port: int) -> tuple[list[str], int]:
    index = _number("JOB_COMPLETION_INDEX")
    name = os.environ.get("HOSTNAME", "")
    if not name.endswith(f"-{index}"):
        raise ValueError(f"HOSTNAME must be that of a pod of an Indexed Job, NAME-{index}. Received: {name!r}")
    name = name.removesuffix(f"-{index}")
    domain = os.environ.get("SUBDOMAIN", name)
    return [f"{name}-{i}.{domain}:{port}" for i in range(_number("WORKERS"))], index


def _of_slurm(port: int) -> tuple[list[str], int]:
    # TensorFlow's SlurmClusterResolver sorts the hosts, so that node10 comes before node9, unlike Slurm's ranks.
    parts = re.findall(r"(?:[^,\[]|\[[^\]]*\])+", _text("SLURM_STEP_NODELIST"))
    hosts = [host for part in parts for host in _expand(part)]
    counts: list[int] = []
    for part in _text("SLURM_STEP_TASKS_PER_NODE").split(","):  # 2(x3) is 2,2,2.
        count, _, times = part.rstrip(")").partition("(x")
        counts += [int(count)] * int(times or 1)
    if len(hosts) != len(counts):
        raise ValueError(f"SLURM_STEP_TASKS_PER_NODE must have a number for each of {hosts}. Received: {counts}")
    addresses = [f"{host}:{port + i}" for host, count in zip(hosts, counts, strict=True) for i in range(count)]
    return addresses, _number("SLURM_PROCID")


def _expand(part: str) -> list[str]:
    """The hosts that Slurm writes as one: "a[08-10,12]" are a08, a09, a10 and a12."""
    start, bracket, rest = part.partition("[")
    if not bracket:
        return [part]
    ranges, _, end = rest.partition("]")
    hosts = []
    for each in ranges.split(","):
        first, _, last = each.partition("-")
        hosts += [f"{start}{i:0{len(first)}}" for i in range(int(first), int(last or first) + 1)]
    return [host for begun in hosts for host in _expand(begun + end)]


def _text(name: str) -> str:
    if not os.environ.get(name):
        raise ValueError(f"{name} must be set: start this by srun")
    return os.environ[name]


def _number(name: str, default: str = "") -> int:
    text = os.environ.get(name, default)
    if not text.isdecimal():
        raise ValueError(f"{name} must be a whole number. Received: {text!r}")
    return int(text)


def main(arguments: list[str]) -> int:
    """Becomes run.py."""
    try:
        os.environ["TF_CONFIG"] = json.dumps(describe())
    except ValueError as error:
        print(f"worker.py: {error}", file=sys.stderr)
        return 2
    run = str(pathlib.Path(__file__).resolve().parent.parent / "run.py")
    os.execv(sys.executable, [sys.executable, run, "--strategy=multi_worker", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

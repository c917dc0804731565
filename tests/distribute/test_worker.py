"""deploy/worker.py: the workers that Kubernetes and Slurm start find one another, and continue after a loss."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import yaml
from paths import ROOT
from processes import SETTINGS, finish, newest_step, start, wait_for_step, write_images

from launch import free_ports
from tf_simclr import distribute
from tf_simclr.distribute import strategy

SCRIPT = ROOT / "deploy" / "worker.py"
SPEC = importlib.util.spec_from_file_location("worker", SCRIPT)
worker = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(worker)

SLURM = {"SLURM_STEP_NODELIST": "node[9-10,012],a[1-2]b[3],gpu3", "SLURM_STEP_TASKS_PER_NODE": "1(x5),2"}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in list(os.environ):
        if name.startswith("SLURM_") or name in ("JOB_COMPLETION_INDEX", "WORKERS", "SUBDOMAIN", "WORKER_PORT"):
            monkeypatch.delenv(name)


def describe(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return worker.describe()


def test_the_pods_of_the_job_find_one_another(monkeypatch):
    service, job, _ = yaml.safe_load_all((ROOT / "deploy" / "training.yaml").read_text(encoding="utf-8"))
    spec, name = job["spec"], job["metadata"]["name"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    assert pod["restartPolicy"] == "OnFailure" and spec["backoffLimit"] >= 100 * spec["completions"]
    assert service["spec"]["clusterIP"] == "None" and service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    (port,) = service["spec"]["ports"]
    assert container["ports"][0]["containerPort"] == port["port"]
    assert container["command"] == ["python", SCRIPT.relative_to(ROOT).as_posix()]

    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    count = spec["completions"]
    addresses = [f"{name}-{i}.{pod['subdomain']}:{port['port']}" for i in range(count)]
    for i in range(count):
        found = describe(monkeypatch, JOB_COMPLETION_INDEX=str(i), HOSTNAME=f"{name}-{i}", **variables)
        assert found == {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}}
    seen = []
    monkeypatch.setattr(strategy, "wait_for_workers", lambda *arguments: seen.append(arguments))
    monkeypatch.setattr(strategy.tf.distribute, "MultiWorkerMirroredStrategy", lambda: None)
    monkeypatch.setenv("TF_CONFIG", json.dumps(found))
    distribute.make_strategy("multi_worker")
    assert seen == [(addresses, count - 1)]


def test_a_job_of_a_job_set_has_a_domain_of_its_own(monkeypatch):
    found = describe(
        monkeypatch, JOB_COMPLETION_INDEX="1", HOSTNAME="set-job-0-1", WORKERS="2", SUBDOMAIN="set", WORKER_PORT="7"
    )
    assert found["cluster"] == {"worker": ["set-job-0-0.set:7", "set-job-0-1.set:7"]} and found["task"]["index"] == 1


@pytest.mark.parametrize("rank", (0, 6))
def test_the_tasks_of_a_slurm_step_find_one_another(monkeypatch, rank):
    found = describe(monkeypatch, SLURM_PROCID=str(rank), **SLURM)
    hosts = ["node9", "node10", "node012", "a1b3", "a2b3", "gpu3"]
    addresses = [*(f"{host}:2222" for host in hosts), "gpu3:2223"]
    assert found == {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}


@pytest.mark.parametrize(
    "variables, said",
    [
        ({}, "Neither JOB_COMPLETION_INDEX nor SLURM_PROCID is set"),
        ({"JOB_COMPLETION_INDEX": "1", "HOSTNAME": "a-1"}, "WORKERS must be a whole number. Received: ''"),
        ({"JOB_COMPLETION_INDEX": "1", "HOSTNAME": "a-1", "WORKERS": "1"}, "below that of the workers, 1. Received: 1"),
        ({"JOB_COMPLETION_INDEX": "1", "HOSTNAME": "a", "WORKERS": "2"}, "NAME-1. Received: 'a'"),
        ({"JOB_COMPLETION_INDEX": "x"}, "JOB_COMPLETION_INDEX must be a whole number. Received: 'x'"),
        ({"SLURM_PROCID": "0"}, "SLURM_STEP_NODELIST must be set: start this by srun"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "a[1-2]", "SLURM_STEP_TASKS_PER_NODE": "1"}, "Received: [1]"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(monkeypatch, capsys, variables, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert worker.main([]) == 2
    assert said in capsys.readouterr().err


def kubelet(environment, arguments, said):
    """Starts a worker until it succeeds, as Kubernetes does with a pod, but ten times at most; yields every process."""
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *arguments], cwd=ROOT, env={**os.environ, **environment},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        yield process
        status, text = finish(process)
        said.append((status, text))
        if status == 0:
            return


@pytest.mark.slow
def test_a_worker_that_dies_and_comes_back_continues_the_run(tmp_path):
    images, run = write_images(tmp_path), tmp_path / "run"
    steps = {"train.steps": 6, "train.precision": "float32", "train.log_every_steps": 1}
    settings = SETTINGS | steps | {"model_dir": run}
    arguments = [f"--data_dir={images}", *(f"--set={name}={value}" for name, value in settings.items())]
    step = {"SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2"}
    port = next(port for port in free_ports(20) if port < 65000)
    said = [], []
    pods = [kubelet(step | {"SLURM_PROCID": str(i), "WORKER_PORT": str(port)}, arguments, said[i]) for i in range(2)]
    first, second = map(next, pods)
    wait_for_step(first, run, 2)
    second.send_signal(signal.SIGKILL)
    others = [threading.Thread(target=list, args=(pod,)) for pod in pods]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [status for status, _ in said[1]] == [-signal.SIGKILL, 0], said[1]
    assert said[0][0][0] == 2 and "A worker stopped answering" in said[0][0][1] and said[0][-1][0] == 0, said[0]
    assert newest_step(run) == 6

    alone = tmp_path / "alone"
    status, text = finish(start(alone, images, **{name.replace(".", "__"): value for name, value in steps.items()}))
    assert status == 0, text
    lines, expected = ([json.loads(line) for line in (folder / "metrics.jsonl").open()] for folder in (run, alone))
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line, expected_line in zip(lines, expected, strict=True):
        np.testing.assert_allclose(list(line.values()), list(expected_line.values()), rtol=2e-4)

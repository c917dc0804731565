"""Several processes that train together: equal to one, stopped by the loss of one, patient with no missing one."""

import json
import signal
import socket
import subprocess
import sys
from concurrent import futures

import grpc
import numpy as np
import pytest
from paths import ROOT
from processes import SETTINGS, finish, newest_step, start, variables, wait_for_step, write_images

from launch import free_ports
from tf_simclr import distribute
from tf_simclr.distribute import strategy
from tf_simclr.runs.checkpoint_list import list_checkpoints

CHANGES = {"train__steps": 4, "train__precision": "float32", "train__log_every_steps": 1}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


def start_workers(model_dir, images, count=2):
    """The workers of one run, as launch.py starts them."""
    addresses = [f"localhost:{port}" for port in free_ports(count)]
    clusters = [{"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}} for i in range(count)]
    return [
        start(model_dir, images, {"TF_CONFIG": json.dumps(cluster)}, strategy="multi_worker", **CHANGES)
        for cluster in clusters
    ]


@pytest.mark.slow
def test_two_workers_equal_one_process_even_when_one_of_them_was_lost(images, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    alone = start(one, images, **CHANGES)
    chief, worker = start_workers(two, images)
    wait_for_step(chief, two, 2)
    worker.send_signal(signal.SIGKILL)
    finish(worker)
    status, said = finish(chief)
    assert status == 2 and "A worker stopped answering" in said and "start run.py again on all" in said, said
    assert newest_step(two) < 4

    for process in (alone, *start_workers(two, images)):
        status, said = finish(process)
        assert status == 0, said
    assert len(list(two.glob("events.*"))) > 0 and newest_step(two) == 4
    lines, expected = ([json.loads(line) for line in (folder / "metrics.jsonl").open()] for folder in (two, one))
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line, expected_line in zip(lines, expected, strict=True):
        np.testing.assert_allclose(list(line.values()), list(expected_line.values()), rtol=2e-4)
    found, expected = (variables(list_checkpoints(folder)[4]) for folder in (two, one))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=2e-5, err_msg=name)


@pytest.mark.slow
def test_the_launcher_passes_a_signal_on_and_all_workers_stop_at_one_step(images, tmp_path):
    arguments = [f"--set={name}={value}" for name, value in (SETTINGS | {"train.steps": 1000}).items()]
    command = [sys.executable, "launch.py", "2", f"--data_dir={images}", f"--model_dir={tmp_path}", *arguments]
    process = subprocess.Popen(
        [*command, "--strategy=multi_worker"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_for_step(process, tmp_path, 2)
    process.send_signal(signal.SIGTERM)
    status, said = finish(process)
    assert status == 143, said
    assert said.count(f"stopped by SIGTERM after step {newest_step(tmp_path)}, which is saved") == 2
    assert newest_step(tmp_path) % SETTINGS["train.log_every_steps"] == 0  # where they tell each other


def test_a_missing_worker_is_named():
    port, closed = free_ports(2)
    message = rf"do not answer after 0 s: localhost:{closed}\. Start run.py on all of them"
    with pytest.raises(ConnectionError, match=message):
        distribute.wait_for_workers([f"localhost:{port}", f"localhost:{closed}"], 0, timeout_seconds=0.1)


def test_all_leave_together_once_the_last_has_come_even_if_one_has_come_twice():
    addresses = [f"localhost:{port}" for port in free_ports(3)]
    port = int(addresses[0].rpartition(":")[2])
    with futures.ThreadPoolExecutor() as pool:
        chief = pool.submit(distribute.wait_for_workers, addresses, 0)
        for greeting in (b"tf_simclr worker 1 waits\n", b"PRI * HTTP/2.0"):  # One that has died, and TensorFlow's.
            while True:
                try:
                    with socket.create_connection(("localhost", port)) as other:
                        other.sendall(greeting)
                    break
                except ConnectionRefusedError:  # The chief does not listen yet.
                    continue
        first = pool.submit(distribute.wait_for_workers, addresses, 1)
        with pytest.raises(futures.TimeoutError):
            first.result(timeout=1)
        assert not chief.done()
        last = pool.submit(distribute.wait_for_workers, addresses, 2)
        assert [each.result() for each in (chief, first, last)] == [None, None, None]


def test_a_worker_does_not_join_others_that_train_without_it():
    address = f"localhost:{free_ports(1)[0]}"
    server = grpc.server(futures.ThreadPoolExecutor())
    server.add_insecure_port(address)
    server.start()
    with pytest.raises(ConnectionError, match=f"do not answer after 1 s: {address}"):
        distribute.wait_for_workers([address, "localhost:1"], 1, timeout_seconds=1)
    server.stop(0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"cluster": {}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_cluster_that_is_not_described_is_explained(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="reads the workers from the environment variable TF_CONFIG, such as"):
        distribute.make_strategy("multi_worker")


def test_the_chief_comes_first(monkeypatch):
    cluster = {"chief": ["c:1"], "worker": ["w:1", "w:2"]}
    seen = []
    monkeypatch.setattr(strategy, "wait_for_workers", lambda *arguments: seen.append(arguments))
    monkeypatch.setattr(strategy.tf.distribute, "MultiWorkerMirroredStrategy", lambda: None)
    for task in ({"type": "chief", "index": 0}, {"type": "worker", "index": 1}):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
        distribute.make_strategy("multi_worker")
    assert seen == [(["c:1", "w:1", "w:2"], 0), (["c:1", "w:1", "w:2"], 2)]


def test_a_missing_tpu_is_explained():
    with pytest.raises(ValueError, match="strategy=tpu finds no TPU .*name it with --tpu_name"):
        distribute.make_strategy("tpu")

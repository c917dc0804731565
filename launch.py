"""Starts several workers of one run on this machine, to try out a run meant for several machines.

python launch.py 2 --strategy=multi_worker --mode=train --model_dir=runs/workers

The first argument is the number of workers; the rest go to run.py. A signal goes to all workers. The exit status is
the first one that is not 0.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import types

MAX_WORKERS = 100


def free_ports(count: int) -> list[int]:
    """Returns free ports of this machine."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def main(arguments: list[str]) -> int:
    """Starts the workers and waits for them."""
    if not arguments or not arguments[0].isdecimal() or not 1 <= int(arguments[0]) <= MAX_WORKERS:
        print(
            f"launch.py: the first argument must be a number of workers, from 1 to {MAX_WORKERS}. "
            f"Received: {arguments[0] if arguments else 'none'}",
            file=sys.stderr,
        )
        return 2
    addresses = [f"localhost:{port}" for port in free_ports(int(arguments[0]))]
    command = [sys.executable, str(pathlib.Path(__file__).resolve().parent / "run.py"), *arguments[1:]]
    workers = []
    for index in range(len(addresses)):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        workers.append(subprocess.Popen(command, env={**os.environ, "TF_CONFIG": json.dumps(task)}))

    def pass_on(number: int, _: types.FrameType | None) -> None:
        for worker in workers:
            worker.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, lambda number, frame: None)  # A terminal also sends it to the workers.
    codes = [worker.wait() for worker in workers]
    return next((code if code > 0 else 128 - code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

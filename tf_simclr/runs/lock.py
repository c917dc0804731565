"""Reserves a run's folder for one process."""

import contextlib
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator

from absl import logging


@contextlib.contextmanager
def hold(folder: pathlib.Path) -> Iterator[None]:
    """Keeps other processes out of a folder while the context lasts.

    The lock is the kernel's, on the file `.lock`. It ends with the process, so a killed run blocks no later one. If
    the file system has no locks, the log says so.

    Args:
      folder: An existing folder.

    Raises:
      OSError: If the folder cannot be written.
      ValueError: If another process holds it; the error names the process and its machine.
    """
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"{folder} is in use by {file.read() or 'another process'}: stop that run, wait for it, or choose "
                "another --model_dir"
            ) from None
        except OSError as error:
            logging.warning("Nothing keeps a second run out of %s: its file system has no locks (%s)", folder, error)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield

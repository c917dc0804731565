"""Signals that ask a run to stop: it finishes the step, saves, and stops."""

import contextlib
import os
import signal
import threading
import types
from collections.abc import Iterator
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """A signal has stopped the run; its state is saved."""

    def __init__(self, signal_number: int, step: int):
        """Makes the exception; `step` is the step that was saved."""
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name} after step {step}, which is saved; "
            "the same command continues from there"
        )
        self.exit_code = 128 + signal_number  # the convention of shells


class StopRequest:
    """The signal that asked the run to stop; false until one arrives."""

    def __init__(self) -> None:
        """Makes a request without a signal."""
        self.signal_number = 0

    def __bool__(self) -> bool:
        return self.signal_number != 0


@contextlib.contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Turns the first signal into a request to stop; the second one acts as usual.

    A signal that is ignored, as SIGINT is in a script's background job, stays ignored.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # Python delivers signals only to the main thread.
        yield request
        return

    def handle(number: int, frame: types.FrameType | None) -> None:
        if request:
            signal.signal(number, before[number])
            os.kill(os.getpid(), number)
        else:
            request.signal_number = number

    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before: dict[int, Any] = {number: signal.signal(number, handle) for number in heard}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

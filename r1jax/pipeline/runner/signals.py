"""Stopping: the first SIGINT or SIGTERM asks, the second SIGINT ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator


class StopFlag:
    """``flag()`` is true once the run was asked to stop; ``signal`` names what asked."""

    def __init__(self):
        self.signal: str | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    def _handle(self, number: int, frame: object) -> None:
        name = signal.Signals(number).name
        if self.signal is not None and number == signal.SIGINT:
            # What is on disk is whole at any instant, so dying here loses the unfinished wave and nothing else.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = self.signal or name
        # os.write, since a handler may interrupt a print that holds the lock of sys.stderr.
        with contextlib.suppress(OSError, ValueError):
            os.write(sys.__stderr__.fileno(), f"\n{name}: stopping after saving; Ctrl-C again ends at once\n".encode())


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Turns SIGINT and SIGTERM into a flag while inside; the former handlers come back afterwards.

    Only the main thread may set handlers; elsewhere (a notebook's worker) the flag is simply never set.
    """
    flag = StopFlag()
    former = {}
    with contextlib.suppress(ValueError):
        for number in (signal.SIGINT, signal.SIGTERM):
            former[number] = signal.signal(number, flag._handle)
    try:
        yield flag
    finally:
        for number, handler in former.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

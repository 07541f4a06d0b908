"""Stopping: the first SIGINT, SIGTERM or SIGHUP asks, a SIGINT after it ends the process at once.

Python calls a handler between two of its own instructions only, in the main thread: not while XLA compiles, which may take
minutes, and two signals that come meanwhile are one call. So a thread reads the numbers of signals as they come: it is what
answers the user, and what ends the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

# SIGHUP: the terminal or the ssh connection has gone.
STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SHOW_CURSOR = b"\x1b[?25h"


class StopFlag:
    """``flag()`` is true once the run was asked to stop; ``signal`` names what asked."""

    def __init__(self):
        self.signal: str | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    def _handle(self, number: int, frame: object) -> None:
        self.signal = self.signal or signal.Signals(number).name


def _tell(text: bytes) -> None:
    """Writes to standard error past Python's own, whose lock the main thread may hold."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or not a file
        os.write(sys.__stderr__.fileno(), text)


def _end_now() -> None:
    """Ends the process as an unhandled SIGINT does. What is on disk is whole at any instant: the unfinished wave is lost, nothing
    else."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if os.isatty(sys.__stderr__.fileno()):
            _tell(SHOW_CURSOR)  # a progress line hides it
    _tell(b"\nSIGINT again: ended without saving; the same command goes on from what is recorded\n")
    with contextlib.suppress(OSError, AttributeError, ImportError):
        import ctypes

        ctypes.CDLL(None).signal(signal.SIGINT, 0)  # SIG_DFL; Python lets its main thread alone set handlers
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(128 + signal.SIGINT)


def _watch(numbers: int) -> None:
    """Answers each signal whose number comes from the pipe, until it ends."""
    asked = False
    while found := os.read(numbers, 1):
        number = found[0]
        if number not in STOPPING:
            continue
        if asked and number == signal.SIGINT:
            _end_now()
        if not asked:
            _tell(f"\n{signal.Signals(number).name}: stopping after saving; Ctrl-C again ends at once\n".encode())
        asked = True


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Has a thread watch for signals that Python handles, while inside. Main thread only."""
    numbers, written = os.pipe()
    os.set_blocking(written, False)
    former = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(numbers,), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        os.close(written)  # the thread reads the pipe's end
        thread.join()
        os.close(numbers)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Turns SIGINT, SIGTERM and SIGHUP into a flag while inside; the former handlers come back afterwards.

    Only the main thread may set handlers; elsewhere (a notebook's worker) the flag is simply never set. A SIGHUP that is ignored
    (``nohup``) stays so.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    former = {}
    try:
        for number in STOPPING:
            ignored = signal.getsignal(number) is signal.SIG_IGN
            if not (ignored and signal.Signals(number).name == "SIGHUP"):
                former[number] = signal.signal(number, flag._handle)
        with _watched():  # inside of the handlers: what it answers is a flag, never a KeyboardInterrupt
            yield flag
    finally:
        for number, handler in former.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

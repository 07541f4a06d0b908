"""The caller's side of the sandbox: starts programs behind walls, collects what they write, ends them in time.

A sandbox is a keeper process that serves one run after another; ``borrow`` lends one and keeps it for the next caller.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from r1jax.rewards.code.limits import Limits
from r1jax.rewards.code.walls import PROGRAM_USER, TESTS_USER, Outer, SandboxUnavailable, raise_walls

ENVIRONMENT_NAME = "R1JAX_CODE_SANDBOX"
CHOICES = ("auto", "bubblewrap", "namespaces", "none")
IDLE = 4  # sandboxes kept for later callers
KILL_SECONDS = 10.0
TRIAL_SECONDS = 20.0
WALL_SECONDS = 20.0  # for the walls of a run, which take milliseconds where the machine is not busy
SETTLE_SECONDS = 0.5  # for a program whose tests are over to end by itself, and so to say how
REPORT_BYTES = 1 << 20


class SandboxFailed(RuntimeError):
    """The sandbox itself failed during a run, which therefore says nothing about the program."""


@dataclasses.dataclass(frozen=True)
class Program:
    """One process to start.

    Attributes:
      kind: ``script``, ``functions`` or ``tests`` (``inside.program``), or ``execute`` (``command``).
      inputs: what it may read, by role (``source``, ``stdin``, ``program``): sealed, so that it can't be changed.
      pipes: descriptors that it gets, by role; the caller's own are closed once the run has begun.
      command: arguments of ``execute``; its first is a path unless ``inputs`` hold the ``program``.
      artefact: a file that it leaves in its scratch and that comes back.
    """

    kind: str
    inputs: Mapping[str, bytes]
    pipes: dict[str, int] = dataclasses.field(default_factory=dict)
    command: Sequence[str] = ()
    artefact: str | None = None


@dataclasses.dataclass
class Ending:
    """How a run ended.

    Attributes:
      started: every wall was up before the program began; otherwise ``trouble`` says what was not.
      exit_code: its exit status, a signal's number negated; None if it was ended from outside, then ``cause`` is why:
        ``wall``, ``cpu``, ``memory``, ``processes``, ``output``; ``starved``: the clock ran out while it waited for a core;
        or ``unneeded``: another run had decided.
      cpu_seconds: of all its processes, where it ended by itself.
      outputs: what it wrote, by role (``stdout``, ``stderr``, ``report``, ``artefact``).
    """

    started: bool = False
    trouble: str = ""
    exit_code: int | None = None
    cause: str = ""
    cpu_seconds: float = 0.0
    outputs: dict[str, bytes] = dataclasses.field(default_factory=dict)


def sealed(data: bytes) -> int:
    """A descriptor of a file in memory that holds ``data`` and that nobody can change any more."""
    fd = os.memfd_create("input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return fd


class _Run:
    """One program while it runs: its number, the pipes that come from it, what they gave so far."""

    def __init__(self, number: int, program: Program, limits: Limits):
        self.number, self.program, self.limits = number, program, limits
        self.ending = Ending()
        self.unread: dict[int, str] = {}
        self.received: dict[str, bytearray] = {"status": bytearray()}
        self.artefact = -1
        self.over = False

    def room(self, role: str) -> int:
        return {"status": 4096, "report": REPORT_BYTES}.get(role, self.limits.output_bytes) - len(self.received[role])

    def finish(self) -> None:
        status = self.received.pop("status").decode(errors="replace")
        self.ending.started = status.startswith("R")
        rest = status.removeprefix("R")
        if rest and rest[0] != "E":
            code, microseconds = rest.split()
            self.ending.exit_code, self.ending.cpu_seconds = int(code), int(microseconds) / 1e6
        if not self.ending.started or rest.startswith("E"):
            self.ending.started = False
            self.ending.trouble = rest[1:] or "it ended before it began"
        self.ending.outputs |= {role: bytes(data) for role, data in self.received.items()}


class Sandbox:
    """A keeper behind the outer walls of ``kind`` (``walls.KINDS``). Not for two threads at once.

    Raises:
      SandboxUnavailable: this machine can't have such walls.
    """

    def __init__(self, kind: str):
        self._outer: Outer = raise_walls(kind)
        self.kind = kind
        self.owner = os.getpid()
        self.broken = False
        self._number = 0

    def run(self, programs: Sequence[Program], limits: Limits, seconds: float) -> list[Ending]:
        """Runs programs beside each other until the last in the list ends, one passes a limit, or ``seconds`` are over
        since their start.

        All are ended then. When this returns, no process of theirs is left.

        Raises:
          SandboxFailed: the keeper is gone or does not answer.
        """
        try:
            with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
                selector.register(self._outer.control, selectors.EVENT_READ)
                runs = [self._start(program, limits, selector, stack) for program in programs]
                self._close_pipes(programs)
                self._attend(runs, selector, seconds)
                for run in runs:
                    self._drain(run, selector)
                    run.finish()
                return [run.ending for run in runs]
        except (OSError, ValueError) as error:
            self.broken = True
            raise SandboxFailed(f"the sandbox failed: {error} ({self._outer.trouble()})") from None
        except BaseException:  # interrupted: runs may be under way
            self.broken = True
            raise
        finally:
            self._close_pipes(programs)

    @staticmethod
    def _close_pipes(programs: Sequence[Program]) -> None:
        for program in programs:
            for fd in program.pipes.values():
                os.close(fd)
            program.pipes.clear()

    def alive(self) -> bool:
        """Whether the keeper is still there."""
        return self._outer.process.poll() is None

    def close(self) -> None:
        if self.owner == os.getpid():  # a forked copy leaves the original's keeper alone
            self._outer.close()

    def _start(
        self, program: Program, limits: Limits, selector: selectors.BaseSelector, stack: contextlib.ExitStack
    ) -> _Run:
        self._number += 1
        run = _Run(self._number, program, limits)
        given = dict(program.pipes)
        with contextlib.ExitStack() as passing:
            for role, data in program.inputs.items():
                given[role] = sealed(data)
                passing.callback(os.close, given[role])
            outputs = ["status", "report"] if program.kind == "tests" else ["status", "stdout", "stderr"]
            for role in outputs:
                read, given[role] = os.pipe()
                passing.callback(os.close, given[role])
                stack.callback(self._forget, selector, run, read)
                os.set_blocking(read, False)
                run.unread[read] = role
                run.received[role] = bytearray()
                selector.register(read, selectors.EVENT_READ, run)
            if program.artefact:
                run.artefact = given["artefact"] = os.memfd_create("artefact", os.MFD_CLOEXEC)
                stack.callback(os.close, run.artefact)
            order = {
                "job": run.number,
                "kind": program.kind,
                "command": list(program.command),
                "limits": limits.order(),
                "artefact": program.artefact,
                "scratch": self._outer.scratch,
                "user": (TESTS_USER if program.kind == "tests" else PROGRAM_USER) if self._outer.users else None,
                "fds": list(given),
            }
            socket.send_fds(self._outer.control, [json.dumps(order).encode()], list(given.values()))
        return run

    @staticmethod
    def _forget(selector: selectors.BaseSelector, run: _Run, fd: int) -> None:
        if run.unread.pop(fd, None):
            selector.unregister(fd)
            os.close(fd)

    def _attend(self, runs: list[_Run], selector: selectors.BaseSelector, seconds: float) -> None:
        """Reads and waits until every run is over. The clock starts when the walls of all are up."""
        killed = settling = begun = False
        deadline = time.monotonic() + WALL_SECONDS
        while not all(run.over for run in runs):
            patience = deadline - time.monotonic()
            if patience <= 0:
                if killed:
                    raise OSError(f"it did not end a program within {KILL_SECONDS:g} s")
                self._kill(runs, "unneeded" if settling else "wall")
                killed, deadline = True, time.monotonic() + KILL_SECONDS
                continue
            for event, _ in selector.select(patience):
                if event.data is None:
                    self._hear(runs)
                elif event.fd in event.data.unread:
                    self._read(event.data, event.fd, selector)
            if not begun and all(run.received["status"] for run in runs):
                begun, deadline = True, time.monotonic() + seconds
            if not killed and any(run.ending.cause for run in runs):
                self._kill(runs, "unneeded")
                killed, deadline = True, time.monotonic() + KILL_SECONDS
            elif runs[-1].over and not settling:
                settling, deadline = True, min(deadline, time.monotonic() + SETTLE_SECONDS)

    def _kill(self, runs: list[_Run], cause: str) -> None:
        for run in runs:
            if not run.over:
                run.ending.cause = run.ending.cause or cause
                self._outer.control.send(json.dumps({"kill": run.number, "late": cause == "wall"}).encode())

    def _hear(self, runs: list[_Run]) -> None:
        message = self._outer.control.recv(1 << 12).decode().split()
        if not message:
            raise OSError("its keeper is gone")
        for run in runs:
            if run.number == int(message[1]):
                run.over = True
                cause = message[2] if len(message) > 2 else ""
                run.ending.cause = cause if cause == "starved" else run.ending.cause or cause

    def _read(self, run: _Run, fd: int, selector: selectors.BaseSelector) -> bool:
        """Takes what is there; whether there may be more."""
        role = run.unread[fd]
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self._forget(selector, run, fd)
            return False
        room = run.room(role)
        run.received[role] += data[: max(0, room)]
        if len(data) > room and role != "status":
            run.ending.cause = run.ending.cause or "output"
            self._forget(selector, run, fd)
            return False
        return True

    def _drain(self, run: _Run, selector: selectors.BaseSelector) -> None:
        for fd in list(run.unread):
            while self._read(run, fd, selector):
                pass
        if run.artefact >= 0:
            size = min(os.fstat(run.artefact).st_size, run.limits.file_bytes)
            run.ending.outputs["artefact"] = os.pread(run.artefact, size, 0)


_idle: list[Sandbox] = []
_lock = threading.Lock()


def _trial(sandbox: Sandbox) -> None:
    """Runs nothing, to see that every inner wall can be raised too.

    Raises:
      SandboxUnavailable: it can't.
    """
    try:
        [ending] = sandbox.run([Program("script", {"source": b"print(6 * 7)"})], Limits(), TRIAL_SECONDS)
    except SandboxFailed as error:
        raise SandboxUnavailable(f"{sandbox.kind}: {error}") from None
    if not ending.started or ending.outputs["stdout"] != b"42\n":
        reason = ending.trouble or ending.outputs["stderr"].decode(errors="replace")[-300:]
        raise SandboxUnavailable(f"{sandbox.kind}: {reason}")


def _tried(kind: str) -> Sandbox:
    sandbox = Sandbox(kind)
    try:
        _trial(sandbox)
    except SandboxUnavailable:
        sandbox.close()
        raise
    return sandbox


@functools.cache
def _chosen(path: str, pid: int) -> str:
    """The best walls of this machine; raises SandboxUnavailable without any, so that nothing is remembered."""
    reasons = []
    for kind in ("bubblewrap", "namespaces"):
        try:
            _give_back(_tried(kind))
            return kind
        except SandboxUnavailable as error:
            reasons.append(str(error))
    raise SandboxUnavailable(
        "programs can't be isolated on this machine, so none is run. Tried: "
        + "; ".join(reasons)
        + ". Install bubblewrap and allow user namespaces (in Docker: --security-opt seccomp=unconfined --security-opt apparmor=unconfined), "
        f"or run them without isolation, at your own risk, by sandbox='none' or {ENVIRONMENT_NAME}=none"
    )


def choose(sandbox: str = "auto") -> str:
    """The walls that a request for ``sandbox`` means here: of ``auto``, what the environment says, else the best.

    Raises:
      ValueError: no such choice.
      SandboxUnavailable: nothing here isolates programs.
    """
    name = sandbox
    if sandbox == "auto":
        name = os.environ.get(ENVIRONMENT_NAME) or "auto"
    if name not in CHOICES:
        where = "sandbox" if sandbox != "auto" else ENVIRONMENT_NAME
        raise ValueError(f"{where} must be one of {', '.join(CHOICES)}, not {name!r}")
    return _chosen(os.environ.get("PATH", ""), os.getpid()) if name == "auto" else name


@contextlib.contextmanager
def borrow(kind: str) -> Iterator[Sandbox]:
    """Lends a sandbox with these walls, an idle one if there is any.

    Raises:
      SandboxUnavailable: this machine can't have such walls.
    """
    with _lock:
        own = [sandbox for sandbox in _idle if sandbox.kind == kind and sandbox.owner == os.getpid()]
        sandbox = own[-1] if own else None
        if sandbox is not None:
            _idle.remove(sandbox)
    if sandbox is not None and not sandbox.alive():
        sandbox.close()
        sandbox = None
    sandbox = sandbox or Sandbox(kind)
    try:
        yield sandbox
    finally:
        _give_back(sandbox)


def _give_back(sandbox: Sandbox) -> None:
    with _lock:
        keep = not sandbox.broken and len(_idle) < IDLE
        if keep:
            _idle.append(sandbox)
    if not keep:
        sandbox.close()


@atexit.register
def close_all() -> None:
    """Ends every idle sandbox. The next run starts one anew."""
    with _lock:
        sandboxes, _idle[:] = list(_idle), []
    for sandbox in sandboxes:
        sandbox.close()

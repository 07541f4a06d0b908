"""The reward pool: grading in processes of its own, which may hang, crash and be killed without hurting the run."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import asdict, dataclass

from r1jax.rewards.graders import GRADERS, unknown
from r1jax.rewards.parts import DEFAULTS, PARTS, PartSettings
from r1jax.rewards.record import RewardRecord, RewardRequest, Verdict

MAX_WORKERS = 16
MAX_BATCH = 512
BATCH_SECONDS = 0.02  # of work in one message: long enough to hide its cost, short enough to share work out
PIPE_BYTES = 1 << 20
PAUSE = 0.001  # seconds between two rounds of a busy thread: many records are taken in at once, and the caller gets to run
ATTEMPTS = 2  # a request during which a worker died is tried again by itself: it may have been killed from outside
START_ATTEMPTS = 3
HIDDEN = {  # what a worker's environment says about accelerators and threads
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "HIP_VISIBLE_DEVICES": "",
    "ROCR_VISIBLE_DEVICES": "",
    "TPU_VISIBLE_CHIPS": "",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}


class RewardPoolError(RuntimeError):
    """The workers can't be started: a reward that can't be imported, or no memory for them."""


def _widen(pipe: int) -> None:
    """Lets a pipe hold a whole batch where the system allows it: else a worker waits for the thread's next round."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _import_paths() -> str:
    """Where workers look for modules: where this process does, then where the command was given, which an installed command
    does not search by itself."""
    try:
        here = os.getcwd()
    except OSError:  # the folder is gone
        here = ""
    return os.pathsep.join(dict.fromkeys(filter(None, [*(path or here for path in sys.path), here])))


@dataclass
class _Job:
    number: int
    key: Hashable
    line: bytes
    deaths: int = 0


class _Child:
    """The parent's end of one worker: its process, pipes and the jobs that it has, the first of which it works on."""

    def __init__(self, settings: dict):
        environment = {**os.environ, **HIDDEN, "PYTHONPATH": _import_paths()}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "r1jax.rewards.worker", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
            start_new_session=True,  # its own process group, killed as one
        )
        self.input, self.output = self.process.stdin.fileno(), self.process.stdout.fileno()
        for pipe in (self.input, self.output):
            _widen(pipe)
        os.set_blocking(self.input, False)
        os.set_blocking(self.output, False)
        self.ready = False
        self.alone = False
        self.jobs: deque[_Job] = deque()
        self.unsent = bytearray()
        self.unread = bytearray()
        self.since = time.monotonic()

    def send(self, jobs: list[_Job]) -> None:
        if not self.jobs:
            self.since = time.monotonic()
        self.jobs.extend(jobs)
        self.unsent += b"[" + b",".join(job.line for job in jobs) + b"]\n"

    def flush(self) -> None:
        """Writes what the pipe takes."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # a broken pipe shows as the end of its output
            while self.unsent:
                del self.unsent[: os.write(self.input, self.unsent[: 1 << 16])]

    def lines(self) -> tuple[list[bytes], bool]:
        """(whole lines that have come, whether the worker is still there)."""
        try:
            data = os.read(self.output, 1 << 18)
        except BlockingIOError:
            return [], True
        *lines, rest = (self.unread + data).split(b"\n")
        self.unread = rest
        return lines, bool(data)

    def kill(self) -> int | None:
        """Kills its process group; the exit status that it had."""
        status = self.process.poll()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        self.process.stdin.close()
        self.process.stdout.close()
        return status if status is not None else self.process.returncode


class RewardPool:
    """Grades requests in worker processes (``python -m r1jax.rewards.worker``), while the caller goes on.

    ``submit`` only waits while more than ``queue_bytes`` of requests have not been handed out. A thread hands requests out
    and collects records. A worker that takes longer than ``timeout`` for a request is killed with its process group and
    replaced; that request is ungraded, with the reason. A request during which a worker died is tried once more, by
    itself. All others are graded as if nothing had happened: no record depends on the order of arrival, none is lost or
    doubled. Processes start with the first request, as many as there is work for.

    Args:
      parts: names of the reward parts (``parts.PARTS`` or ``package.module:function``); a mapping's keys will do.
      default_grader: for rows that name none.
      workers: processes; 0 means one per core, at most 16.
      timeout: wall-clock seconds for one request.
      memory: bytes of address space of a worker; 0: no limit. One that holds half of it after a request is replaced.
      settings: what the parts can be told.
      start_timeout: seconds that a worker may take to import what it grades with.
      queue_bytes: of waiting requests, above which ``submit`` waits.

    Raises:
      ValueError: an unknown name, or a count, time or size that makes no sense.
      RewardPoolError: from any later call, when the workers can't start (a user's reward that can't be imported).
    """

    def __init__(
        self,
        parts: Iterable[str],
        default_grader: str = "verify_math",
        workers: int = 0,
        timeout: float = 10.0,
        memory: int = 4 << 30,
        settings: PartSettings = DEFAULTS,
        start_timeout: float = 120.0,
        queue_bytes: int = 1 << 29,
    ):
        self.parts = tuple(parts)
        for name in self.parts:
            if name not in PARTS and ":" not in name:
                raise unknown("reward", name, PARTS)
        if default_grader not in GRADERS and ":" not in default_grader:
            raise unknown("grader", default_grader, GRADERS)
        if workers < 0 or timeout <= 0:
            raise ValueError(f"a reward pool of {workers} workers with {timeout} seconds a request: both must be positive")
        if memory < 0 or queue_bytes <= 0:
            raise ValueError(f"a reward pool with memory {memory} and queue_bytes {queue_bytes}: both must be positive")
        self.workers = workers or min(os.cpu_count() or 1, MAX_WORKERS)
        self.timeout, self.start_timeout = timeout, start_timeout
        self._settings = {
            "parts": self.parts,
            "default_grader": default_grader,
            "part_settings": asdict(settings),
            "memory": memory,
            "parent": os.getpid(),
        }
        self._queue_bytes = queue_bytes
        self._lock = threading.Condition()
        self._queue: deque[_Job] = deque()
        self._waiting_bytes = 0  # of the queue
        self._asleep = False  # whether the thread must be woken for new work
        self._finished: list[tuple[int, Hashable, RewardRecord]] = []
        self._outstanding = 0
        self._submitted = 0
        self._failure: RewardPoolError | None = None
        self._closing = False
        self._thread: threading.Thread | None = None
        # The thread's own.
        self._children: list[_Child] = []
        self._cost = 0.005  # seconds a request, a running mean
        self._failed_starts = 0
        self._selector: selectors.BaseSelector | None = None

    # ------------------------------------------------------------------------------------------ the caller's side
    def check(self) -> None:
        """Tries the names in a fresh worker and waits for it: the caller's process never imports a user's module.

        Raises:
          RewardPoolError: one of them can't be imported; the worker's own line says why.
        """
        child, limit = _Child(self._settings), time.monotonic() + self.start_timeout
        lines: list[bytes] = []
        alive = True
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(child.output, selectors.EVENT_READ)
                while alive and not lines and selector.select(max(0.0, limit - time.monotonic())):
                    lines, alive = child.lines()
        finally:
            status = child.kill()
        if not lines:
            how = f"did not start within {self.start_timeout:g} s" if alive else f"died at its start (status {status})"
            raise RewardPoolError(f"a reward worker {how}")
        if "error" in (message := json.loads(lines[0])):
            raise RewardPoolError(message["error"])

    def submit(self, key: Hashable, request: RewardRequest) -> None:
        """Queues a request and returns, at once unless the queue is full. ``key`` comes back with its record.

        Raises:
          ValueError: the request holds what is not plain data.
        """
        fields = {
            "row": dict(request.row),
            "prompt": request.prompt,
            "completion": request.completion,
            "tokens": int(request.tokens),
            "finish_reason": request.finish_reason,
            "extra": dict(request.extra),
            "max_tokens": int(request.max_tokens),
        }
        try:
            body = json.dumps(fields).encode()
        except (TypeError, ValueError) as error:
            raise ValueError(f"request {key!r} must hold plain data (text, numbers, lists, mappings): {error}") from None
        with self._lock:
            self._check()
            while self._waiting_bytes > self._queue_bytes:
                self._lock.wait()
                self._check()
            job = _Job(self._submitted, key, b"[%d,%b]" % (self._submitted, body))
            self._submitted += 1
            self._outstanding += 1
            self._queue.append(job)
            self._waiting_bytes += len(job.line)
            asleep, self._asleep = self._asleep, False
            if self._thread is None:
                self._wake_read, self._wake_write = os.pipe()
                os.set_blocking(self._wake_write, False)
                os.set_blocking(self._wake_read, False)
                self._thread = threading.Thread(target=self._run, name="reward pool", daemon=True)
                self._thread.start()
            if asleep:  # still under the lock: ``close`` takes the pipe away
                self._wake()

    def poll(self) -> list[tuple[Hashable, RewardRecord]]:
        """The (key, record) pairs that finished since the last call, in the order of their finishing; never waits."""
        with self._lock:
            self._check()
            finished, self._finished = self._finished, []
        return [(key, record) for _, key, record in finished]

    def drain(self) -> list[tuple[Hashable, RewardRecord]]:
        """Waits until every request is graded; the pairs that ``poll`` has not given, in the order of submission."""
        with self._lock:
            while self._outstanding and self._failure is None and not self._closing:
                self._lock.wait()
            self._check()
            finished, self._finished = self._finished, []
        return [(key, record) for _, key, record in sorted(finished, key=lambda item: item[0])]

    @property
    def outstanding(self) -> int:
        """Requests that are not graded yet."""
        with self._lock:
            return self._outstanding

    def close(self) -> None:
        """Kills the workers; what is not graded yet never will be."""
        with self._lock:
            self._closing = True
            thread, self._thread = self._thread, None
            self._lock.notify_all()
        if thread is not None:
            self._wake()
            thread.join()
            os.close(self._wake_write)
            os.close(self._wake_read)

    def __enter__(self) -> RewardPool:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closing:
            raise RewardPoolError("the reward pool is closed")

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it is awake
            os.write(self._wake_write, b".")

    # ------------------------------------------------------------------------------------------ the thread's side
    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as self._selector:
                self._selector.register(self._wake_read, selectors.EVENT_READ)
                while not self._closing and self._failure is None:
                    self._asleep = True  # before the queue is looked at: what comes after that wakes
                    self._hand_out()
                    events = self._selector.select(self._patience())
                    self._asleep = False
                    for event, _ in events:
                        if event.data is None:
                            os.read(self._wake_read, 1 << 12)
                        elif event.fd == event.data.output and event.data in self._children:
                            self._collect(event.data)
                    self._end_overdue()
                    if events and self._outstanding:
                        time.sleep(PAUSE)
        except BaseException as error:
            self._fail(f"the reward pool's thread died: {type(error).__name__}: {error}")
            raise
        finally:
            for child in self._children:
                child.kill()
            self._children.clear()

    def _fail(self, reason: str) -> None:
        with self._lock:
            self._failure = self._failure or RewardPoolError(reason)
            self._lock.notify_all()

    def _finish(self, job: _Job, record: RewardRecord) -> None:
        with self._lock:
            self._finished.append((job.number, job.key, record))
            self._outstanding -= 1
            if not self._outstanding:
                self._lock.notify_all()

    def _ungraded(self, job: _Job, reason: str) -> None:
        self._finish(job, RewardRecord(dict.fromkeys(self.parts), Verdict.UNGRADED, reason))

    def _hand_out(self) -> None:
        """Starts the workers that there is work for and gives each what it can do in a moment."""
        with self._lock:
            waiting, outstanding = len(self._queue), self._outstanding
        while waiting and len(self._children) < min(self.workers, outstanding):
            child = _Child(self._settings)
            self._children.append(child)
            self._selector.register(child.output, selectors.EVENT_READ, child)
        size = max(1, min(MAX_BATCH, int(BATCH_SECONDS / self._cost), waiting // max(1, len(self._children))))
        for child in sorted(self._children, key=lambda c: len(c.jobs)):
            if child.ready and not child.alone and len(child.jobs) <= size // 2:
                with self._lock:
                    jobs = self._take(size, idle=not child.jobs)
                if jobs:
                    child.alone = jobs[0].deaths > 0
                    child.send(jobs)
            child.flush()
            self._watch_input(child)

    def _take(self, size: int, idle: bool) -> list[_Job]:
        """The next jobs for one worker. One during which a worker died goes by itself, to an idle worker."""
        jobs: list[_Job] = []
        while self._queue and len(jobs) < size:
            if self._queue[0].deaths and (jobs or not idle):
                break
            jobs.append(self._queue.popleft())
            if jobs[0].deaths:
                break
        if jobs:
            full = self._waiting_bytes > self._queue_bytes
            self._waiting_bytes -= sum(len(job.line) for job in jobs)
            if full:
                self._lock.notify_all()
        return jobs

    def _watch_input(self, child: _Child) -> None:
        """Wakes up for the worker's input while there is something that its pipe did not take."""
        watched = child.input in self._selector.get_map()
        if child.unsent and not watched:
            self._selector.register(child.input, selectors.EVENT_WRITE, child)
        elif watched and not child.unsent:
            self._selector.unregister(child.input)

    def _limit(self, child: _Child) -> float | None:
        """When the worker is overdue (``time.monotonic``), or None while it has nothing to do."""
        if not child.ready:
            return child.since + self.start_timeout
        return child.since + self.timeout if child.jobs else None

    def _patience(self) -> float | None:
        limits = [limit for child in self._children if (limit := self._limit(child)) is not None]
        return max(0.0, min(limits) - time.monotonic()) if limits else None

    def _collect(self, child: _Child) -> None:
        lines, alive = child.lines()
        for line in lines:
            if not self._accept(child, line):
                return
        if not alive:
            self._replace(child, None)

    def _accept(self, child: _Child, line: bytes) -> bool:
        """Takes in one line of a worker; whether the worker may go on."""
        now = time.monotonic()
        try:
            message = json.loads(line)
            if isinstance(message, dict) and message.keys() & {"ready", "error", "full"}:
                number, record = None, None
            else:
                number, record = message[0], RewardRecord.from_json(message[1])
        except (ValueError, TypeError, LookupError):
            number, record, message = -1, None, None
        if number is None:
            if "error" in message:
                self._fail(message["error"])
                return False
            if "full" in message:  # it ends itself between two requests, and owes nothing
                self._replace(child, None, blame=False)
                return False
            child.ready, self._failed_starts = True, 0
        elif not child.jobs or number != child.jobs[0].number:  # not what was asked: it can't be trusted any more
            self._replace(child, None)
            return False
        else:
            job = child.jobs.popleft()
            self._cost += 0.05 * (now - child.since - self._cost)
            child.alone = False
            self._finish(job, record)
        child.since = now
        return True

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for child in list(self._children):
            limit = self._limit(child)
            if limit is not None and now >= limit:
                self._replace(child, f"took longer than {self.timeout:g} s")

    def _replace(self, child: _Child, overdue: str | None, blame: bool = True) -> None:
        """Kills a worker that is overdue, dead or full. The request it was at, if it is to blame, is ungraded or tried
        again; the rest go back."""
        self._children.remove(child)
        for fd in (child.input, child.output):
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
        status = child.kill()
        if not child.ready:
            self._failed_starts += 1
            if overdue or self._failed_starts >= START_ATTEMPTS:
                how = f"did not start within {self.start_timeout:g} s" if overdue else f"died at its start (status {status})"
                self._fail(f"a reward worker {how}")
        elif child.jobs and blame:
            job = child.jobs.popleft()
            job.deaths += 1
            if overdue:
                self._ungraded(job, f"grading {overdue}")
            elif job.deaths >= ATTEMPTS:
                self._ungraded(job, f"grading killed its process (status {status})")
            else:
                child.jobs.appendleft(job)
        with self._lock:
            self._queue.extendleft(reversed(child.jobs))
            self._waiting_bytes += sum(len(job.line) for job in child.jobs)

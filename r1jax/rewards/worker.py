"""A grading process: ``python -m r1jax.rewards.worker SETTINGS``. Started and killed by ``pool.RewardPool``.

It reads JSON lines, each a batch ``[[number, request], ...]``, and answers each request with a line ``[number, record]``
as soon as it is graded; ``{"full": true}`` says that it has come to hold too much memory and ends. Both go over private copies of its standard input and output; what graders print goes to
standard error, so it can't be taken for a verdict. It never loads jax.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from typing import Any

from r1jax.rewards.graders import grader
from r1jax.rewards.parts import PartSettings, grade, part
from r1jax.rewards.record import RewardRecord, RewardRequest, Verdict, as_failure

MAX_REASON = 500
LOOK_EVERY = 0.005  # seconds: a process does not fill gigabytes in less


def _die_with_parent(parent: int) -> None:
    """Asks Linux to kill this process when the one that started it dies, however it dies."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError, ImportError):
        return  # elsewhere the end of its input ends it, once the request at hand is done
    if os.getppid() != parent:
        os._exit(1)


def _limit(memory: int) -> None:
    """Bounds the address space, so that a grader's hunger is a MemoryError here; no core files."""
    try:
        import resource

        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        return  # a platform without such limits


class _Memory:
    """How many bytes this process holds; 0 where the system does not say."""

    def __init__(self):
        try:
            self._file = os.open("/proc/self/statm", os.O_RDONLY)
        except OSError:
            self._file = -1
        self._looked = time.monotonic()

    def due(self) -> bool:
        """Whether the last look was long enough ago for a grader to have filled much; looking is not free."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY:
            return False
        self._looked = now
        return True

    def held(self) -> int:
        try:
            return int(os.pread(self._file, 64, 0).split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):  # no such file, or a grader closed it
            return 0


def _private_channels() -> tuple[io.BufferedReader, int]:
    """(requests, fd of replies); standard input is then empty and standard output is standard error."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb", buffering=1 << 16), replies


def _send(replies: int, message: Any) -> None:
    data = memoryview(json.dumps(message).encode() + b"\n")
    while data:
        data = data[os.write(replies, data) :]


def _grade(request: dict[str, Any], parts: list[str], default_grader: str, settings: PartSettings) -> RewardRecord:
    try:
        record = grade(RewardRequest(**request), parts, default_grader, settings)
    except BaseException as error:  # SystemExit, or a timeout that derives from BaseException
        reason = as_failure(f"{type(error).__name__}: {error}")
        record = RewardRecord(dict.fromkeys(parts), Verdict.UNGRADED, reason)
    return RewardRecord(record.parts, record.verdict, record.reason[:MAX_REASON])


def main(settings: str) -> None:
    requests, replies = _private_channels()
    options = json.loads(settings)
    parts, default_grader, memory = options["parts"], options["default_grader"], options["memory"]
    part_settings = PartSettings(**options["part_settings"])
    _die_with_parent(options["parent"])
    _limit(memory)
    try:
        for name in parts:
            part(name)
        grader(default_grader)
    except BaseException as error:  # importing a user's module may do anything
        _send(replies, {"error": str(error) or type(error).__name__})
        return
    _send(replies, {"ready": True})
    watch = _Memory()
    for line in requests:
        for number, request in json.loads(line):
            _send(replies, [number, _grade(request, parts, default_grader, part_settings).to_json()])
            if (
                memory and watch.due() and watch.held() > memory // 2
            ):  # a grader that leaks would sooner or later fail every request
                _send(replies, {"full": True})
                return


if __name__ == "__main__":
    main(sys.argv[1])

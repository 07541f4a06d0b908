"""The sandbox's keeper: a small trusted process inside the outer walls that puts each program behind walls of its own.

For every job it forks a first process into a new PID, mount and IPC namespace (no execve, so a run costs milliseconds).
That process mounts a fresh scratch and a private /proc, forks the program's process, which gives up user, capabilities
and limits before it runs anything, and waits. When it ends, the kernel kills every process of its namespace.

The keeper reads no program, test or output: these pass through it as file descriptors only, so nothing of one job can be
found in the memory of another.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import socket
import stat
import sys
import time
from typing import Any

from . import linux, program, system_calls

TICK = 0.05  # seconds between looks at what running jobs use
MESSAGE_BYTES = 1 << 14
MAX_FDS = 16
SCRATCH = "/tmp"
PRELOADED = (
    "bisect collections collections.abc copy dataclasses datetime decimal fractions functools heapq itertools json "
    "math operator random re statistics string threading traceback typing"
).split()


class Job:
    """One run as the keeper sees it. ``fds`` maps a role (``source``, ``stdin``, ``status``, ...) to a descriptor."""

    def __init__(self, order: dict[str, Any], fds: list[int]):
        self.number: int = order["job"]
        self.kind: str = order["kind"]
        self.command: list[str] = order.get("command", [])
        self.user: int | None = order.get("user")
        self.limits: dict[str, int] = order["limits"]
        self.scratch: str | None = order.get("scratch")
        self.artefact: str | None = order.get("artefact")
        self.fds = dict(zip(order["fds"], fds))
        self.pid = 0
        self.cause = ""
        self.since = time.monotonic()


def say(control: socket.socket, *words: object) -> None:
    control.send(" ".join(map(str, words)).encode())


# ---------------------------------------------------------------------------------------------------- a job's own side
def _set_limits(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        hard = resource.getrlimit(kind)[1]
        ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # Past the soft limit a program gets SIGXCPU, which says why it died; past the hard one SIGKILL.
        grace = 1 if name == "RLIMIT_CPU" and (hard == resource.RLIM_INFINITY or ceiling < hard) else 0
        resource.setrlimit(kind, (ceiling, ceiling + grace))


def _give_up_everything(job: Job, filter_program: bytes) -> None:
    linux.bound_capabilities()
    if job.user is not None:
        os.setgroups([])
        os.setresgid(job.user, job.user, job.user)
        os.setresuid(job.user, job.user, job.user)
    linux.drop_capabilities()
    linux.set_dumpable(True)  # a change of user clears it, and with it the use of its own /proc/self
    _set_limits(job.limits)
    linux.install_filter(filter_program)


def _take_descriptors(fds: dict[str, int]) -> dict[str, int]:
    """Puts standard input, output and error in place and closes all that is not the job's; where the rest now is."""
    nothing = os.open(os.devnull, os.O_RDWR)
    # First out of the way, so that no dup2 below lands on one that is still to be moved.
    moved = {name: os.dup(fd) for name, fd in fds.items()}
    low = 100
    for name in list(moved):
        os.dup2(moved[name], low)
        moved[name] = low
        low += 1
    for target, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(moved.pop(name, nothing), target)
    os.closerange(3, 100)
    kept = {}
    for target, name in enumerate(sorted(moved), start=3):
        os.dup2(moved[name], target)
        kept[name] = target
    os.closerange(3 + len(kept), 1 << 16)
    return kept


def _program(job: Job, filter_program: bytes) -> None:
    """The program's process, behind every wall."""
    status = -1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        os.umask(0o022)
        fds = _take_descriptors({name: fd for name, fd in job.fds.items() if name != "artefact"})
        status = fds.pop("status")
        _give_up_everything(job, filter_program)
        os.write(status, b"R")
        os.close(status)
    except BaseException as error:
        if status >= 0:
            os.write(status, f"E{type(error).__name__}: {error}".encode())
        os._exit(1)
    if job.kind == "execute":
        for fd in fds.values():
            os.set_inheritable(fd, False)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # which Python ignores, and execve would keep so
        try:
            os.execve(fds.get("program", job.command[0]), job.command, dict(os.environ))
        except (OSError, MemoryError) as error:
            os.write(2, str(error).encode())
            os._exit(127)
    program.run(job.kind, fds)


def _first_process(job: Job, filter_program: bytes, isolated: bool) -> None:
    """The first process of a job's namespaces; its children are the program's process and its orphans."""
    status = job.fds["status"]
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        linux.die_with_parent()
        if isolated:
            _own_mounts(job)
        else:
            os.setsid()
            linux.adopt_orphans()
            os.environ["HOME"] = os.environ["TMPDIR"] = str(job.scratch)
        os.chdir(SCRATCH if isolated else str(job.scratch))
        linux.set_dumpable(False)  # before there is a process that could look into this one
        pid = os.fork()
        if pid == 0:
            try:
                _program(job, filter_program)
            finally:
                os._exit(1)
        if isolated:
            linux.bound_capabilities()
            linux.drop_capabilities()
        keep = {status, job.fds.get("artefact", status)}
        for name, fd in job.fds.items():
            if fd not in keep and name != "status":
                os.close(fd)
        for fd in (0, 1, 2):
            os.close(fd)
        while True:
            child, how = os.waitpid(-1, 0)
            if child == pid:
                break
        if job.artefact and how == 0:
            _copy_artefact(job.artefact, job.fds["artefact"], job.limits["RLIMIT_FSIZE"])
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        os.write(status, b"%d %d" % (os.waitstatus_to_exitcode(how), (used.ru_utime + used.ru_stime) * 1e6))
    except BaseException as error:
        os.write(status, f"E{type(error).__name__}: {error}".encode())


def _own_mounts(job: Job) -> None:
    """A fresh scratch, and a /proc that shows this namespace or nothing."""
    owner = f",uid={job.user},gid={job.user}" if job.user is not None else ""
    size, files = job.limits["scratch_bytes"], job.limits["scratch_files"]
    options = f"size={size},nr_inodes={files},mode=0755{owner}"
    linux.mount("tmpfs", SCRATCH, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC, options)
    walls = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    for attempt in ("subset=pid", ""):
        try:
            linux.mount("proc", "/proc", "proc", walls, attempt)
            return
        except OSError:
            continue  # an older kernel, or a container whose own /proc is masked
    linux.mount("tmpfs", "/proc", "tmpfs", walls | linux.MS_RDONLY, "size=4096,nr_inodes=1")


def _copy_artefact(path: str, target: int, most: int) -> None:
    """Copies what a compiler left in the scratch to a descriptor of the caller's; nothing if it is no plain file."""
    try:
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    if stat.S_ISREG(os.fstat(source).st_mode):
        copied = 0
        while (data := os.read(source, 1 << 20)) and copied < most:
            os.write(target, data)
            copied += len(data)


# ---------------------------------------------------------------------------------------------------- the keeper's side
def _processes() -> dict[int, tuple[int, int, float]]:
    """{pid: (parent, resident bytes, CPU seconds with those of reaped children)} of all that the keeper can see."""
    page, ticks = os.sysconf("SC_PAGESIZE"), os.sysconf("SC_CLK_TCK")
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        found[int(name)] = (int(fields[1]), int(fields[21]) * page, sum(map(int, fields[11:15])) / ticks)
    return found


def _waited(pid: int) -> float:
    """Seconds that a process was ready to run and did not."""
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0  # it ended meanwhile, or a kernel that does not count it


def descendants(root: int, processes: dict[int, tuple[int, int, float]]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, (parent, _, _) in processes.items():
        children.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


class Keeper:
    def __init__(self, control: socket.socket, isolated: bool):
        self.control, self.isolated = control, isolated
        self.filter_program = system_calls.filter_program()
        self.jobs: dict[int, Job] = {}
        self.wake_read, wake_write = os.pipe()
        for fd in (self.wake_read, wake_write):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Until the other end of the control socket closes."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.wake_read, select.POLLIN)
        say(self.control, "ready")
        looked = 0.0
        while True:
            for fd, _ in poll.poll(TICK * 1000 if self.jobs else None):
                if fd == self.wake_read:
                    os.read(self.wake_read, 1 << 12)
                elif not self._take_order():
                    return
            self._reap()
            now = time.monotonic()
            if self.jobs and now - looked >= TICK:
                looked = now
                self._look()

    def _take_order(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self.control, MESSAGE_BYTES, MAX_FDS)
        if not data:
            return False
        order = json.loads(data)
        if "kill" in order:
            for job in list(self.jobs.values()):
                if job.number == order["kill"]:
                    self._kill(job, "starved" if order["late"] and self._starved(job) else "")
            return True
        job = Job(order, fds)
        try:
            self._start(job)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _start(self, job: Job) -> None:
        flags = linux.CLONE_NEWPID | linux.CLONE_NEWNS | linux.CLONE_NEWIPC
        try:
            job.pid = linux.fork_into(flags) if self.isolated else os.fork()
        except OSError as error:
            os.write(job.fds["status"], f"E{error}".encode())
            say(self.control, "end", job.number)
            return
        if job.pid == 0:
            try:
                self.control.close()
                _first_process(job, self.filter_program, self.isolated)
            finally:
                os._exit(0)
        self.jobs[job.pid] = job

    def _kill(self, job: Job, cause: str) -> None:
        job.cause = job.cause or cause
        os.kill(job.pid, signal.SIGKILL)  # not reaped yet, so the pid is its own

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            job = self.jobs.pop(pid, None)
            if job is None:
                continue
            if not self.isolated:
                self._kill_orphans()
            say(self.control, "end", job.number, job.cause)

    def _kill_orphans(self) -> None:
        """Without a PID namespace: what a job left behind has become the keeper's child."""
        for _ in range(100):
            mine = {pid for pid, (parent, _, _) in _processes().items() if parent == os.getpid()} - set(self.jobs)
            if not mine:
                return
            for pid in mine:
                os.kill(pid, signal.SIGKILL)
            for pid in mine:
                os.waitpid(pid, 0)

    def _starved(self, job: Job) -> bool:
        """Whether one of a job's processes spent most of its time waiting for a core: the machine is late, not the program."""
        try:
            family = descendants(job.pid, _processes())
        except OSError:
            return False
        return any(_waited(pid) > (time.monotonic() - job.since) / 2 for pid in family)

    def _look(self) -> None:
        """Ends jobs that use more in sum than one process may: limits of the kernel count each process by itself."""
        try:
            processes = _processes()
        except OSError:
            return  # a container without a /proc
        for job in self.jobs.values():
            family = [pid for pid in descendants(job.pid, processes) if pid in processes]
            if sum(processes[pid][1] for pid in family) > job.limits["total_memory"]:
                self._kill(job, "memory")
            elif len(family) > job.limits["total_processes"]:
                self._kill(job, "processes")
            elif sum(processes[pid][2] for pid in [job.pid, *family] if pid in processes) > job.limits["RLIMIT_CPU"] + 1:
                self._kill(job, "cpu")


def main(control_fd: int, isolated: bool) -> None:
    """The keeper's life. ``isolated``: it is inside the outer walls and may make namespaces."""
    if linux.stop_randomizing():
        os.execv(sys.executable, sys.orig_argv)
    for name in PRELOADED:  # so that no run pays for them
        __import__(name)
    # The first process of a namespace gets only signals that it handles. This is the one that Python handles by itself, and
    # with it a program of the same user could end its own walls.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    linux.adopt_orphans()
    control = socket.socket(fileno=control_fd)
    keeper = Keeper(control, isolated)
    gc.collect()
    gc.freeze()
    keeper.serve()

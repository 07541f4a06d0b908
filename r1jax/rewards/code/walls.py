"""The outer walls of the sandbox: bubblewrap, else plain Linux namespaces; which of them this machine can have."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KINDS = ("bubblewrap", "namespaces", "none")
START_SECONDS = 30.0
END_SECONDS = 2.0
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
PROGRAM_USER, TESTS_USER = 1000, 1001  # as the sandbox numbers its users
_OUTSIDE_USERS = 1_500_000_000  # as the machine numbers them: nobody's
_HERE = Path(__file__).parent
_PYTHON_FLAGS = ("-s", "-S", "-P")  # no site-packages; the environment is the sandbox's own


class SandboxUnavailable(RuntimeError):
    """This machine can't isolate a program, so none was run."""


@dataclasses.dataclass(frozen=True)
class Root:
    """What a sandbox sees of the machine, all of it read-only. JSON for ``inside.namespaces``."""

    binds: list[tuple[str, str]]
    links: list[tuple[str, str]]
    masks: list[str]
    devices: list[str]


def python() -> str:
    """The interpreter itself, not a virtual environment's link to it."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def root() -> Root:
    """Raises SandboxUnavailable where Python itself would be hidden."""
    binds, links = [("/usr", "/usr")], []
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        if os.path.islink(name):
            links.append((os.readlink(name), name))
        elif os.path.isdir(name):
            binds.append((name, name))
    for name in ("/etc/ld.so.cache", "/etc/alternatives"):
        if os.path.exists(name):
            binds.append((name, name))
    for prefix in dict.fromkeys([sys.base_prefix, sys.base_exec_prefix, str(Path(python()).parent.parent)]):
        for part in ("bin", "lib", "lib64"):
            place = os.path.join(prefix, part)
            if not place.startswith("/usr/") and os.path.isdir(place) and not os.path.islink(place):
                binds.append((place, place))
    for _, target in binds:
        if target.startswith("/tmp/"):
            raise SandboxUnavailable(f"Python is installed in {target}: below /tmp, where programs have their scratch")
    binds.append((str(_HERE / "inside"), "/sandbox/inside"))
    # Installed packages may hold anything, the answers of a benchmark included.
    paths = [
        sysconfig.get_path(name, vars={"base": prefix, "platbase": prefix})
        for prefix in (sys.base_prefix, "/usr")
        for name in ("purelib", "platlib")
    ]
    paths += [
        "/usr/lib/python3/dist-packages",
        f"/usr/local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/dist-packages",
    ]
    masks = [path for path in dict.fromkeys(map(os.path.realpath, paths)) if os.path.isdir(path)]
    visible = [target for _, target in binds]
    masks = [path for path in masks if any(path.startswith(target + "/") for target in visible)]
    devices = [
        name for name in ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom") if os.path.exists(name)
    ]
    return Root(binds, links, masks, devices)


def _boot(folder: str, module: str, *arguments: object) -> list[str]:
    call = f"from inside import {module}; sys.path.pop(0); {module}.main({', '.join(map(repr, arguments))})"
    return [python(), *_PYTHON_FLAGS, "-c", f"import sys; sys.path.insert(0, {folder!r}); {call}"]


def _bubblewrap(seen: Root, proc: bool, info: int, block: int, control: int) -> list[str]:
    command = [shutil.which("bwrap"), "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--hostname", "sandbox", "--die-with-parent", "--new-session"]
    # The keeper mounts and forks the walls of each program; a program itself has none of these.
    command += ["--cap-drop", "ALL"]
    for capability in ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP"):
        command += ["--cap-add", f"CAP_{capability}"]
    command += ["--info-fd", str(info), "--userns-block-fd", str(block)]
    targets = [target for _, target in seen.binds] + seen.devices
    folders = {str(parent) for target in targets for parent in Path(target).parents} - {"/", *targets}
    for folder in sorted(folders):  # made on the way to a bind they would be closed to all but their owner
        command += ["--dir", folder]
    for source, target in seen.binds:
        command += ["--ro-bind", source, target]
    for content, place in seen.links:
        command += ["--symlink", content, place]
    for place in seen.masks:
        command += ["--tmpfs", place, "--remount-ro", place]
    for name in seen.devices:
        command += ["--dev-bind", name, name]
    command += ["--proc", "/proc"] if proc else ["--tmpfs", "/proc", "--remount-ro", "/proc"]
    command += ["--dir", "/tmp", "--remount-ro", "/", "--chdir", "/", "--"]
    return command + _boot("/sandbox", "keeper", control, True)


def _spare_users(kind: str) -> int | None:
    """Two consecutive ids that this process's own user namespace has and that are not in use; None if it has too few."""
    ranges = [tuple(map(int, line.split())) for line in Path(f"/proc/self/{kind}").read_text().splitlines()]
    for first, _, count in ranges:
        if first <= _OUTSIDE_USERS and _OUTSIDE_USERS + 2 <= first + count:
            return _OUTSIDE_USERS
    first, _, count = max(ranges, key=lambda item: item[0])
    return first + count - 2 if count > 2 else None


def _write_maps(pid: int) -> bool:
    """Gives the namespace its users; whether programs and tests get users of their own there.

    Raises:
      OSError: the kernel does not let this process.
    """
    folder = Path(f"/proc/{pid}")
    if os.geteuid() == 0:
        spare = {kind: _spare_users(kind) for kind in ("uid_map", "gid_map")}
        if None not in spare.values():
            with contextlib.suppress(OSError):  # root in name only: the single user below will do
                for kind, first in spare.items():
                    (folder / kind).write_text(f"0 0 1\n{PROGRAM_USER} {first} 2\n")
                return True
    (folder / "setgroups").write_text("deny")
    for kind, own in (("uid_map", os.geteuid()), ("gid_map", os.getegid())):
        (folder / kind).write_text(f"{PROGRAM_USER} {own} 1\n")
    return False


@dataclasses.dataclass
class Outer:
    """A running keeper: ``process`` (the outermost one), ``control`` (its socket), what it writes in trouble, ``inner``
    (a pidfd of the first process in its namespaces)."""

    kind: str
    process: subprocess.Popen
    control: socket.socket
    errors: int
    users: bool
    scratch: str | None = None
    inner: int = -1

    def admit(self, info: int, block: int) -> None:
        """Gives the new user namespace its users and waits until the keeper is ready.

        Raises:
          OSError, ValueError: it ended, or it was not let.
        """
        if self.kind != "none":
            first = _child(info)
            self.inner = os.pidfd_open(first)
            self.users = _write_maps(first)
            os.write(block, b"1")
        self.control.settimeout(START_SECONDS)
        if self.control.recv(100) != b"ready":
            raise OSError("it ended at its start")
        self.control.settimeout(None)

    def trouble(self) -> str:
        text = os.pread(self.errors, 4096, 0).decode(errors="replace").strip()
        return text.splitlines()[-1] if text else f"exit status {self.process.poll()}"

    def close(self) -> None:
        """Ends the keeper and all that it holds; returns when they are gone."""
        self.control.close()
        try:
            self.process.wait(timeout=END_SECONDS)  # the keeper goes when its socket closes, and its namespace with it
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.inner >= 0:  # bwrap does not wait for it
            select.select([self.inner], [], [], END_SECONDS)
            os.close(self.inner)
        os.close(self.errors)
        if self.scratch:
            shutil.rmtree(self.scratch, ignore_errors=True)


@functools.cache
def _starter(pid: int) -> ThreadPoolExecutor:
    """A thread that lives as long as this process: a keeper dies with the thread that started it."""
    return ThreadPoolExecutor(1, thread_name_prefix="sandbox starter")


def raise_walls(kind: str) -> Outer:
    """Starts a keeper behind the outer walls of that kind.

    Raises:
      SandboxUnavailable: this machine can't; the message says why.
    """
    if not sys.platform.startswith("linux"):
        raise SandboxUnavailable(f"programs are only run on Linux, not on {sys.platform}")
    if kind == "bubblewrap" and shutil.which("bwrap") is None:
        raise SandboxUnavailable("bwrap is not on the PATH")
    seen = root()
    try:
        try:
            return _raise_walls(kind, seen)
        except (OSError, ValueError):
            if kind != "bubblewrap":
                raise
            return _raise_walls(kind, seen, proc=False)  # a container that hides parts of its own /proc
    except (OSError, ValueError) as error:
        raise SandboxUnavailable(f"{kind}: {error}") from None


def _raise_walls(kind: str, seen: Root, proc: bool = True) -> Outer:
    with contextlib.ExitStack() as ends, contextlib.ExitStack() as kept:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        errors = os.memfd_create("errors", os.MFD_CLOEXEC)
        kept.callback(ours.close)
        kept.callback(os.close, errors)
        scratch = None
        with contextlib.ExitStack() as passed:
            passed.callback(theirs.close)
            info_read, info_write = os.pipe()
            block_read, block_write = os.pipe()
            for fd in (info_read, block_write):
                ends.callback(os.close, fd)
            for fd in (info_write, block_read):
                passed.callback(os.close, fd)
            if kind == "bubblewrap":
                command = _bubblewrap(seen, proc, info_write, block_read, theirs.fileno())
            elif kind == "namespaces":
                command = _boot(str(_HERE), "namespaces", theirs.fileno(), info_write, block_read, os.getpid())
                command.append(json.dumps(dataclasses.asdict(seen)))
            else:
                scratch = tempfile.mkdtemp(prefix="r1jax-code-")
                kept.callback(shutil.rmtree, scratch, True)
                command = _boot(str(_HERE), "keeper", theirs.fileno(), False)
            start = functools.partial(
                subprocess.Popen,
                command,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(info_write, block_read, theirs.fileno()),
                start_new_session=True,
            )
            process = _starter(os.getpid()).submit(start).result()
        kept.pop_all()
        outer = Outer(kind, process, ours, errors, False, scratch)
        try:
            outer.admit(info_read, block_write)
        except (OSError, ValueError) as error:
            process.kill()
            process.wait()
            reason = f"{outer.trouble()} ({error})"
            outer.close()
            raise OSError(reason) from None
        return outer


def _child(info: int) -> int:
    """The pid of the process whose user namespace is new, once it has one."""
    text = b""
    while b"}" not in text:
        if not select.select([info], [], [], START_SECONDS)[0]:
            raise OSError("no answer")
        part = os.read(info, 4096)
        if not part:
            raise OSError("it could not start")
        text += part
    return json.loads(text)["child-pid"]

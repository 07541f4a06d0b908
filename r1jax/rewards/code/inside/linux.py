"""What the sandbox's own processes ask of Linux, by ctypes: each call raises OSError, naming itself, where it is refused."""

from __future__ import annotations

import ctypes
import os
import platform
import signal

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
NO_RANDOMIZE = 0x0040000

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 4, 22, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 36, 38, 47, 4
_SECCOMP_MODE_FILTER = 2
_CAPABILITIES = (0x20080522, 0)
_LAST_CAPABILITY = 63
_CLONE = {"x86_64": 56, "aarch64": 220}
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR = 442
_AT_RECURSIVE, _AT_FDCWD = 0x8000, -100

# PyDLL: the interpreter's lock stays held, which a process made by a bare clone needs.
_libc = ctypes.PyDLL(None, use_errno=True)


def _call(name: str, *arguments) -> int:
    result = getattr(_libc, name)(*arguments)
    if result < 0:
        code = ctypes.get_errno()
        shown = " ".join(str(a) for a in arguments if isinstance(a, (str, int)))[:80]
        raise OSError(code, f"{name} {shown}: {os.strerror(code)}")
    return result


def _system_call(number: int, *arguments) -> int:
    return _call("syscall", ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))


def _prctl(option: int, value: object = 0, third: object = 0) -> int:
    value, third = (ctypes.c_ulong(v) if isinstance(v, int) else v for v in (value, third))
    return _call("prctl", ctypes.c_int(option), value, third, ctypes.c_ulong(0), ctypes.c_ulong(0))


def unshare(flags: int) -> None:
    """Moves this process into new namespaces."""
    _call("unshare", ctypes.c_int(flags))


def fork_into(flags: int) -> int:
    """``os.fork`` whose child starts in new namespaces; only for a process without threads."""
    return _system_call(_CLONE[platform.machine()], flags | signal.SIGCHLD, 0, 0, 0, 0)


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str = "") -> None:
    names = (None if text is None else os.fsencode(text) for text in (source, target, kind))
    _call("mount", *names, ctypes.c_ulong(flags), os.fsencode(options))


def unmount(target: str) -> None:
    _call("umount2", os.fsencode(target), ctypes.c_int(MNT_DETACH))


def make_read_only(target: str) -> None:
    """A mount and those below it: read-only, without devices or set-user-id programs (Linux 5.12)."""
    attributes = (ctypes.c_uint64 * 4)(0x1 | 0x2 | 0x4, 0, 0, 0)  # MOUNT_ATTR_RDONLY, _NOSUID, _NODEV
    _system_call(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), _AT_RECURSIVE, attributes, ctypes.sizeof(attributes))


def change_root(new_root: str) -> None:
    """Makes a mount the root and lets go of everything else."""
    os.chdir(new_root)
    _system_call(_PIVOT_ROOT[platform.machine()], b".", b".")
    unmount(".")
    os.chdir("/")


def die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def adopt_orphans() -> None:
    """Descendants whose parent ends become this process's children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_dumpable(value: bool) -> None:
    """Whether processes of the same user may look into this one (``/proc/PID/mem``, ``fd``, ptrace)."""
    _prctl(_PR_SET_DUMPABLE, int(value))


def bound_capabilities() -> None:
    """Takes away every way to gain a capability; those at hand stay, which a change of user needs."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for number in range(_LAST_CAPABILITY + 1):
        try:
            _prctl(_PR_CAPBSET_DROP, number)
        except OSError:
            continue  # a kernel that knows fewer, or CAP_SETPCAP is gone: no_new_privs holds
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def drop_capabilities() -> None:
    _call("capset", (ctypes.c_uint32 * 2)(*_CAPABILITIES), (ctypes.c_uint32 * 6)())


def install_filter(program: bytes) -> None:
    """A seccomp filter (``system_calls.filter_program``) for this process and all that it starts."""

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]

    instructions = ctypes.create_string_buffer(program, len(program))
    whole = Program(len(program) // 8, ctypes.cast(instructions, ctypes.c_void_p))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(whole))


def stop_randomizing() -> bool:
    """Asks for the same addresses in every process (None hashes by its own); whether that changed anything."""
    now = _call("personality", ctypes.c_ulong(0xFFFFFFFF))
    if now & NO_RANDOMIZE:
        return False
    _call("personality", ctypes.c_ulong(now | NO_RANDOMIZE))
    return True

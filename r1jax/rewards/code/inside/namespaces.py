"""The outer walls where bubblewrap is missing: the same namespaces and read-only root, by system calls."""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

from . import keeper, linux

BASE = "/tmp"  # where the new root is put together; whatever was there is hidden from the sandbox only
_ALL = (
    linux.CLONE_NEWUSER
    | linux.CLONE_NEWNS
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWCGROUP
)


def _build_root(root: dict[str, Any]) -> None:
    """A small root of read-only binds (``walls.Root``), with a /proc of this PID namespace or an empty one."""
    sources = [(os.open(source, os.O_PATH), target) for source, target in root["binds"]]
    devices = [(os.open(path, os.O_PATH), path) for path in root["devices"]]
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", BASE, "tmpfs", linux.MS_NOSUID, "size=1048576,nr_inodes=4096,mode=0755")
    for fd, target in sources + devices:
        place = BASE + target
        if target in root["devices"]:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
        elif os.path.isdir(f"/proc/self/fd/{fd}"):
            os.makedirs(place, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
        linux.mount(f"/proc/self/fd/{fd}", place, None, linux.MS_BIND | linux.MS_REC)
        if target not in root["devices"]:
            linux.make_read_only(place)
        os.close(fd)
    for content, place in root["links"]:
        os.symlink(content, BASE + place)
    hidden = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    for place in root["masks"]:
        linux.mount("tmpfs", BASE + place, "tmpfs", hidden | linux.MS_RDONLY, "size=4096,nr_inodes=1")
    for place in ("/proc", keeper.SCRATCH):
        os.makedirs(BASE + place, exist_ok=True)
    try:
        linux.mount("proc", BASE + "/proc", "proc", hidden)
    except OSError:
        linux.mount("tmpfs", BASE + "/proc", "tmpfs", hidden | linux.MS_RDONLY, "size=4096,nr_inodes=1")
    linux.change_root(BASE)
    linux.mount("none", "/", None, linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV)


def main(control_fd: int, info_fd: int, block_fd: int, parent: int) -> None:
    """Makes the namespaces, waits until the caller has written the user map, and becomes their keeper.

    The root's description comes as JSON in ``sys.argv[1]``.
    """
    if linux.stop_randomizing():
        os.execv(sys.executable, sys.orig_argv)
    root = json.loads(sys.argv[1])
    linux.die_with_parent()
    if os.getppid() != parent:
        return
    linux.unshare(_ALL)
    os.write(info_fd, json.dumps({"child-pid": os.getpid()}).encode())
    os.close(info_fd)
    if not os.read(block_fd, 1):
        return
    os.close(block_fd)
    socket.sethostname("sandbox")
    if os.fork():
        os.close(control_fd)
        os.wait()
        return
    linux.die_with_parent()
    os.setsid()
    _build_root(root)
    keeper.main(control_fd, isolated=True)

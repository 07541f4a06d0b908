"""Reading and writing files of a run: local paths with ``os``, others (``gs://``) with ``etils.epath``.

A run of 10,000 updates is 20,000 small files; ``os`` reads them several times faster, and costs nothing to import.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, TextIO


def _epath(path: str) -> Any:
    from etils import epath

    return epath.Path(path)


def _remote(path: str) -> bool:
    return "://" in path


def read_bytes(path: str) -> bytes | None:
    """A file's content; None where there is no such file."""
    try:
        if _remote(path):
            return _epath(path).read_bytes()
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def open_text(path: str) -> TextIO | None:
    """A text file to read, undecodable bytes replaced; None where there is no such file."""
    try:
        if _remote(path):
            return _epath(path).open("r")
        return open(path, encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def exists(path: str) -> bool:
    return _epath(path).exists() if _remote(path) else os.path.exists(path)


def is_locked(path: str) -> bool | None:
    """Whether a process holds a file's lock (flock); None where that can't be told."""
    try:
        import fcntl

        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go of at once, by closing
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return None
    return False


def is_folder(path: str) -> bool:
    return _epath(path).is_dir() if _remote(path) else os.path.isdir(path)


def names(path: str) -> list[str]:
    """Names in a folder, sorted, without hidden ones; none where there is no folder."""
    try:
        found = [p.name for p in _epath(path).iterdir()] if _remote(path) else os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in found if not name.startswith("."))


def write_text(path: str, text: str) -> None:
    """Writes a whole file or nothing: a reader never sees a part of it. What UTF-8 can't hold (half a pair) becomes ``?``."""
    data = text.encode("utf-8", "replace")
    folder, _, name = path.rpartition("/")
    partial = f"{folder}/.{name}.{os.getpid()}.partial"  # two may write at a time: a run's end and r1jax report
    if _remote(path):
        _epath(partial).write_bytes(data)
        _epath(partial).replace(path)
        return
    try:
        with open(partial, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise

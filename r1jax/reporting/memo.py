"""What was read from a run's small files, kept in one: a run of 10,000 updates is over 20,000 of them.

``<workdir>/.report.json`` holds the value of each file with its time and size. A file that has changed since is read again,
one that is gone is forgotten, and without ``.report.json``, or with a damaged one, everything is read: it only saves time.
A file of an object store, where asking for the time costs as much as reading, is taken to be as it was: committed files
never change.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from r1jax.reporting import files

NAME = ".report.json"
VERSION = 1
LEAST = 200  # files below which remembering costs more than reading


class Memo:
    """The JSON values of a run's files."""

    def __init__(self, workdir: str):
        self._workdir, self._remote = workdir, "://" in workdir
        self._known: dict[str, list] = {}
        self._used: dict[str, list] = {}
        self.read = 0  # files that had to be read
        data = files.read_bytes(f"{workdir}/{NAME}")
        with contextlib.suppress(ValueError, AttributeError, TypeError, LookupError, RecursionError):
            kept = json.loads(data) if data else {}
            if kept.get("version") == VERSION:
                self._known = {str(path): [list(entry[0]), entry[1]] for path, entry in kept["files"].items()}

    def known(self, path: str) -> bool:
        """Whether the file was read before, however it is now."""
        return path[len(self._workdir) :] in self._known

    @property
    def trusts_names(self) -> bool:
        """Whether a file that was read before is taken to be as it was without another look."""
        return self._remote

    def json(self, path: str) -> Any:
        """The value of a JSON file.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: it is not JSON.
        """
        name = path[len(self._workdir) :]
        known = self._known.get(name)
        stamp = [0, 0] if self._remote else _stamp(path)
        if known is None or known[0] != stamp:
            data = files.read_bytes(path)
            if data is None:
                raise FileNotFoundError(path)
            self.read += 1
            known = [stamp, json.loads(data)]
        self._used[name] = known
        return known[1]

    def save(self) -> None:
        """Keeps what was read for the next time, if it is much; that it can't be kept is no error."""
        if len(self._used) < LEAST or (not self.read and len(self._used) == len(self._known)):
            return
        text = json.dumps({"version": VERSION, "files": self._used}, separators=(",", ":"))
        with contextlib.suppress(OSError):
            files.write_text(f"{self._workdir}/{NAME}", text)


def _stamp(path: str) -> list[int]:
    state = os.stat(path)
    return [state.st_mtime_ns, state.st_size]

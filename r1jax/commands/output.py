"""What commands write: with ``--json``, one object on stdout and nothing else there; files and folders that can be written."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """The value as strict JSON can hold it: arrays as lists, numbers of numpy as Python's, what is not finite as null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def check_file(option: str, path: str) -> None:
    """Refuses a file that can't be written, before anything is computed for it.

    Raises:
      ValueError: naming the option, the file and what stands in the way.
    """
    try:
        with open(path, "a"):
            pass
    except OSError as error:
        raise ValueError(
            f"{option} {path} can't be written: {error.strerror}; name a file in a folder that can be"
        ) from None


@contextlib.contextmanager
def only_json(wanted: bool) -> Iterator[Callable[[Any], None]]:
    """Gives ``emit(object)``. If ``wanted``, all else that is written to stdout meanwhile, by C++ too, goes to stderr."""
    if not wanted:
        yield lambda value: print(json.dumps(plain(value), ensure_ascii=False, indent=1))
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    emitted: list[Any] = []
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield emitted.append
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    for value in emitted:
        print(json.dumps(plain(value), ensure_ascii=False), flush=True)


def check_target(target: str) -> None:
    """Refuses a folder that can't be made, before anything is read for it. Stores such as ``gs://`` are not asked.

    Raises:
      ValueError: naming the folder and what the system says.
    """
    if "://" in target:
        return
    there = Path(target).absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".r1jax-"):
            pass
    except OSError as error:
        raise ValueError(f"{target} can't be written: {there}: {error.strerror}; choose another OUT_DIR") from None

"""The languages that a program may be written in, and how each is compiled."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence

from r1jax.rewards.code.walls import ENVIRONMENT


@dataclasses.dataclass(frozen=True)
class Language:
    """A language.

    Attributes:
      names: what it is called, in rows and after the opening of a code block; the first is its own.
      compilers: programs that can compile it, the best first; none for Python, which the sandbox runs by itself.
      arguments: of the compiler, which reads the source from its standard input and writes ``EXECUTABLE``.
    """

    names: tuple[str, ...]
    compilers: tuple[str, ...] = ()
    arguments: Sequence[str] = ()


EXECUTABLE = "/tmp/program"
PYTHON = Language(("python", "python3", "py", "py3"))
_OUT = ("-o", "program", "-")
LANGUAGES = (
    PYTHON,
    Language(
        ("c++", "cpp", "cc", "cxx", "c++17", "cpp17"), ("g++", "clang++"), ("-x", "c++", "-std=c++17", "-O2", "-w", *_OUT)
    ),
    Language(("c",), ("gcc", "clang"), ("-x", "c", "-std=c11", "-O2", "-w", *_OUT, "-lm")),
)


def language(name: str) -> Language:
    """The language of that name.

    Raises:
      ValueError: there is none.
    """
    for known in LANGUAGES:
        if name.strip().lower() in known.names:
            return known
    raise ValueError(f"language {name!r} is unknown; known: {', '.join(known.names[0] for known in LANGUAGES)}")


def compiler(known: Language) -> str | None:
    """The path of its compiler, as the sandbox sees it; None where it is not installed."""
    for name in known.compilers:
        path = shutil.which(name, path=ENVIRONMENT["PATH"])
        if path is not None:
            return os.path.abspath(path)
    return None

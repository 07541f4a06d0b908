"""Copies of ``r1jax.losses`` with a change in one file, loaded beside the package in the same process."""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.util
import sys
from pathlib import Path
from types import CodeType, ModuleType

NAME = "losses_under_test"


def package() -> Path:
    return Path(importlib.util.find_spec("r1jax").origin).parent / "losses"


def files() -> list[str]:
    """The package's files, as paths below it."""
    return sorted(str(path.relative_to(package())) for path in package().rglob("*.py"))


def source(file: str) -> str:
    return (package() / file).read_text()


@functools.cache
def _unchanged(file: str) -> CodeType:
    return compiled(file, source(file))


def compiled(file: str, text: str) -> CodeType:
    return compile(text.replace("r1jax.losses", NAME), f"<{file} of {NAME}>", "exec")


class _Copy(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, changed: dict[str, CodeType]):
        self.changed = changed

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != NAME:
            return None
        stem = "/".join(name.split(".")[1:])
        file = f"{stem}/__init__.py".lstrip("/") if (package() / stem).is_dir() else f"{stem}.py"
        spec = importlib.util.spec_from_loader(name, self, origin=file, is_package=file.endswith("__init__.py"))
        return spec if (package() / file).exists() else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        file = module.__spec__.origin
        code = self.changed[file] if file in self.changed else _unchanged(file)
        exec(code, module.__dict__)


def load(changed: dict[str, CodeType]) -> ModuleType:
    """The package with these files' code in place of their own.

    Raises:
      Exception: whatever the changed code raises when it is imported.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]
    finder = _Copy(changed)
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(NAME)
    finally:
        sys.meta_path.remove(finder)


def replaced(file: str, before: str, after: str) -> ModuleType:
    """The package with one passage of one file changed."""
    text = source(file)
    if text.count(before) != 1:
        raise LookupError(f"{file} has {text.count(before)} passages {before!r}; the mutant needs one: it must be rewritten")
    return load({file: compiled(file, text.replace(before, after))})

"""Reading plain data into typed dataclasses: an unknown key or a value of another type is an error that names it."""

from __future__ import annotations

import dataclasses
import importlib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from r1jax.config.errors import RecipeError, nearest

MAX_NAME_BYTES = 100  # of a model, stage or benchmark: with what is put after it a file name stays under 255


def check_name(name: str, where: str) -> None:
    """Refuses names that can't be part of a file's name on every system: folders of a run are called after them.

    Raises:
      RecipeError: naming the name, what is wrong with it and what it may be.
    """
    for wrong, trouble in (
        (not name.strip(), "is empty"),
        (name != name.strip(), "begins or ends with white space"),
        (name.startswith((".", "-")), "begins with a full stop or a dash"),
        (any(c in '/\\:*?"<>|' for c in name), "has a character that file names can't have"),
        (not name.isprintable(), "has a control character"),
        (len(name.encode(errors="replace")) > MAX_NAME_BYTES, f"has over {MAX_NAME_BYTES} bytes"),
    ):
        if wrong:
            raise RecipeError(f"{where}: the name {name[:40]!r} {trouble}; use letters, digits, - and _")


def _number(value: Any, kind: type, where: str) -> Any:
    """Reads a number by its declared type: YAML takes ``3e-6`` and ``.5`` for strings, and people write ``10_000``."""
    if isinstance(value, str):
        try:
            value = float(value.replace("_", ""))
        except ValueError:
            raise RecipeError(f"{where} must be a number, not {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RecipeError(f"{where} must be a number, not {value!r}")
    if not math.isfinite(value):
        raise RecipeError(f"{where} must be finite, not {value!r}")
    if kind is float:
        return float(value)
    if value != int(value):
        raise RecipeError(f"{where} must be a whole number, not {value!r}")
    return int(value)


def read_value(kind: Any, value: Any, where: str) -> Any:
    """Reads ``value`` as the annotated type ``kind``."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return read_value(next(a for a in arguments if a is not type(None)), value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where} must be a mapping, not {value!r}")
        return {
            read_value(arguments[0], k, f"a key of {where}"): read_value(arguments[1], v, f"{where}.{k}")
            for k, v in value.items()
        }
    if origin in (tuple, list):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise RecipeError(f"{where} must be a list, not {value!r}")
        return origin(read_value(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return read_dataclass(kind, value, where)
    if kind in (int, float):
        return _number(value, kind, where)
    if kind is bool:
        if not isinstance(value, bool):
            raise RecipeError(f"{where} must be true or false, not {value!r}")
        return value
    if kind is str:
        if isinstance(value, (Mapping, list)) or value is None:
            raise RecipeError(f"{where} must be text, not {value!r}")
        return str(value)
    return value


def read_dataclass(kind: type, value: Any, where: str) -> Any:
    """Reads a mapping into a dataclass; an unknown key is an error that names the nearest known one."""
    value = {} if value is None else value
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where} must be a mapping, not {value!r}")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    for key in value:
        if key not in known:
            raise RecipeError(f"unknown key {where}.{key}{nearest(key, known)}")
    given = {}
    for f in dataclasses.fields(kind):
        if f.name not in value:
            continue
        here = f"{where}.{f.name}"
        if dataclasses.is_dataclass(f.default):
            # What is not given stays as this field's default has it, which may be another than its type's.
            given[f.name] = _read_changes(f.default, value[f.name], here)
        else:
            given[f.name] = read_value(hints[f.name], value[f.name], here)
    missing = [
        f.name
        for f in dataclasses.fields(kind)
        if f.name not in value and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"{where} lacks {', '.join(missing)}")
    return kind(**given)


def _read_changes(default: Any, value: Any, where: str) -> Any:
    """A copy of ``default`` with the keys of a mapping changed."""
    read = read_dataclass(type(default), value, where)
    return dataclasses.replace(default, **{key: getattr(read, key) for key in value or {}})


def import_name(path: str, where: str) -> Any:
    """Resolves ``package.module:name``."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(f"{where}: {path!r} can't be imported: {error}") from error

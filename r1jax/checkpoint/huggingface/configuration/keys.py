"""Reading config.json key by key: what is missing, malformed or not implemented is refused, never ignored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from r1jax.checkpoint.integrity import CheckpointError


def refuse(key: str, value: Any, remedy: str) -> NoReturn:
    shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
    raise CheckpointError(f"config.json: {key} {shown} is not implemented; {remedy}")


def number(config: Mapping[str, Any], key: str, kind: type, default: Any = None, where: str = "config.json") -> Any:
    """A positive number under ``key``; ``default`` where it is absent or null, and if that is None too, an error."""
    value = config.get(key)
    value = default if value is None else value
    if value is None:
        raise CheckpointError(f"{where} lacks {key}")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0 or kind(value) != value:
        raise CheckpointError(f"{where}: {key} must be a positive {'integer' if kind is int else 'number'}, not {value!r}")
    return kind(value)


def coefficient(config: Mapping[str, Any], key: str) -> float | None:
    """A number of at least 0 under ``key``; None where it is absent or null."""
    value = config.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise CheckpointError(f"config.json: {key} must be a number of at least 0, not {value!r}")
    return float(value)


def flag(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key)
    if value not in (None, True, False):
        raise CheckpointError(f"config.json: {key} must be true or false, not {value!r}")
    return bool(value)


def ids(where: str, key: str, value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    for item in values:
        if isinstance(item, bool) or not isinstance(item, int) or item < 0:
            raise CheckpointError(f"{where}: {key} must be token ids, not {value!r}")
    return tuple(values)


def single_id(config: Mapping[str, Any], key: str) -> int | None:
    found = ids("config.json", key, config.get(key))
    return found[0] if found else None


def count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """An integer of at least 0 under ``key``; ``default`` where it is absent, and if that is None too, an error."""
    value = config.get(key, default)
    if value is None and default is None:
        raise CheckpointError(f"config.json lacks {key}")
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise CheckpointError(f"config.json: {key} must be an integer of at least 0, not {value!r}")
    return value


def only(config: Mapping[str, Any], accepted: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuses keys whose value is none of those at which they change nothing; the last of those is named as the remedy."""
    for key, values in accepted.items():
        if config.get(key) not in values:
            refuse(key, config[key], f"only {json.dumps(values[-1])} is")

"""Values between the process of the tests and the process of the program, as JSON with tagged forms for what JSON lacks.

Only plain data crosses, by its exact built-in type: an object of the program's own never does, so its ``__eq__``,
``__float__`` or ``__reduce__`` decide nothing on the other side.
"""

from __future__ import annotations

import collections
import decimal
import fractions
import json
import math
import os
from collections.abc import Callable
from typing import Any

MAX_MESSAGE = 8 << 20


class Unsendable(Exception):
    """A value that is no plain data, or too large or deep to send."""


class StandIn:
    """What stands here for a value that stayed in the other process, where it has a number."""

    _handle: int


class Ended(Exception):
    """The other process is gone."""


def _sequence(tag: str, values: Any, handle: Callable[[Any], int] | None) -> dict[str, list]:
    return {tag: [encode(value, handle) for value in values]}


def encode(value: Any, handle: Callable[[Any], int] | None = None) -> Any:
    """``value`` in the form that ``json`` takes. Subclasses are sent as the built-in type that they extend.

    Args:
      handle: called with a value that can only be used from afar; returns its number. Without it only plain data and
        stand-ins are sent, which become again what they stand for.

    Raises:
      Unsendable: something else.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        value = int.__add__(value, 0)
        return value if -(1 << 63) < value < 1 << 63 else {"int": hex(value)}
    if isinstance(value, float):
        value = float.__mul__(value, 1.0)
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, list):
        return [encode(item, handle) for item in list.__iter__(value)]
    if isinstance(value, dict):
        return {"dict": [[encode(key, handle), encode(item, handle)] for key, item in dict.items(value)]}
    for tag, kind in (
        ("tuple", tuple),
        ("set", set),
        ("frozenset", frozenset),
        ("deque", collections.deque),
    ):
        if isinstance(value, kind):
            return _sequence(tag, kind.__iter__(value), handle)
    for kind in (bytes, bytearray):
        if isinstance(value, kind):
            return {kind.__name__: kind.hex(value)}
    if isinstance(value, complex):
        return {"complex": [encode(value.real), encode(value.imag)]}
    if type(value) is range:
        return {"range": [encode(value.start), encode(value.stop), encode(value.step)]}
    if type(value) is fractions.Fraction:
        return {"fraction": [encode(value.numerator), encode(value.denominator)]}
    if type(value) is decimal.Decimal:
        return {"decimal": str(value)}
    if isinstance(value, StandIn):
        return {"yours": value._handle}
    if handle is not None:
        if callable(value):
            return {"function": handle(value)}
        if hasattr(type(value), "__next__"):
            return {"iterator": handle(iter(value))}
        return {"object": [handle(value), type(value).__name__, bool(value)]}
    raise Unsendable(f"an object of class {type(value).__name__}, which is no plain data")


def decode(value: Any, stand_in: Callable[[str, Any], Any] | None = None) -> Any:
    """The reverse of ``encode``.

    Args:
      stand_in: gives, for ("function" | "iterator" | "object" | "yours", what ``encode`` wrote), the value to take.

    Raises:
      ValueError, TypeError, KeyError: no form that ``encode`` makes.
    """
    if isinstance(value, list):
        return [decode(item, stand_in) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag == "dict":
        return {decode(key, stand_in): decode(item, stand_in) for key, item in content}
    if tag in ("function", "iterator", "object", "yours"):
        if stand_in is None:
            raise ValueError(f"a {tag} where none can be")
        return stand_in(tag, content)
    if tag == "int":
        return int(content, 16)
    if tag == "float":
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[content]
    if tag == "decimal":
        return decimal.Decimal(content)
    if tag in ("bytes", "bytearray"):
        return {"bytes": bytes, "bytearray": bytearray}[tag].fromhex(content)
    makers = {"tuple": tuple, "set": set, "frozenset": frozenset, "deque": collections.deque}
    if tag in makers:
        return makers[tag](decode(item, stand_in) for item in content)
    spread = {"complex": complex, "range": range, "fraction": fractions.Fraction}
    return spread[tag](*(decode(item, stand_in) for item in content))


class Channel:
    """Messages over two pipes: four bytes of length, then JSON."""

    def __init__(self, read: int, write: int):
        self._read, self._write = read, write

    def send(self, message: Any) -> None:
        """Raises Unsendable (too large, too deep, a number that JSON can't write) or Ended."""
        try:
            data = json.dumps(message, allow_nan=False).encode()
        except (RecursionError, ValueError, MemoryError, TypeError) as error:
            raise Unsendable(f"a value that can't be sent ({type(error).__name__}: {error})") from None
        if len(data) > MAX_MESSAGE:
            raise Unsendable(f"a value of {len(data)} bytes; {MAX_MESSAGE} is the most")
        view = memoryview(len(data).to_bytes(4, "big") + data)
        try:
            while view:
                view = view[os.write(self._write, view) :]
        except OSError:
            raise Ended from None

    def receive(self) -> Any:
        """Raises Ended, or ValueError or RecursionError for what is no message."""
        size = int.from_bytes(self._exactly(4), "big")
        if size > MAX_MESSAGE:
            raise ValueError(f"a message of {size} bytes")
        return json.loads(self._exactly(size))

    def _exactly(self, count: int) -> bytes:
        parts, missing = [], count
        while missing:
            try:
                part = os.read(self._read, min(missing, 1 << 20))
            except OSError:
                raise Ended from None
            if not part:
                raise Ended
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

"""Whether a program printed what it should have."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _close(printed: str, expected: str, tolerance: float) -> bool:
    if printed == expected:
        return True
    if len(printed) > 400 or not _NUMBER.fullmatch(printed) or not _NUMBER.fullmatch(expected):
        return False
    right = float(expected)
    return abs(float(printed) - right) <= tolerance * max(1.0, abs(right))


def difference(printed: str, expected: str, tolerance: float | None = None) -> str | None:
    """None where the output is right, else one line saying where it is not.

    White space at the end of lines and empty lines at the end don't count; all else does, letter by letter. With a
    ``tolerance`` (absolute below 1, relative above) words of a line are compared one by one, as numbers where both are.
    """
    got, wanted = _lines(printed), _lines(expected)
    if got == wanted:
        return None
    for number, (line, right) in enumerate(zip(got, wanted), 1):
        if line == right:
            continue
        if tolerance is not None:
            words, right_words = line.split(), right.split()
            if len(words) == len(right_words) and all(_close(a, b, tolerance) for a, b in zip(words, right_words)):
                continue
        return f"line {number} is {line[:60]!r}, not {right[:60]!r}"
    if len(got) != len(wanted):
        return f"{len(got)} lines instead of {len(wanted)}"
    return None

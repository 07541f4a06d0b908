"""The grader ``number``: the final answer is the row's number, exactly or within a tolerance."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from r1jax.rewards.answer import extract_answer
from r1jax.rewards.record import Verdict

MAX_CHARACTERS = 300
MAX_DIGITS = 60
MAX_EXPONENT = 400

_SPELLINGS = str.maketrans(
    {"−": "-", "–": "-", "﹣": "-", "，": ",", "×": "x", "·": "x", "⋅": "x", "∗": "x", "％": "%", "\u00a0": " "}
)
_COMMANDS = (
    ("\\left", ""), ("\\right", ""), ("\\times", "x"), ("\\cdot", "x"), ("\\,", ""), ("\\!", ""), ("\\;", " "), ("\\ ", " "),
    ("{,}", ","), ("\\%", "%"), ("\\$", "$"), ("\\approx", "="), ("≈", "="), ("\\simeq", "="), ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
)  # fmt: skip
_TEXT_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|boxed|unit|si)\s?\{([^{}]{0,300})\}")
_ABOUT = re.compile(r"(?i)^(?:is|about|approximately|approx\.?|roughly|around|约|大约|~)\s*")
_DECIMAL = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_POWER = r"(?:\s?[x*]\s?10\s?(?:\^\s?\{?\s?|\*\*\s?)([-+]?[0-9]{1,6})\}?)"
_NUMBER = re.compile(
    rf"(?P<currency>[$€£¥]\s?)?(?P<sign>[-+])?\s?(?:[$€£¥]\s?)?"
    rf"(?:\\frac\s?\{{(?P<ftop>[-+]?[0-9]+)\}}\s?\{{(?P<fbottom>[0-9]+)\}}"
    rf"|(?P<whole>[0-9]+)\s(?P<top>[0-9]+)\s?/\s?(?P<bottom>[0-9]+)"
    rf"|(?P<a>{_DECIMAL})(?:\s?/\s?(?P<b>{_DECIMAL})|(?:[eE](?P<e>[-+]?[0-9]{{1,6}}))|{_POWER})?)"
)
_UNIT = re.compile(r"(?:%|°|[A-Za-zµμΩÅ\u4e00-\u9fff])[A-Za-zµμΩÅ°%\u4e00-\u9fff0-9\s/*^{}().²³⁻¹·-]{0,40}")


class Number(NamedTuple):
    """An exact value and the unit that was written behind it, if any."""

    value: Fraction
    unit: str


def _exact(digits: str) -> Fraction:
    digits = digits.replace(",", "")
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return Fraction(digits if digits[-1] != "." else digits[:-1])


def _scaled(value: Fraction, exponent: str) -> Fraction:
    if abs(int(exponent)) > MAX_EXPONENT:
        raise ValueError(f"an exponent of {exponent}")
    return value * Fraction(10) ** int(exponent)


def _value(match: re.Match) -> Fraction:
    if match["ftop"] is not None:
        value = _exact(match["ftop"].lstrip("+")) / _exact(match["fbottom"])
    elif match["whole"] is not None:
        value = _exact(match["whole"]) + _exact(match["top"]) / _exact(match["bottom"])
    else:
        value = _exact(match["a"])
        if match["b"] is not None:
            value /= _exact(match["b"])
        elif (exponent := match["e"] or match[match.re.groups]) is not None:
            value = _scaled(value, exponent)
    return -value if match["sign"] == "-" else value


def read_number(text: str) -> Number:
    """The one number that a short text states: ``-1,234.5``, ``3/4``, ``2 1/2``, ``\\frac{3}{4}``, ``1.5e-3``,
    ``1.5 \\times 10^{-3}``, ``$5``, ``12%`` (the value is 12, the unit %), ``x = 3.2 m/s``.

    Raises:
      ValueError: it states none or several, or one beyond the bounds.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text)} characters are too long for a number")
    bare = unicodedata.normalize("NFC", text).translate(_SPELLINGS)
    for command, replacement in _COMMANDS:
        bare = bare.replace(command, replacement)
    bare = _TEXT_COMMAND.sub(r" \1", bare)
    if bare.strip().startswith("$") and bare.strip().endswith("$"):
        bare = bare.strip().strip("$")
    bare = bare.rpartition("=")[2].strip().strip("*`\"'").removesuffix(".").strip()
    bare = _ABOUT.sub("", bare).strip()
    if bare.startswith("(") and bare.endswith(")"):
        bare = bare[1:-1].strip()
    match = _NUMBER.match(bare)
    if match is None:
        raise ValueError(f"no number in {text!r:.60}")
    rest = bare[match.end() :].strip().rstrip("$").strip()
    if rest and not _UNIT.fullmatch(rest):
        raise ValueError(f"more than one number in {text!r:.60}")
    if re.search(r"(?i)\b(?:or|and|to)\b|(?<![\^{/*a-zA-Z⁻0-9-])[0-9]", rest):
        raise ValueError(f"more than one number in {text!r:.60}")
    try:
        value = _value(match)
    except ZeroDivisionError:
        raise ValueError(f"{text!r:.60} divides by zero") from None
    return Number(value, _unit(rest))


def _unit(text: str) -> str:
    """A unit as it is compared: without blanks, braces and a full stop."""
    return re.sub(r"[\s{}.]|\\", "", text).replace("²", "^2").replace("³", "^3")


def _tolerance(row: Mapping[str, Any], field: str) -> Fraction:
    value = row.get(field)
    if value is None:
        return Fraction(0)
    try:
        tolerance = Fraction(str(value))
    except ValueError:
        raise ValueError(f"{field} must be a number, not {value!r:.60}") from None
    if tolerance < 0:
        raise ValueError(f"{field} can't be negative, but is {value}")
    return tolerance


def grade_number(row: Mapping[str, Any], completion: str) -> tuple[Verdict, str]:
    """Right if the final answer states the row's number, exactly or within ``tolerance`` (absolute) or
    ``relative_tolerance`` (of the right value), whichever is wider.

    A unit may stand behind either; where both have one (or the row's ``unit`` names it) they must be the same: ``3 km`` is
    not ``3 m``. ``50%`` is 50 or, against an answer without a unit, also 0.5. Several numbers are no answer.

    Raises:
      ValueError: the row's answer is no number, or a tolerance is none.
    """
    from r1jax.rewards.graders import row_answer

    right = read_number(row_answer(row))
    unit = _unit(str(row.get("unit") or "")) or right.unit
    allowed = max(_tolerance(row, "tolerance"), _tolerance(row, "relative_tolerance") * abs(right.value))
    answer = extract_answer(completion)
    if answer is None:
        return Verdict.WRONG, "no final answer"
    try:
        given = read_number(answer)
    except ValueError as error:
        return Verdict.WRONG, str(error)
    if unit and given.unit and unit.casefold() != given.unit.casefold():
        return Verdict.WRONG, f"the unit is {given.unit!r:.30}, not {unit!r:.30}"
    values = [given.value] if given.unit != "%" or unit else [given.value, given.value / 100]
    agrees = any(abs(value - right.value) <= allowed for value in values)
    return (Verdict.RIGHT if agrees else Verdict.WRONG), f"{_shown(given.value)} against {_shown(right.value)}"


def _shown(value: Fraction) -> str:
    return str(value) if len(str(value)) < 20 else f"{float(value):.10g}"

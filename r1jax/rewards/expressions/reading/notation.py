r"""Notations that are rewritten before the grammar sees them, and second readings of texts that can be read in two ways."""

from __future__ import annotations

import re

_INDEX = r"\{?\s*([0-9a-z][0-9a-z+\-]{0,5})\s*\}?"
_CHOSEN_LETTER = r"(?:\\(?:mathrm|text|operatorname)\s*\{\s*~?([CAP])\s*\}|(?<![A-Za-z\\{])([CAP]))\s*"
# C_{10}^{3} of the east, {}_{10}C_3 and C(10, 3) of the west.
_SELECTIONS = (
    re.compile(_CHOSEN_LETTER + rf"_{_INDEX}\s*\^{_INDEX}"),
    re.compile(_CHOSEN_LETTER + rf"\^{_INDEX}\s*_{_INDEX}"),
    re.compile(rf"(?:\{{\}})?[_^]{_INDEX}\s*" + r"(?:\\mathrm\s*\{\s*([CP])\s*\}|([CP]))" + rf"\s*_{_INDEX}"),
    re.compile(r"(?<![A-Za-z\\{])([CP])\s*\(\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*\)"),
)
_PART = re.compile(r"(?:\A|(?<=[\s;,.}；，。]))\s*(?:\\text\s*\{\s*)?\(\s*([1-9])\s*\)\s*\}?")
_LAST_STEP = re.compile(
    r"\\begin\s*\{(?:align|aligned|split|gather|eqnarray)\*?\}.*\\\\\s*&?\s*=&?\s*([^&=]{1,200})\\end\s*\{", re.DOTALL
)
_REMAINDER = re.compile(
    r"\s*([0-9]{1,20})\s*(?:\\text\s*\{)?\s*(?:with (?:a )?)?(?:R|r|remainder|余|(?:\.\.\.|\\[lc]?dots){1,2})\s*\}?\s*([0-9]{1,20})\s*"
)
_INTEGRATION_CONSTANT = re.compile(r"\+\s*c(?=\s*\Z)|(?<![A-Za-z\\])c(?=_\{?[0-9])")


def respelled(text: str) -> str:
    r"""``text`` with the backslashes that were doubled on their way through JSON, ``\\frac{1}{2}``, as they were meant."""
    if "\\\\" in text and "\\begin" not in text:
        return re.sub(r"\\\\(?=[A-Za-z%$,;!{}])", r"\\", text)
    return text


def _selected(letter: str, n: str, k: str) -> str:
    if letter == "C":
        return rf"\binom{{{n}}}{{{k}}}"
    return rf"\frac{{({n})!}}{{({n}-({k}))!}}"


def _with_selections(text: str) -> str:
    below_first, above_first, before, call = _SELECTIONS
    text = below_first.sub(lambda m: _selected(m[1] or m[2], m[3], m[4]), text)
    text = above_first.sub(lambda m: _selected(m[1] or m[2], m[4], m[3]), text)
    text = before.sub(lambda m: _selected(m[2] or m[3], m[1], m[4]), text)
    return call.sub(lambda m: _selected(m[1], m[2], m[3]), text)


def _parts(text: str) -> str | None:
    """The answers to the parts (1), (2), ... of a question as a tuple."""
    marks = list(_PART.finditer(text))
    if len(marks) < 2 or marks[0].start() or [int(mark[1]) for mark in marks] != list(range(1, len(marks) + 1)):
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    parts = [text[mark.end() : end].strip(" ;,.；，。") for mark, end in zip(marks, ends)]
    return f"({' ; '.join(parts)})" if all(parts) else None


def second_readings(text: str) -> list[str]:
    r"""What else a text may say: ``C_{10}^{3}`` a choice of 3 from 10, ``1{,}5`` a decimal number, ``(1) 3; (2) 5`` a pair,
    ``+ c`` the constant ``+ C``, the last line of an ``align`` the answer."""
    found = []
    if "C" in text or "A_" in text or "A^" in text or "P" in text:
        found.append(_with_selections(text))
    if "{,}" in text:
        found.append(re.sub(r"(?<=[0-9])\{,\}(?=[0-9])", ".", text))
    if "(2)" in text and (parts := _parts(text)):
        found.append(parts)
    if division := _REMAINDER.fullmatch(text):
        found.append(f"({division[1]} ; {division[2]})")
    if "c" in text:
        found.append(_INTEGRATION_CONSTANT.sub(lambda m: m[0].replace("c", "C"), text))
    if "\\begin" in text and (step := _LAST_STEP.search(text)):
        found.append(step[1])
    return [reading for reading in dict.fromkeys(found) if reading != text]

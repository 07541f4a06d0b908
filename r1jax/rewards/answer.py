"""The final answer of a completion: where it stands in the text. Every search here takes linear time."""

from __future__ import annotations

import re

THINK_END = "</think>"
ANSWER_START, ANSWER_END = "<answer>", "</answer>"
# A text without any mark is looked at from its end only.
TAIL = 2_000
# Up to this length a line without any mark is taken whole for the answer.
SHORT = 200

_PHRASE = re.compile(r"(?i)(?:\banswer\s{0,3}(?:is|was|:|=|：)|答案(?:是|为|：|:))\s{0,3}[:：]?")
_INLINE = re.compile(
    r"\$\$([^$]{1,500})\$\$|\$([^$\n]{1,500})\$|\\\(((?:[^\\]|\\[^()]){1,500})\\\)|\\\[((?:[^\\]|\\[^\[\]]){1,500})\\\]"
)
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}")
_NUMBER = re.compile(
    r"(?:(?<![A-Za-z0-9_.)])[-−])?(?<![A-Za-z0-9_.])"
    r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,20}(?![0-9])|[0-9]{1,400}(?![0-9]))?(?:\.[0-9]{1,400})?(?<=[0-9])"
    r"(?:[eE][+-]?[0-9]{1,4}(?![0-9A-Za-z]))?(?:\s?/\s?[0-9]{1,400}(?![0-9]))?(?:\s?\\?%)?"
)


def _last(pattern: re.Pattern, text: str) -> re.Match | None:
    matches = list(pattern.finditer(text))
    return matches[-1] if matches else None


def after_thinking(completion: str) -> str:
    """What follows the last ``</think>``; all of it where there is none."""
    return completion.rpartition(THINK_END)[2]


def braced(text: str, start: int) -> str:
    """The content of the braces that open at ``text[start]``; to the end of the line where they never close."""
    depth, position = 0, start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : position]
        position += 1
    return text[start + 1 :].partition("\n")[0].strip(" $.")


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` (or ``\fbox``) that holds anything; None without one.

    Of nested ones the inner one counts; braces that never close reach to the end of the line; ``\boxed 5`` is 5.
    """
    end = len(text)
    for _ in range(8):  # a text full of empty boxes is not searched for ever
        start = max(text.rfind("\\boxed", 0, end), text.rfind("\\fbox", 0, end))
        if start < 0:
            return None
        place = start + (6 if text.startswith("\\boxed", start) else 5)
        while place < len(text) and text[place] in " \t":
            place += 1
        if text.startswith("{", place):
            content = braced(text, place)
        else:
            content = re.match(r"\\?[A-Za-z0-9.\-]{0,100}", text[place:])[0]
        if content.strip():
            return content.strip()
        end = start
    return None


def last_tagged(text: str) -> str | None:
    """The content of the last ``<answer>...</answer>``, or of one that never closes; None without one."""
    end = text.rfind(ANSWER_END)
    if end >= 0:
        start = text.rfind(ANSWER_START, 0, end)
        if start >= 0:
            return text[start + len(ANSWER_START) : end].strip()
    start = text.rfind(ANSWER_START)
    return None if start < 0 else text[start + len(ANSWER_START) :].strip()


def marked_answer(completion: str) -> str | None:
    r"""The answer that the text marks as such: in ``<answer>``, else in ``\boxed{}``, else after ``####``.

    Only what follows the last ``</think>`` counts. A box or ``####`` inside ``<answer>`` narrows it further.
    """
    text = after_thinking(completion)
    tagged = last_tagged(text)
    text = text if tagged is None else tagged
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed
    if "####" in text:
        return text.rpartition("####")[2].strip().partition("\n")[0].strip()
    return tagged


def guess(text: str) -> str | None:
    """The likeliest answer in prose: the last formula between dollar signs, else the last number; None without any."""
    tail = text[-TAIL:]
    formulas = [next(group for group in match.groups() if group is not None) for match in _INLINE.finditer(tail)]
    formulas = [formula.strip() for formula in formulas if "\\text" in formula or not _PROSE.search(formula)]  # "$5 and $6"
    if formulas:
        return formulas[-1]
    number = _last(_NUMBER, tail)
    return number and number[0].strip()


def extract_answer(completion: str) -> str | None:
    """The final answer of a completion, or of a bare answer (itself); None where there is none.

    In order: what is marked (``marked_answer``); what follows the last "answer is" or "answer:"; a short single line
    whole; else ``guess``, else the last line. A thought that never ends has no answer beyond a marked one.
    """
    marked = marked_answer(completion)
    if marked is not None:
        return marked or None
    text = after_thinking(completion)
    if text is completion and "<think>" in text:
        return None
    tail = text.strip()[-TAIL:]
    phrase = _last(_PHRASE, tail)
    if phrase is not None:
        rest = tail[phrase.end() :].strip().partition("\n")[0].strip().strip("*").strip()
        if rest:
            formula = _INLINE.match(rest)
            return formula[0].strip("$ ") if formula else rest
    if len(tail) <= SHORT and "\n" not in tail:
        return tail or None
    lines = tail.split("\n")
    return guess(lines[-1]) or guess(tail) or lines[-1].strip() or None

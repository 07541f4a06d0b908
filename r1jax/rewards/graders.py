"""Graders by name: ``grader(row, completion) -> (Verdict, reason)``. A row of a prompt set names its own."""

from __future__ import annotations

import difflib
import importlib
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from r1jax.rewards.answer import extract_answer
from r1jax.rewards.record import Verdict

Grader = Callable[[Mapping[str, Any], str], tuple[Verdict, str]]


def resolve(path: str, what: str) -> Callable:
    """The function at ``package.module:function``.

    Raises:
      ValueError: there is none, or it can't be called.
    """
    module, _, name = path.partition(":")
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a user's module may raise anything while it is imported
        raise ValueError(f"{what} {path!r} can't be imported: {type(error).__name__}: {error}") from error
    try:
        function = getattr(imported, name)
    except AttributeError:
        functions = [key for key, value in vars(imported).items() if callable(value) and not key.startswith("_")]
        close = difflib.get_close_matches(name, functions, n=1, cutoff=0.5)
        hint = f"; did you mean '{module}:{close[0]}'?" if close else ""
        raise ValueError(f"{what} {path!r} can't be imported: {module} has no {name!r}{hint}") from None
    if not callable(function):
        raise ValueError(f"{what} {path!r} is a {type(function).__name__}, not a function")
    return function


def unknown(what: str, name: str, known: Mapping[str, Any]) -> ValueError:
    """The error for a name that is not among ``known``; it names the nearest."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}, or package.module:function"
    return ValueError(f"unknown {what} {name!r}; {hint}")


def row_answer(row: Mapping[str, Any]) -> str:
    """The right answer that a row gives: ``answer``, ``Answer`` (SVAMP) or ``solution``.

    Raises:
      ValueError: it gives none.
    """
    for field in ("answer", "Answer", "solution"):
        if row.get(field) is not None:
            return str(row[field])
    raise ValueError(f"the row gives no answer; its fields are {', '.join(map(str, row)) or 'none'}")


def _verify_math(row: Mapping[str, Any], completion: str) -> tuple[Verdict, str]:
    from r1jax.rewards.mathematics import grade_math

    return grade_math(row_answer(row), completion)


def _code(row: Mapping[str, Any], completion: str) -> tuple[Verdict, str]:
    from r1jax.rewards.code.rows import grade_code

    result = grade_code(row, completion)
    return result.verdict, result.reason


def _exact(row: Mapping[str, Any], completion: str) -> tuple[Verdict, str]:
    """The final answer is the row's, letter by letter, save for case, white space and a final full stop."""
    answer = extract_answer(completion)
    if answer is None:
        return Verdict.WRONG, "no final answer"
    given, right = (
        " ".join(unicodedata.normalize("NFKC", text).casefold().split()).removesuffix(".").rstrip()
        for text in (answer, row_answer(row))
    )
    return (Verdict.RIGHT if given == right else Verdict.WRONG), f"{given[:60]!r} against {right[:60]!r}"


def _none(row: Mapping[str, Any], completion: str) -> tuple[Verdict, str]:
    """For prompts that have no right answer."""
    return Verdict.NONE, "the prompt has no right answer"


def _lazily(module: str, function: str) -> Grader:
    """The grader ``r1jax.rewards.<module>.<function>``, imported when it first grades."""

    def grade(row: Mapping[str, Any], completion: str) -> tuple[Verdict, str]:
        return getattr(importlib.import_module(f"r1jax.rewards.{module}"), function)(row, completion)

    return grade


GRADERS: dict[str, Grader] = {
    "verify_math": _verify_math,
    "search": _lazily("search", "grade_search"),
    "code": _code,
    "choice": _lazily("short_answers", "grade_choice"),
    "number": _lazily("short_answers", "grade_number"),
    "string": _lazily("short_answers", "grade_text"),
    "instructions": _lazily("instructions", "grade_instructions"),
    "instructions_loose": _lazily("instructions", "grade_instructions_loosely"),
    "judgement": _lazily("judgements", "grade_judgement"),
    "judgement_side": _lazily("judgements", "grade_judgement_side"),
    "refusal": _lazily("refusals", "grade_refusal"),
    "exact": _exact,
    "none": _none,
}


def grader(name: str) -> Grader:
    """The grader of that name, or the function at ``package.module:function``.

    Raises:
      ValueError: unknown (the message names the nearest), or it can't be imported.
    """
    if name in GRADERS:
        return GRADERS[name]
    if ":" in name:
        return resolve(name, "grader")
    raise unknown("grader", name, GRADERS)

"""Reward parts by name, and ``grade``, which turns a request into a reward record."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from r1jax.rewards.format import format_reward, think_format_reward
from r1jax.rewards.graders import grader, resolve, unknown
from r1jax.rewards.penalties import length_penalty, overlong_penalty, repetition_penalty
from r1jax.rewards.record import RewardRecord, RewardRequest, Verdict, as_failure

THINK = "<think>"


@dataclass(frozen=True)
class PartSettings:
    """What some parts can be told; a recipe's ``reward_settings`` (``config.RewardSettings``).

    Attributes:
      overlong_cache: DAPO's ``L_cache`` in tokens; 0 means a fifth of the cap.
      repetition_ngram: tokens that must come again in the same order to count as a repetition.
    """

    overlong_cache: int = 0
    repetition_ngram: int = 20


DEFAULTS = PartSettings()
Part = Callable[[RewardRequest, Verdict, PartSettings], "float | None"]


def _whole(request: RewardRequest) -> str:
    """The completion with the ``<think>`` that the prompt ended with, if it did: the released chat template writes it."""
    return (THINK if request.prompt.rstrip().endswith(THINK) else "") + request.completion


def _accuracy(request: RewardRequest, verdict: Verdict, settings: PartSettings) -> float | None:
    return {Verdict.RIGHT: 1.0, Verdict.WRONG: 0.0}.get(verdict)


def _format(request: RewardRequest, verdict: Verdict, settings: PartSettings) -> float:
    """R1-Zero's form. Where the prompt itself ends by opening ``<think>``, that tag counts as the completion's."""
    return format_reward(_whole(request))


def _think_format(request: RewardRequest, verdict: Verdict, settings: PartSettings) -> float:
    """R1's form. Where the prompt does not end by opening ``<think>``, the completion must begin with it."""
    text = _whole(request).lstrip()
    return think_format_reward(text.removeprefix(THINK)) if text.startswith(THINK) else 0.0


def target_language(request: RewardRequest) -> str:
    """The language that a sample should be in: the row's ``language`` (of a row graded as code that is the program's), else
    that of its problem, else of the prompt. A text in Latin letters that shows no language is taken for English.

    Raises:
      ValueError: none of them has a word.
    """
    from r1jax.rewards.language import detect_language, language_code, word_languages

    if request.row.get("language") and request.row.get("grader") != "code":
        return language_code(request.row["language"])
    texts = [request.row.get(field) for field in ("problem", "question", "Question")] + [request.prompt]
    for text in filter(None, texts):
        if language := detect_language(str(text)):
            return language
        if word_languages(str(text))["Latn"]:
            return "en"
    raise ValueError("neither the row nor the prompt shows a language; give the row a field language")


def _language(request: RewardRequest, verdict: Verdict, settings: PartSettings) -> float:
    from r1jax.rewards.language import language_consistency

    return language_consistency(_whole(request), target_language(request))


def _instructions(request: RewardRequest, verdict: Verdict, settings: PartSettings) -> float:
    from r1jax.rewards.instructions import follow, response_of

    followed = follow(request.row, response_of(_whole(request))).strict
    return sum(followed) / len(followed)


def _judgement_side(request: RewardRequest, verdict: Verdict, settings: PartSettings) -> float | None:
    """Of a row that asks for a judgement: whether the same answer is preferred; None where no verdict can be read."""
    from r1jax.rewards.judgements import grade_judgement_side

    return _accuracy(request, grade_judgement_side(request.row, _whole(request))[0], settings)


def _refuses_unsafe(request: RewardRequest, verdict: Verdict, settings: PartSettings) -> float | None:
    """Whether an unsafe prompt is refused; None for a safe one, and for an answer that says nothing."""
    return _refused(request, unsafe=True)


def _refuses_safe(request: RewardRequest, verdict: Verdict, settings: PartSettings) -> float | None:
    """Over-refusal: whether a safe prompt is refused; None for an unsafe one, and for an answer that says nothing."""
    return _refused(request, unsafe=False)


def _refused(request: RewardRequest, unsafe: bool) -> float | None:
    from r1jax.rewards.refusals import is_unsafe, refuses

    refused = refuses(_whole(request)) if is_unsafe(request.row) is unsafe else None
    return None if refused is None else float(refused)


def _overlong(request: RewardRequest, verdict: Verdict, settings: PartSettings) -> float:
    return overlong_penalty(request.tokens, request.max_tokens, settings.overlong_cache)


def _length(request: RewardRequest, verdict: Verdict, settings: PartSettings) -> float:
    return length_penalty(request.tokens, request.max_tokens)


def _repetition(request: RewardRequest, verdict: Verdict, settings: PartSettings) -> float:
    return repetition_penalty(request.completion, settings.repetition_ngram)


def _random(request: RewardRequest, verdict: Verdict, settings: PartSettings) -> float:
    """A control: 0 or 1 by a fair coin that depends on the sample's identity (``request.extra``, the row), not its text."""
    identity = json.dumps([dict(request.extra), dict(request.row)], sort_keys=True, default=str)
    return float(hashlib.sha256(identity.encode()).digest()[0] & 1)


PARTS: dict[str, Part] = {
    "accuracy": _accuracy,
    "format": _format,
    "think_format": _think_format,
    "language": _language,
    "instructions": _instructions,
    "judgement_side": _judgement_side,
    "refuses_unsafe": _refuses_unsafe,
    "refuses_safe": _refuses_safe,
    "overlong": _overlong,
    "length": _length,
    "repetition": _repetition,
    "random": _random,
}


def part(name: str) -> Part:
    """The reward part of that name, or the user's function at ``package.module:function``.

    A user's function takes the ``RewardRequest`` and returns a number, or None where it can't grade.

    Raises:
      ValueError: unknown (the message names the nearest), or it can't be imported.
    """
    if name in PARTS:
        return PARTS[name]
    if ":" in name:
        function = resolve(name, "reward")
        return lambda request, verdict, settings: function(request)
    raise unknown("reward", name, PARTS)


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a reward of {number}")
    return number


def _failure(name: str, error: Exception) -> str:
    return as_failure(f"{name} failed: {type(error).__name__}: {str(error)[:200]}")


def grade(
    request: RewardRequest,
    parts: Iterable[str],
    default_grader: str = "verify_math",
    settings: PartSettings = DEFAULTS,
) -> RewardRecord:
    """Grades one sample: its verdict by its row's ``grader``, then each of the named parts.

    Graders see the ``<think>`` with which the prompt ended as the completion's: a thought that never ends has no answer.

    What fails is ungraded (the verdict) or None (a part) and says so in the reason; it is never a reward of 0.

    Raises:
      ValueError: a part, or the default grader, has an unknown name.
    """
    functions = {name: part(name) for name in parts}
    name = request.row.get("grader") or default_grader
    if name == default_grader:
        grader(name)
    try:
        verdict, reason = grader(str(name))(request.row, _whole(request))
        verdict = Verdict(verdict)
        reasons = [as_failure(str(reason)) if verdict is Verdict.UNGRADED else str(reason)]
    except Exception as error:  # a user's grader may raise anything
        verdict, reasons = Verdict.UNGRADED, [_failure(f"grader {name}", error)]
    values: dict[str, float | None] = {}
    for key, function in functions.items():
        try:
            values[key] = _number(function(request, verdict, settings))
        except Exception as error:
            values[key] = None
            reasons.append(_failure(f"reward {key}", error))
    return RewardRecord(values, verdict, "; ".join(filter(None, reasons)))

"""Reward parts by name, and ``grade``, which turns a request into a reward record."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from typing import Any

from r1jax.rewards.format import format_reward, think_format_reward
from r1jax.rewards.graders import grader, resolve, unknown
from r1jax.rewards.record import RewardRecord, RewardRequest, Verdict

Part = Callable[[RewardRequest, Verdict], "float | None"]


def _accuracy(request: RewardRequest, verdict: Verdict) -> float | None:
    return {Verdict.RIGHT: 1.0, Verdict.WRONG: 0.0}.get(verdict)


def _format(request: RewardRequest, verdict: Verdict) -> float:
    """R1-Zero's form. Where the prompt itself ends by opening ``<think>``, that tag counts as the completion's."""
    opened = "<think>" if request.prompt.rstrip().endswith("<think>") else ""
    return format_reward(opened + request.completion)


def _think_format(request: RewardRequest, verdict: Verdict) -> float:
    completion = request.completion
    if not request.prompt.rstrip().endswith("<think>"):
        completion = completion.lstrip().removeprefix("<think>")
    return think_format_reward(completion)


def _random(request: RewardRequest, verdict: Verdict) -> float:
    """A control: 0 or 1 by a fair coin that depends on the sample's identity (``request.extra``, the row), not its text."""
    identity = json.dumps([dict(request.extra), dict(request.row)], sort_keys=True, default=str)
    return float(hashlib.sha256(identity.encode()).digest()[0] & 1)


PARTS: dict[str, Part] = {"accuracy": _accuracy, "format": _format, "think_format": _think_format, "random": _random}


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
        return lambda request, verdict: function(request)
    raise unknown("reward", name, PARTS)


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a reward of {number}")
    return number


def _failure(name: str, error: Exception) -> str:
    return f"{name} failed: {type(error).__name__}: {str(error)[:200]}"


def grade(request: RewardRequest, parts: Iterable[str], default_grader: str = "verify_math") -> RewardRecord:
    """Grades one sample: its verdict by its row's ``grader``, then each of the named parts.

    What fails is ungraded (the verdict) or None (a part) and says so in the reason; it is never a reward of 0.

    Raises:
      ValueError: a part, or the default grader, has an unknown name.
    """
    functions = {name: part(name) for name in parts}
    name = request.row.get("grader") or default_grader
    if name == default_grader:
        grader(name)
    try:
        verdict, reason = grader(str(name))(request.row, request.completion)
        verdict, reasons = Verdict(verdict), [str(reason)]
    except Exception as error:  # a user's grader may raise anything
        verdict, reasons = Verdict.UNGRADED, [_failure(f"grader {name}", error)]
    values: dict[str, float | None] = {}
    for key, function in functions.items():
        try:
            values[key] = _number(function(request, verdict))
        except Exception as error:
            values[key] = None
            reasons.append(_failure(f"reward {key}", error))
    return RewardRecord(values, verdict, "; ".join(filter(None, reasons)))

"""Which of a row's instructions a response follows, and the benchmark's four accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from r1jax.rewards.answer import ANSWER_END, ANSWER_START, after_thinking
from r1jax.rewards.instructions.families import FAMILIES, check_arguments
from r1jax.rewards.record import Verdict


class Following(NamedTuple):
    """Per instruction of a row: whether the response follows it, as it is and in the most lenient of eight readings."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


def check_row(row: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The instructions of a row: (family, arguments). Arguments of None are left out, as some copies of the benchmark
    give every instruction all arguments.

    Raises:
      ValueError: the row's ``instruction_id_list`` and ``kwargs`` are missing, of different lengths or can't be checked.
    """
    families, arguments = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(families, list) or not families:
        raise ValueError(f"the row needs an instruction_id_list that names an instruction, not {families!r:.60}")
    if not isinstance(arguments, list) or len(arguments) != len(families):
        raise ValueError(
            f"the row needs kwargs, one mapping for each of {len(families)} instructions, not {arguments!r:.60}"
        )
    instructions = []
    for family, given in zip(families, arguments):
        present = {name: value for name, value in (given or {}).items() if value is not None}
        check_arguments(family, present)
        instructions.append((family, present))
    return instructions


def response_of(completion: str) -> str:
    """What a completion says to its reader: after the last ``</think>`` and out of ``<answer>`` tags around all of it. A
    thought that never ends says nothing."""
    response = after_thinking(completion)
    if response is completion and "<think>" in completion:
        return ""
    bare = response.strip()
    if bare.startswith(ANSWER_START) and bare.endswith(ANSWER_END):
        return bare[len(ANSWER_START) : -len(ANSWER_END)].strip()
    return bare


def _readings(response: str) -> list[str]:
    """The response as it is, and without its first line, last line, both; each also without asterisks."""
    lines = response.split("\n")
    cut = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return list(dict.fromkeys([*cut, *(text.replace("*", "") for text in cut)]))


def follow(row: Mapping[str, Any], response: str) -> Following:
    """Which instructions a response follows. One that says nothing follows none.

    Raises:
      ValueError: the row's instructions can't be checked.
    """
    strict, loose = [], []
    readings = [reading for reading in _readings(response) if reading.strip()]
    for family, arguments in check_row(row):
        check = FAMILIES[family][0]
        strict.append(bool(response.strip()) and check(response, **arguments))
        loose.append(strict[-1] or any(check(reading, **arguments) for reading in readings[1:]))
    return Following(tuple(strict), tuple(loose))


def accuracies(followings: Sequence[Following]) -> dict[str, float]:
    """``prompt_strict``, ``instruction_strict``, ``prompt_loose``, ``instruction_loose``: shares of prompts whose every
    instruction was followed, and of all instructions.

    Raises:
      ValueError: there is nothing to average.
    """
    if not followings:
        raise ValueError("no responses: accuracies need at least one")
    figures = {}
    for name in ("strict", "loose"):
        followed = [getattr(following, name) for following in followings]
        figures[f"prompt_{name}"] = sum(map(all, followed)) / len(followed)
        figures[f"instruction_{name}"] = sum(map(sum, followed)) / sum(map(len, followed))
    return figures


def _verdict(row: Mapping[str, Any], followed: Sequence[bool]) -> tuple[Verdict, str]:
    missed = [family for family, done in zip(row["instruction_id_list"], followed) if not done]
    if not missed:
        return Verdict.RIGHT, f"follows all {len(followed)} instructions"
    return Verdict.WRONG, f"does not follow {', '.join(missed)}"


def grade_instructions(row: Mapping[str, Any], completion: str) -> tuple[Verdict, str]:
    """Right if the response follows every instruction of the row, strictly.

    Raises:
      ValueError: the row's instructions can't be checked.
    """
    return _verdict(row, follow(row, response_of(completion)).strict)


def grade_instructions_loosely(row: Mapping[str, Any], completion: str) -> tuple[Verdict, str]:
    """Right if the response follows every instruction of the row in some lenient reading each: for benchmarks."""
    return _verdict(row, follow(row, response_of(completion)).loose)

"""A judge's verdict in its words: a label that compares two answers, or whether one agrees with a reference.

Nothing of a text is evaluated or trusted to be JSON: what stands between the marks is looked up in a table. The last verdict
counts, since a judge may weigh others on its way there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from r1jax.rewards.graders import row_answer
from r1jax.rewards.instructions import response_of
from r1jax.rewards.record import Verdict

# Arena-Hard's labels. How the paper counts them is not published; so spaced, its bound "mean difference over 1" asks for more
# than a slight preference.
PREFERENCES = {"A>>B": 2.0, "A>B": 1.0, "A=B": 0.0, "B>A": -1.0, "B>>A": -2.0}
CORRECTNESS = {"correct": 1.0, "incorrect": 0.0}

_LABEL = re.compile(r"\[\[\s{0,9}(?:(A)\s{0,9}(>>|<<|[><=])\s{0,9}B|(B)\s{0,9}(>>|<<|[><=])\s{0,9}A)\s{0,9}\]\]")
_MIRRORED = str.maketrans("<>", "><")
# Within a JSON text this can only be a key with its value: inside a string the quotes would have backslashes.
_CORRECTNESS = re.compile(r'(?<!\\)"correctness"\s{0,99}:\s{0,99}"([^"\\\n]{0,99})"')


def judges_words(completion: str, prompt: str = "") -> str:
    """What a judge says itself: after its thought, and without the lines that it repeats from its prompt, in which labels
    stand that are no verdict. A thought that never ends says nothing, also where the prompt itself opened it."""
    if prompt.rstrip().endswith("<think>"):
        completion = "<think>" + completion
    repeated = {line.strip() for line in prompt.splitlines()}
    lines = response_of(completion).splitlines()
    return "\n".join(line for line in lines if line.strip() not in repeated)


def without_verdicts(text: str) -> str:
    """The text so that nothing in it can be read as a verdict: what is to be judged must neither speak for the judge, should that
    repeat it, nor, by holding a verdict's line, have the judge's own taken for a repetition."""
    return _LABEL.sub(lambda label: f"[ {label[0][1:-1]} ]", text).replace('"correctness"', "correctness")


def read_preference(text: str) -> str | None:
    """The last of a text's labels ``[[A>>B]] [[A>B]] [[A=B]] [[B>A]] [[B>>A]]``, without brackets, a key of ``PREFERENCES``;
    None where there is none. ``[[A<B]]`` and ``[[B=A]]`` are other spellings of these."""
    found = None
    for match in _LABEL.finditer(text):
        first, sign = ("A", match[2]) if match[1] else ("B", match[4])
        if "<" in sign:
            first, sign = ("B" if first == "A" else "A"), sign.translate(_MIRRORED)
        found = "A=B" if sign == "=" else f"{first}{sign}{'B' if first == 'A' else 'A'}"
    return found


def read_correctness(text: str) -> str | None:
    """The last value of a key ``correctness`` in the JSON of a text (bare, in a fence, amid prose, with broken escapes), a key
    of ``CORRECTNESS``; None where there is none, or the last says something else."""
    found = None
    for match in _CORRECTNESS.finditer(text):
        found = match[1].strip().lower()
    return found if found in CORRECTNESS else None


def read_verdict(text: str) -> tuple[str, float] | None:
    """(verdict, its value) of either form, or None. Where a text has both, the label counts."""
    for read, values in ((read_preference, PREFERENCES), (read_correctness, CORRECTNESS)):
        if (found := read(text)) is not None:
            return found, values[found]
    return None


# ---------------------------------------------------------------------------------------------- a benchmark of judges
def judgement_label(completion: str) -> str | None:
    """The verdict that a completion ends in; None where none can be read."""
    verdict = read_verdict(judges_words(completion))
    return None if verdict is None else verdict[0]


def judgement_side(completion: str) -> int | None:
    """The answer that it prefers (1: the first, -1: the second, 0: neither), or whether it calls an answer correct."""
    verdict = read_verdict(judges_words(completion))
    return None if verdict is None else _side(verdict[1])


def _side(value: float) -> int:
    return (value > 0) - (value < 0)


def grade_judgement(row: Mapping[str, Any], completion: str) -> tuple[Verdict, str]:
    """Whether a judge's verdict is the row's own, to the letter; ungraded where it can't be read.

    Raises:
      ValueError: the row's answer is no verdict.
    """
    return _grade(row, completion, lambda value: value)


def grade_judgement_side(row: Mapping[str, Any], completion: str) -> tuple[Verdict, str]:
    """As ``grade_judgement``, but ``>>`` and ``>`` are one: whether the judge prefers the same answer."""
    return _grade(row, completion, _side)


def _grade(row, completion, of_value) -> tuple[Verdict, str]:
    right = read_verdict(row_answer(row))
    if right is None:
        raise ValueError(
            f"the row's answer is no verdict, neither a label such as [[A>B]] nor JSON: {row_answer(row)!r:.80}"
        )
    given = read_verdict(judges_words(completion, str(row.get("problem", ""))))
    if given is None:
        return Verdict.UNGRADED, "no verdict can be read"
    # A label never agrees with a correctness: 1.0 is a value of both.
    same = (right[0] in PREFERENCES) == (given[0] in PREFERENCES) and of_value(right[1]) == of_value(given[1])
    return (Verdict.RIGHT if same else Verdict.WRONG), f"{given[0]} against {right[0]}"

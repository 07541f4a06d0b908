"""The grader ``string``: the final answer is one of the accepted texts."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from r1jax.rewards.answer import extract_answer
from r1jax.rewards.record import Verdict

MAX_CHARACTERS = 2_000
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_TEXT_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm|tt)?|mathrm|mathbf|boxed)\s?\{([^{}]{0,2000})\}")


def normalise(text: str) -> str:
    """Text as it is compared: composed, without case, LaTeX's text commands, punctuation, English articles and needless
    blanks. A minus sign or point within a number stays."""
    text = unicodedata.normalize("NFKC", _TEXT_COMMAND.sub(r"\1", text[:MAX_CHARACTERS])).casefold()
    text = re.sub(r"[‐‑‒–—−]", "-", text)
    kept = "".join(
        character
        if character.isalnum()
        or unicodedata.category(character).startswith("M")
        or (character in ".-+%°" and text[place + 1 : place + 2].isdigit() or character in "%°" or character in "+#")
        else " "
        for place, character in enumerate(text)
    )
    bare = " ".join(kept.split())
    return " ".join(_ARTICLES.sub(" ", bare).split()) or bare  # the answer may be "A"


def unpacked(value: Any) -> Any:
    """A list that a prompt set has turned into text (``data.load_prompts`` makes every answer a text), else the value."""
    if isinstance(value, str) and value.lstrip().startswith("[") and len(value) <= MAX_CHARACTERS:
        try:
            found = json.loads(value)
        except ValueError:
            return value
        return found if isinstance(found, list) else value
    return value


def accepted_texts(row: Mapping[str, Any]) -> list[str]:
    """The texts that a row accepts: ``answers`` (a list), or ``answer`` (a text, or a list of them).

    Raises:
      ValueError: it names none.
    """
    for field in ("answers", "answer", "solution"):
        value = unpacked(row.get(field))
        if value is not None and not (value == "" and field != "solution"):
            values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            if values and all(isinstance(v, (str, int, float)) and normalise(str(v)) for v in values):
                return [str(v) for v in values]
            raise ValueError(f"{field} must be a text or a list of texts that say something, not {value!r:.100}")
    raise ValueError(f"the row gives no answer; its fields are {', '.join(map(str, row)) or 'none'}")


def grade_text(row: Mapping[str, Any], completion: str) -> tuple[Verdict, str]:
    """Right if the final answer (``answer.extract_answer``) is one of the accepted texts, case, punctuation, English
    articles and blanks aside. More than the answer is wrong: "Paris or Rome" is not Paris.

    Raises:
      ValueError: the row gives no answer.
    """
    accepted = {normalise(text) for text in accepted_texts(row)}
    answer = extract_answer(completion)
    if answer is None:
        return Verdict.WRONG, "no final answer"
    given = normalise(answer) if len(answer) <= MAX_CHARACTERS else ""
    shown = " or ".join(sorted(accepted))[:60]
    return (Verdict.RIGHT if given and given in accepted else Verdict.WRONG), f"{given[:60]!r} against {shown!r}"

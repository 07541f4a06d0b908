"""Filters: pure functions ``(text, row) -> reason or None``. The reason is a few words, the same for all texts of its kind.

``text`` is a whole completion, its ``<think>`` included; ``row`` the prompt's row with ``problem``, ``prompt`` (as the model
was given it) and ``finish_reason``. The paper drops mixed languages, long paragraphs and code blocks; the bounds are ours
(``config.FilterSettings``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from r1jax import config
from r1jax.rewards import RewardRequest, format_reward, language_consistency
from r1jax.rewards.language import reasoning, word_languages
from r1jax.rewards.parts import target_language
from r1jax.rewards.penalties import repeated_ngrams, repeated_units

Row = Mapping[str, Any]
Filter = Callable[[str, Row], "str | None"]

FORMS = ("think", "zero")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_GAP = re.compile(r"\n[ \t]*\n")


def split_thought(text: str) -> tuple[str, str] | None:
    """``(reasoning, summary)`` of ``<think>reasoning</think>summary``, R1's format; None if it is anything else."""
    opened, closed = text.count("<think>"), text.count("</think>")
    if opened != 1 or closed != 1 or not text.lstrip().startswith("<think>"):
        return None
    thought, _, summary = text.partition("<think>")[2].partition("</think>")
    return thought.strip(), summary.strip()


def truncated(text: str, row: Row) -> str | None:
    """What the length cap ended."""
    return "truncated" if row.get("finish_reason") == "length" else None


def think_form(text: str, row: Row) -> str | None:
    """R1's format: one thought first, then a summary; both say something."""
    parts = split_thought(text)
    if parts is None:
        return "format"
    thought, summary = (any(map(str.isalnum, part)) for part in parts)
    return "format" if not thought else None if summary else "no summary"


def zero_form(text: str, row: Row) -> str | None:
    """R1-Zero's format."""
    return None if format_reward(text) else "format"


def mixed_languages(text: str, row: Row, least_share: float) -> str | None:
    """A reasoning of which less than ``least_share`` is in the problem's language. One without any word passes."""
    if not word_languages(reasoning(text)):
        return None
    language = target_language(RewardRequest(row, str(row.get("prompt", "")), text))
    return "mixed languages" if language_consistency(text, language) < least_share else None


def long_paragraph(text: str, row: Row, longest: int) -> str | None:
    """A reasoning with a paragraph of more than ``longest`` characters; blank lines part paragraphs."""
    return "long paragraph" if max(map(len, _GAP.split(reasoning(text)))) > longest else None


def code_block(text: str, row: Row) -> str | None:
    """A reasoning with fenced code. In the summary it is welcome: there a program is the answer."""
    return "code block" if _FENCE.search(reasoning(text)) else None


def repetition(text: str, row: Row, ngram: int, most: float) -> str | None:
    """A text that says the same again and again."""
    return "repetition" if max(repeated_ngrams(text, ngram), repeated_units(text)) > most else None


def make_filters(names: Sequence[str], form: str, settings: config.FilterSettings, where: str) -> list[Filter]:
    """The named filters: built-in ones, or the user's ``package.module:function``.

    Raises:
      RecipeError: a name that is unknown or can't be imported, a bound out of range.
    """
    if form not in FORMS:
        raise config.RecipeError(f"{where}.form {form!r} is unknown{config.nearest(form, FORMS)}")
    for key, value, good in (
        ("least_language_share", settings.least_language_share, 0 <= settings.least_language_share <= 1),
        ("most_repetition", settings.most_repetition, 0 <= settings.most_repetition <= 1),
        ("longest_paragraph", settings.longest_paragraph, settings.longest_paragraph > 0),
        ("repetition_ngram", settings.repetition_ngram, settings.repetition_ngram > 0),
    ):
        if not good:
            raise config.RecipeError(f"{where}.filter_settings.{key} can't be {value}")
    built_in: dict[str, Filter] = {
        "truncated": truncated,
        "format": zero_form if form == "zero" else think_form,
        "language": lambda text, row: mixed_languages(text, row, settings.least_language_share),
        "paragraphs": lambda text, row: long_paragraph(text, row, settings.longest_paragraph),
        "code": code_block,
        "repetition": lambda text, row: repetition(text, row, settings.repetition_ngram, settings.most_repetition),
    }
    filters = []
    for name in names:
        if name not in built_in and ":" not in name:
            raise config.RecipeError(
                f"{where}.filters: unknown filter {name!r}{config.nearest(name, list(built_in))} (or package.module:function)"
            )
        filters.append(built_in[name] if name in built_in else own_filter(name, f"{where}.filters"))
    return filters


def own_filter(name: str, where: str) -> Filter:
    """The user's function; what it returns is checked, and what it raises names it.

    Raises:
      RecipeError: it can't be imported or is no function. From the filter, ValueError: it returned neither text nor None.
    """
    function = config.import_name(name, where)
    if not callable(function):
        raise config.RecipeError(f"{where}: {name} is no function")

    def ask(text: str, row: Row) -> str | None:
        reason = function(text, row)
        if reason is not None and (not isinstance(reason, str) or not reason):
            raise ValueError(f"{where}: {name} must return a reason as text, or None, not {reason!r:.80}")
        return reason

    return ask


def first_reason(filters: Iterable[Filter], text: str, row: Row) -> str | None:
    """The reason of the first filter that has one: a text is counted once."""
    return next((reason for each in filters if (reason := each(text, row)) is not None), None)

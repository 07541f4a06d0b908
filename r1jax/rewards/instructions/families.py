"""One function per family: ``check(text, **kwargs) -> bool``, whether a text follows the instruction.

The definitions are the public benchmark's, with these departures. Keywords are literal, not patterns. Sentences, words in
capitals and languages are found by rules of our own (``counting``, ``r1jax.rewards.language``) instead of nltk and
langdetect; a text without any word follows no instruction on its language. Each check takes linear time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from r1jax.rewards.instructions.counting import count_capital_words, count_sentences, count_words
from r1jax.rewards.language import language_code, word_languages

RELATIONS = ("less than", "at least")
CONSTRAINED_RESPONSES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def _holds(count: int, relation: str, bound: int) -> bool:
    return count < bound if relation == "less than" else count >= bound


# ------------------------------------------------------------------------------------------------- keywords
def keywords_existence(text: str, *, keywords: Sequence[str]) -> bool:
    """Each keyword occurs, also within words and in any case."""
    text = text.lower()
    return all(keyword.lower() in text for keyword in keywords)


def keywords_frequency(text: str, *, keyword: str, frequency: int, relation: str) -> bool:
    return _holds(text.lower().count(keyword.strip().lower()), relation, frequency)


def forbidden_words(text: str, *, forbidden_words: Sequence[str]) -> bool:
    """None of them occurs as a word of its own."""
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(text: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _holds(text.lower().count(letter.strip().lower()), let_relation, let_frequency)


# ------------------------------------------------------------------------------------------------- language and case
def _mostly(text: str, codes: Sequence[str]) -> bool:
    counts = word_languages(text)
    best = max(counts, key=lambda code: counts[code], default=None)
    return best in codes


def response_language(text: str, *, language: str) -> bool:
    """Most words are of the language."""
    return _mostly(text, (language_code(language),))


def english_capital(text: str) -> bool:
    """English, every letter that has a case a capital. What shows no other language of the Latin script is English."""
    return text.isupper() and (_mostly(text, ("en", "Latn")) or not word_languages(text))


def english_lowercase(text: str) -> bool:
    return text.islower() and (_mostly(text, ("en", "Latn")) or not word_languages(text))


def capital_word_frequency(text: str, *, capital_frequency: int, capital_relation: str) -> bool:
    return _holds(count_capital_words(text), capital_relation, capital_frequency)


# ------------------------------------------------------------------------------------------------- length
def number_words(text: str, *, num_words: int, relation: str) -> bool:
    return _holds(count_words(text), relation, num_words)


def number_sentences(text: str, *, num_sentences: int, relation: str) -> bool:
    return _holds(count_sentences(text), relation, num_sentences)


def number_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    """So many paragraphs between the dividers ``***``; an empty one only before the first or after the last divider."""
    paragraphs = text.split("***")
    inner = paragraphs[1:-1]
    if not all(paragraph.strip() for paragraph in inner):
        return False
    return sum(bool(paragraph.strip()) for paragraph in paragraphs) == num_paragraphs


def nth_paragraph_first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """So many paragraphs between empty lines, the n-th (from 1) beginning with the word."""
    paragraphs = text.split("\n\n")
    present = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    if present != num_paragraphs or not 1 <= nth_paragraph <= present:
        return False
    words = paragraphs[nth_paragraph - 1].split()
    return bool(words) and re.split(r"[.,?!'\"]", words[0].lstrip("'").lstrip('"'))[0].lower() == first_word.lower()


# ------------------------------------------------------------------------------------------------- content and format
def number_placeholders(text: str, *, num_placeholders: int) -> bool:
    """At least so many ``[placeholders]``."""
    count = 0
    for line in text.split("\n"):
        place = line.find("[")
        while place >= 0 and (end := line.find("]", place)) >= 0:
            count += 1
            place = line.find("[", end)
    return count >= num_placeholders


def postscript(text: str, *, postscript_marker: str) -> bool:
    """The marker occurs; ``P.S.`` and ``P.P.S`` may be spaced."""
    marker = postscript_marker.strip()
    pattern = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}.get(marker, re.escape(marker.lower()))
    return re.search(pattern, text.lower()) is not None


def number_bullet_lists(text: str, *, num_bullets: int) -> bool:
    """Exactly so many lines that begin with ``-`` or a single ``*``."""
    lines = [line.lstrip() for line in text.split("\n")]
    stars = sum(line.startswith("*") and len(line) > 1 and line[1] != "*" for line in lines)
    return stars + sum(line.startswith("-") for line in lines) == num_bullets


def constrained_response(text: str) -> bool:
    """One of the three answers to choose from occurs."""
    return any(option in text for option in CONSTRAINED_RESPONSES)


def number_highlighted_sections(text: str, *, num_highlights: int) -> bool:
    """At least so many ``*highlights*`` or ``**highlights**``, each within a line."""
    single = sum(bool(found.strip("*").strip()) for found in re.findall(r"\*[^\n*]*\*", text))
    double = sum(bool(found[2:-2].strip()) for found in re.findall(r"\*\*[^\n*]*\*\*", text))
    return single + double >= num_highlights


def multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many ``Section 1``, ``Section 2``, ..."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)) >= num_sections


def json_format(text: str) -> bool:
    """The whole is JSON, bare or fenced."""
    bare = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        bare = bare.removeprefix(fence)
    try:
        json.loads(bare.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    """A ``<<title>>`` that says something."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and end >= start + 3 and line[start:end].strip("<> \t\r\f\v"):
            return True
    return False


# ------------------------------------------------------------------------------------------------- the whole
def two_responses(text: str) -> bool:
    """Two different responses with ``******`` between them."""
    parts = [part.strip() for part in text.split("******")]
    responses = [part for part in parts if part]
    return all(parts[1:-1]) and len(responses) == 2 and responses[0] != responses[1]


def repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    """It begins with the request, word for word."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(text: str, *, end_phrase: str) -> bool:
    """It ends with the phrase, quotes aside."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(text: str) -> bool:
    """All of it stands between double quotation marks."""
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def no_comma(text: str) -> bool:
    return "," not in text


_TEXT, _COUNT, _TEXTS, _RELATION = "a text", "a whole number from 0 up", "a list of texts", f"one of {', '.join(RELATIONS)}"

# id -> (check, its arguments and what each must be)
FAMILIES: dict[str, tuple[Callable[..., bool], dict[str, str]]] = {
    "keywords:existence": (keywords_existence, {"keywords": _TEXTS}),
    "keywords:frequency": (keywords_frequency, {"keyword": _TEXT, "frequency": _COUNT, "relation": _RELATION}),
    "keywords:forbidden_words": (forbidden_words, {"forbidden_words": _TEXTS}),
    "keywords:letter_frequency": (letter_frequency, {"letter": _TEXT, "let_frequency": _COUNT, "let_relation": _RELATION}),
    "language:response_language": (response_language, {"language": _TEXT}),
    "length_constraints:number_sentences": (number_sentences, {"num_sentences": _COUNT, "relation": _RELATION}),
    "length_constraints:number_paragraphs": (number_paragraphs, {"num_paragraphs": _COUNT}),
    "length_constraints:number_words": (number_words, {"num_words": _COUNT, "relation": _RELATION}),
    "length_constraints:nth_paragraph_first_word": (
        nth_paragraph_first_word,
        {"num_paragraphs": _COUNT, "nth_paragraph": _COUNT, "first_word": _TEXT},
    ),
    "detectable_content:number_placeholders": (number_placeholders, {"num_placeholders": _COUNT}),
    "detectable_content:postscript": (postscript, {"postscript_marker": _TEXT}),
    "detectable_format:number_bullet_lists": (number_bullet_lists, {"num_bullets": _COUNT}),
    "detectable_format:constrained_response": (constrained_response, {}),
    "detectable_format:number_highlighted_sections": (number_highlighted_sections, {"num_highlights": _COUNT}),
    "detectable_format:multiple_sections": (multiple_sections, {"section_spliter": _TEXT, "num_sections": _COUNT}),
    "detectable_format:json_format": (json_format, {}),
    "detectable_format:title": (title, {}),
    "combination:two_responses": (two_responses, {}),
    "combination:repeat_prompt": (repeat_prompt, {"prompt_to_repeat": _TEXT}),
    "startend:end_checker": (end_checker, {"end_phrase": _TEXT}),
    "startend:quotation": (quotation, {}),
    "change_case:capital_word_frequency": (
        capital_word_frequency,
        {"capital_frequency": _COUNT, "capital_relation": _RELATION},
    ),
    "change_case:english_capital": (english_capital, {}),
    "change_case:english_lowercase": (english_lowercase, {}),
    "punctuation:no_comma": (no_comma, {}),
}
_VALID: dict[str, Callable[[object], bool]] = {
    _TEXT: lambda value: isinstance(value, str) and bool(value.strip()),
    _COUNT: lambda value: type(value) is int and value >= 0,
    _TEXTS: lambda value: isinstance(value, list) and bool(value) and all(isinstance(v, str) and v for v in value),
    _RELATION: lambda value: value in RELATIONS,
}


def check_arguments(family: str, arguments: dict[str, object]) -> None:
    """Refuses arguments that a family's check can't work with.

    Raises:
      ValueError: an unknown family, an argument too many or too few, or one of the wrong kind.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown instruction {family!r}; known: {', '.join(FAMILIES)}")
    wanted = FAMILIES[family][1]
    if set(arguments) != set(wanted):
        raise ValueError(f"{family} takes {', '.join(wanted) or 'no arguments'}, not {', '.join(arguments) or 'none'}")
    for name, kind in wanted.items():
        if not _VALID[kind](arguments[name]):
            raise ValueError(f"{family}: {name} must be {kind}, not {arguments[name]!r:.60}")
    if family == "language:response_language":
        language_code(str(arguments["language"]))

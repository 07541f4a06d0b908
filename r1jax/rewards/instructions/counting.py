"""Words and sentences as the instructions count them. Every search here takes linear time."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"\w+")
_CAPITAL = re.compile(r"[^\W_]+(?:[-.&/*][^\W_]+)*")
# A stop, with the quotes and brackets that close with it, before a blank or the end; CJK stops need no blank.
_STOP = re.compile(r"([.!?]+)[\"'”’»)\]}*_`]*(?=\s|\Z)|[。！？]+[」』”’）]*")
_TITLES = frozenset("mr mrs ms dr prof rev hon gen col lt sgt capt sen rep gov st mt ft messrs".split())
_ABBREVIATIONS = frozenset(
    "jr sr vs inc ltd co corp dept a.m p.m u.s u.k u.n u.s.a ph.d m.d b.a m.a d.c l.a jan feb mar apr jun jul aug sep sept oct nov "
    "dec mon tue wed thu fri sat".split()
)
# What begins a sentence even after an abbreviation.
_STARTERS = frozenset(
    "he she it they we you i the this that these those there then a an in on at by for but and so if when while however after "
    "before also his her their our my its as with what who how why".split()
)


def count_words(text: str) -> int:
    """Runs of letters, digits and underscores; the marks that some scripts set on letters divide no word."""
    if not text.isascii():
        text = "".join(character for character in text if not unicodedata.category(character).startswith("M"))
    return sum(1 for _ in _WORD.finditer(text))


def count_capital_words(text: str) -> int:
    """Words all in capitals, ``I`` and ``A`` among them (also the I of ``I'm``); a hyphenated word is one."""
    return sum(match[0].isupper() for match in _CAPITAL.finditer(text))


def _last_word(text: str, end: int) -> str:
    """The word that ends at ``end``, its opening quotes and brackets aside; its last 24 characters if it is longer."""
    return (
        (text[max(0, end - 24) : end].split() or [""])[-1].lstrip("\"'“‘([{*_") if not text[end - 1 : end].isspace() else ""
    )


def _ends_sentence(text: str, match: re.Match) -> bool:
    """Whether a stop ends a sentence, as the benchmark's trained splitter (nltk's Punkt) mostly has it: ``?`` and ``!`` do,
    an ellipsis or a number's stop before anything but a small letter, an initial's and a title's never, an abbreviation's
    before a word that begins sentences. A list's ``1.`` so counts as a sentence, as it does there."""
    stop = match[1] or ""
    if not stop.startswith(".") or set(stop) != {"."}:
        return True
    following = (text[match.end() : match.end() + 40].split() or [""])[0].lstrip("\"'“‘([{*_")
    word = _last_word(text, match.start())
    if len(stop) > 1 or word.isdigit():
        return not following[:1].islower()
    if not word:
        return False
    if (len(word) == 1 and word.isupper() and word != "I") or word.casefold() in _TITLES:
        return False
    if word.casefold() in _ABBREVIATIONS or re.fullmatch(r"(?:[A-Z]\.)+[A-Z]", word):
        return not following or (following[:1].isupper() and following.strip(".,").casefold() in _STARTERS)
    return True


def count_sentences(text: str) -> int:
    """How many sentences a text has. A line without a stop belongs to the sentence that follows it."""
    count = start = 0
    for match in _STOP.finditer(text):
        if _ends_sentence(text, match):
            count += any(map(str.isalnum, text[start : match.end()]))
            start = match.end()
    return count + any(map(str.isalnum, text[start:]))

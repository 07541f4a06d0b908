"""Words and their scripts. Every search here takes linear time."""

from __future__ import annotations

import re
from typing import NamedTuple

# Letters and the marks that stand within words, without digits and punctuation. A script's name is ISO 15924's.
_LETTERS = {
    "Latn": "A-Za-zªºÀ-ÖØ-öø-ɏɐ-ʯ\u0300-\u036fḀ-ỿⱠ-ⱿꜢ-ꟿＡ-Ｚａ-ｚ",
    "Hani": "々〇\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af",
    "Kana": "ぁ-ゖゝ-ゟァ-ヺー-ヿㇰ-ㇿｦ-ﾟ",
    "Hang": "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb",
    "Cyrl": "\u0400-\u052f\u1c80-\u1c8a\u2de0-\u2dff\ua640-\ua69f",
    "Arab": "\u0610-\u061a\u0620-\u065f\u066e-\u06d3\u06d5-\u06dc\u06df-\u06ef\u06fa-\u06ff\u0750-\u077f\u0870-\u08ff\u200c",
    "Deva": "\u0900-\u0963\u0971-\u097f\u200d",
    "Grek": "\u0370-\u0373\u0376-\u037d\u037f-\u03ff\u1f00-\u1fff",
    "Hebr": "\u0591-\u05bd\u05bf-\u05f4",
    "Armn": "\u0531-\u0556\u0560-\u0588",
    "Beng": "\u0980-\u09e3\u09f0\u09f1",
    "Guru": "\u0a00-\u0a65\u0a70-\u0a7f",
    "Gujr": "\u0a80-\u0ae5\u0af9-\u0aff",
    "Orya": "\u0b00-\u0b65\u0b71",
    "Taml": "\u0b80-\u0be5",
    "Telu": "\u0c00-\u0c65",
    "Knda": "\u0c80-\u0ce5",
    "Mlym": "\u0d00-\u0d65\u0d7a-\u0d7f",
    "Sinh": "\u0d80-\u0de5\u0df2\u0df3",
    "Thai": "\u0e01-\u0e3a\u0e40-\u0e4e",
    "Laoo": "\u0e80-\u0ecf\u0edc-\u0edf",
    "Tibt": "\u0f00\u0f35-\u0f39\u0f40-\u0fbc",
    "Mymr": "\u1000-\u103f\u1050-\u108f",
    "Geor": "\u10a0-\u10fa\u10fc-\u10ff\u1c90-\u1cbf",
    "Ethi": "\u1200-\u135a\u1380-\u138f",
    "Khmr": "\u1780-\u17d3",
    "Mong": "\u1820-\u18aa",
}
# Scripts written without spaces: (n, d) reads "d characters are n words". Han: 1.64 characters a word in cmath_zh and 1.78
# in dpo_zh_demo by jieba's segmentation; the rest are round figures for running text.
_UNSPACED = {"Hani": (3, 5), "Kana": (1, 2), "Thai": (1, 4), "Laoo": (1, 4), "Khmr": (1, 5), "Mymr": (1, 5)}
UNSPACED = frozenset(_UNSPACED)

_SENTENCE_END = "[.!?;:\n。！？；：؟۔।॥…]"
_SIGNS = r"[0-9 \t#$%&()*+,/<=>@\\^_{}|~\"-]"  # taken a run at a time
_WORDS = re.compile(
    "|".join(
        # Blanks inside a run of an unspaced script don't make more words of it.
        f"(?P<{script}>[{letters}]+(?:[ \\u3000]+[{letters}]+)*)"
        if script in _UNSPACED
        else f"(?P<{script}>[{letters}]+(?:['’][{letters}]+)*)"
        for script, letters in _LETTERS.items()
    )
    + f"|(?P<Zyyy>{_SENTENCE_END}+)|(?P<Zzzz>[^\\W\\d_]+)|(?P<Zsym>{_SIGNS}+)"
)
_CODE_BEFORE = frozenset("0123456789_\\@#")
_CODE_AFTER = frozenset("0123456789_(@")
_ACRONYM = 5  # the longest word in capitals that is taken for a name of a thing: GCD, HTML, IV


class Word(NamedTuple):
    """A word, or a run of a script that separates none; ``count`` words of ``script`` in sentence number ``sentence``."""

    text: str
    script: str
    count: int
    sentence: int


def _count(script: str, text: str) -> int:
    """How many words a run is: of an unspaced script by its length, rounded, at least one."""
    if script not in _UNSPACED:
        return 1
    words, characters = _UNSPACED[script]
    length = len(text) - text.count(" ") - text.count("\u3000")
    return max(1, (2 * words * length + characters) // (2 * characters))


def _is_code(text: str, match: re.Match) -> bool:
    """Whether a Latin word is a variable, an identifier or part of one: ``x``, ``my_sum``, ``fooBar``, ``math.pi``, ``f(``."""
    start, end = match.span()
    word = match[0]
    if len(word) == 1 or any(a.islower() and b.isupper() for a, b in zip(word, word[1:])):
        return True
    if start and (text[start - 1] in _CODE_BEFORE or (text[start - 1] == "." and start > 1 and text[start - 2].isalnum())):
        return True
    following = text[end : end + 2]
    return (
        following[:1] in _CODE_AFTER
        if len(following) < 2
        else (following[0] in _CODE_AFTER or (following[0] == "." and following[1].isalpha() and following[1].isascii()))
    )


def split_words(text: str) -> list[Word]:
    """The words of a text without its formulas and code (``prose``), in order.

    A word of a spaced script is a run of its letters. A run of Han counts 3/5 of its characters, rounded (at least 1), of
    kana a half, of Thai and Lao a quarter, of Khmer and Burmese a fifth. Single Latin letters, identifiers and acronyms are
    no words of a language; in a text that is mostly capitals the latter are.
    """
    words = []
    acronyms = []  # places in words
    sentence = 0
    for match in _WORDS.finditer(text):
        script, word = match.lastgroup, match[0]
        if script == "Zsym":
            continue
        if script == "Zyyy":
            sentence += 1
            continue
        if script == "Latn":
            if _is_code(text, match):
                continue
            if len(word) <= _ACRONYM and word.isupper():
                acronyms.append(len(words))
        elif script == "Zzzz" and not any(map(str.isalpha, word)):  # ½, ²
            continue
        words.append(Word(word, script, _count(script, word), sentence))
    if acronyms and not _shouts(words):
        dropped = set(acronyms)
        words = [word for place, word in enumerate(words) if place not in dropped]
    return words


def _shouts(words: list[Word]) -> bool:
    """Whether most words are Latin ones in capitals: then short ones are no acronyms."""
    capitals = sum(word.script == "Latn" and word.text.isupper() for word in words)
    return 2 * capitals > sum(word.count for word in words)


_FENCE = re.compile(r"```|~~~")
_BEGIN = re.compile(r"\\begin\{([a-z]{1,20}\*?)\}")
_PAIRS = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("`", "`"))
_NOT_PROSE = re.compile(
    r"(?:https?://|www\.)[^\s\u3000-\u9fff]{1,2000}"  # addresses
    r"|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]{1,100}"
    r"|\\[A-Za-z]{1,40}"  # commands outside of formulas
    r"|</?[A-Za-z][A-Za-z0-9_-]{0,40}>"  # tags
    r"|(?<![A-Za-z0-9_/.-])~?/?[\w.-]{1,100}(?:/[\w.-]{1,100}){2,20}"  # paths
    r"|&[a-z]{2,8};"
)
GAP = " \x1f "  # stands for what is left out: no letter, no sentence's end, and it joins no run
# Prose in the place of code or a formula: so many letters (a Han character is three), with so few signs among them.
_PROSE_LETTERS = 60
_LETTERS_PER_SIGN = 15
_PUNCTUATION = frozenset(" \t\r\n,.;:!?'\"“”‘’-–—，。；：！？、（）()《》…`$")


def _is_prose(text: str) -> bool:
    """Whether what stands between marks is a text in disguise: nobody hides a language in dollar signs for a reward."""
    letters = sum(1 if ord(character) < 0x2E80 else 3 for character in text if character.isalpha())
    if letters <= _PROSE_LETTERS:
        return False
    signs = sum(not character.isalpha() and character not in _PUNCTUATION for character in text)
    return letters > _LETTERS_PER_SIGN * signs


def _left_out(text: str, start: int, end: int) -> str:
    """What stands in the place of code or a formula."""
    return text[start:end] if _is_prose(text[start:end]) else GAP


def _without(text: str, opening: str, closing: str) -> str:
    """Leaves out what stands between two marks; one that never closes is an ordinary character."""
    kept, place = [], 0
    while (start := text.find(opening, place)) >= 0:
        end = text.find(closing, start + len(opening))
        if end < 0:
            break
        end += len(closing)
        kept += [text[place:start], _left_out(text, start, end)]
        place = end
    return "".join([*kept, text[place:]])


def _without_fences(text: str) -> str:
    """Leaves out fenced code; behind a fence that never closes stands text."""
    parts = _FENCE.split(text)
    if len(parts) % 2 == 0:
        parts[-2:] = [GAP.join(parts[-2:])]
    return "".join(part if number % 2 == 0 else _left_out(part, 0, len(part)) for number, part in enumerate(parts))


def _without_environments(text: str) -> str:
    kept, place = [], 0
    while (match := _BEGIN.search(text, place)) is not None:
        closing = f"\\end{{{match[1]}}}"
        end = text.find(closing, match.end())
        if end < 0:
            break
        end += len(closing)
        kept += [text[place : match.start()], _left_out(text, match.start(), end)]
        place = end
    return "".join([*kept, text[place:]])


def _without_inline(line: str) -> str:
    """Leaves out ``$...$`` within a line. As Pandoc has it, ``$5 and $6`` is money: a closing sign follows no blank."""
    if line.count("$") < 2:
        return line
    kept, place, start = [], 0, -1
    position = line.find("$")
    while position >= 0:
        if start >= 0 and position > start + 1 and not line[position - 1].isspace():
            kept += [line[place:start], _left_out(line, start, position + 1)]
            place, start = position + 1, -1
        elif not line[position + 1 : position + 2].isspace():
            start = position
        position = line.find("$", position + 1)
    return "".join([*kept, line[place:]])


def prose(text: str) -> str:
    """The text without code (fenced, inline), formulas (LaTeX), addresses, paths, tags and commands."""
    text = _without_fences(text)
    for opening, closing in _PAIRS:
        if opening in text:
            text = _without(text, opening, closing)
    if "\\begin{" in text:
        text = _without_environments(text)
    if "$" in text:
        text = "\n".join(map(_without_inline, text.split("\n")))
    return _NOT_PROSE.sub(GAP, text)

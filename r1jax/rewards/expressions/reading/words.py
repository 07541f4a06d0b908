"""Answers in words: numbers ("twenty-five", "二十三"), sets ("no solution"), the time of day, and texts in a normal form."""

from __future__ import annotations

import re
from math import gcd
from typing import NamedTuple

_ONES = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen".split()
    )
}
_TENS = {word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_GREAT = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4}
_PARTS |= {w: n for n, w in enumerate("fifth sixth seventh eighth ninth tenth".split(), 5)}
_PARTS |= {f"{word}s": n for word, n in _PARTS.items() if not word.endswith(("f", "s"))}
_NUMBER_WORD = "|".join([*_ONES, *_TENS, *_GREAT, "hundred"])
_WORD_RUN = re.compile(rf"\b(?:{_NUMBER_WORD})(?:(?:\s+and\s+|[\s-]+)(?:{_NUMBER_WORD}))*\b", re.IGNORECASE)
_MINUS = re.compile(r"\A(?:negative|minus)\s+(?=[0-9])", re.IGNORECASE)
_ORDINAL_WORDS = {w: n for n, w in enumerate("first second third fourth fifth sixth seventh eighth ninth tenth".split(), 1)}
_WORD_FRACTION = re.compile(r"\s*(a|one|[0-9]{1,3})[\s-]+(" + "|".join(_PARTS) + r")\s*", re.IGNORECASE)

_CHINESE_DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
_CHINESE_UNITS = {"十": 10, "百": 100, "千": 1_000}
_CHINESE = re.compile(r"负?[零〇一二两三四五六七八九十百千万亿]{1,20}")
_CHINESE_FRACTION = re.compile(r"([零〇一二两三四五六七八九十百千万]{1,12})分之([零〇一二两三四五六七八九十百千万]{1,12})")

_EMPTY = re.compile(
    r"(?:there (?:is|are) )?no (?:real |integer |such )?(?:solutions?|roots?|values?)(?: exists?)?|(?:the )?(?:empty|null) set|无解|无实数解|空集"
)
_REALS = re.compile(
    r"(?:x (?:is|can be) )?(?:the set of )?(?:all|any|every|the) reals?(?: numbers?)?|全体实数|所有实数|任意实数"
)
_SIGNED_REALS = re.compile(r"(?:the set of )?(?:all )?(?:the )?(non[- ]?)?(positive|negative) (?:real numbers|reals)")
_RAYS = {
    (False, "positive"): "(0,\\infty)",
    (True, "positive"): "(-\\infty,0]",
    (False, "negative"): "(-\\infty,0)",
    (True, "negative"): "[0,\\infty)",
}
_INTEGERS = re.compile(r"(?:the set of )?(?:all|any|every|the) integers?|全体整数|所有整数")
_SAME = {
    "dne": "does not exist",
    "doesn't exist": "does not exist",
    "infinitely many solutions": "infinitely many",
    "infinite solutions": "infinitely many",
    "an infinite number of solutions": "infinitely many",
    "converges": "convergent",
    "diverges": "divergent",
    "correct": "true",
    "正确": "true",
    "错误": "false",
    "incorrect": "false",
}
_SENTENCE = re.compile(
    r"(?:(?:so|thus|hence|therefore|then),? )?\w+(?: \w+){0,5}? "
    r"(?:is|are|was|were|be) ([^.,;:]+)"
)
_UNDECIDED = re.compile(
    r"\b(?:not|never|no|nobody|or|either|neither|nor|if|unless|but|except|cannot|wrong|incorrect|false|opposite|other|doubt|"
    r"maybe|perhaps|possibly|might|may|could|would|think|guess|what|which|who)\b|n['’]t\b"
)
_LEADING_ANSWER = re.compile(r"(yes|no|true|false)\s*[,.;:!]")
_ARTICLE = re.compile(r"(?:a|an|the) ")
_ORDINAL = re.compile(r"(?<=[0-9])(?:st|nd|rd|th)\b")
_CLOCK = re.compile(r"(?:at )?([0-9]{1,2})(?::([0-5][0-9])|(?=\s*[ap]\.?\s?m\b))\s*(?:([ap])\.?\s?m\.?)?")
_MONTHS = {
    month[:3]: month
    for month in "january february march april may june july august september october november december".split()
} | {"sept": "september"}
_MONTH = re.compile(r"\b(" + "|".join(_MONTHS) + r")\b\.?(?=\s*[0-9])")
_O_CLOCK = re.compile(r"\s?o'clock\s?")


# ---------------------------------------------------------------------------------------------- numbers
def _english(match: re.Match) -> str:
    total = part = 0
    last = 10**12
    for word in re.findall("[a-z]+", match[0].lower()):
        if word == "and":
            continue
        if word in _GREAT:
            total, part, last = total + max(part, 1) * _GREAT[word], 0, 10**12
        elif word == "hundred":
            part, last = max(part, 1) * 100, 100
        else:
            value = _ONES.get(word, _TENS.get(word, 0))
            if value >= last:  # "one two": two numbers
                return match[0]
            part, last = part + value, 10 if value >= 20 else 1
    return str(total + part)


def _chinese(text: str) -> int | None:
    if all(c in _CHINESE_DIGITS for c in text):
        return int("".join(str(_CHINESE_DIGITS[c]) for c in text))
    total = section = digit = 0
    for c in text:
        if c in _CHINESE_DIGITS:
            digit = _CHINESE_DIGITS[c]
        elif c in _CHINESE_UNITS:
            section, digit = section + (digit or 1) * _CHINESE_UNITS[c], 0
        elif c == "万":
            total, section, digit = (total + section + digit) * 10**4, 0, 0
        else:
            total, section, digit = (total + section + digit) * 10**8, 0, 0
    return total + section + digit


def is_number_word(word: str) -> bool:
    word = word.lower()
    return word in _ONES or word in _TENS or word in _GREAT or word == "hundred"


def numbers_in_digits(text: str) -> str:
    """``text`` with its numbers in words as digits: "twelve apples" is "12 apples", "三分之二" is "2/3"."""
    if fraction := _CHINESE_FRACTION.fullmatch(text):
        return f"{_chinese(fraction[2])}/{_chinese(fraction[1])}"
    if _CHINESE.fullmatch(text):
        return f"-{_chinese(text[1:])}" if text[0] == "负" else str(_chinese(text))
    digits = _MINUS.sub("-", _WORD_RUN.sub(_english, text))
    if digits in _ORDINAL_WORDS:
        return str(_ORDINAL_WORDS[digits])
    if fraction := _WORD_FRACTION.fullmatch(digits):
        top = "1" if fraction[1].lower() in ("a", "one") else fraction[1]
        return f"{top}/{_PARTS[fraction[2].lower()]}"
    return digits


def as_set(words: str) -> str | None:
    """The set that a phrase in small letters names, in LaTeX."""
    if _EMPTY.fullmatch(words):
        return "\\emptyset"
    if _REALS.fullmatch(words):
        return "\\mathbb{R}"
    if sign := _SIGNED_REALS.fullmatch(words):
        return _RAYS[bool(sign[1]), sign[2]]
    return "\\mathbb{Z}" if _INTEGERS.fullmatch(words) else None


# ---------------------------------------------------------------------------------------------- texts
def normal(words: str) -> str:
    """A text in small letters without what does not change an answer: an article, an ordinal's ending."""
    words = _MONTH.sub(lambda match: _MONTHS[match[1]], _ORDINAL.sub("", words))
    words = words[match.end() :] if (match := _ARTICLE.match(words)) else words
    if leading := _LEADING_ANSWER.match(words):
        return leading[1]
    return _SAME.get(words, words)


def said(words: str) -> str | None:
    """What a plain sentence says that something is: "red" of "the color is red"; None where it says more than one thing."""
    if len(words) > 200 or _UNDECIDED.search(words) or (sentence := _SENTENCE.fullmatch(words)) is None:
        return None
    return normal(sentence[1])


def listed(words: str) -> list[str]:
    """The items of "Alice, Bob and Carol" in order of the alphabet."""
    return sorted(part for part in re.split(r"\s*(?:,|;|、|和|\band\b|&)\s*", words) if part)


# ---------------------------------------------------------------------------------------------- times
class Clock(NamedTuple):
    """A time of day: minutes since midnight or, if not ``certain``, since midnight or noon."""

    minutes: int
    certain: bool


def clock(text: str) -> Clock | None:
    """The time of day that ``3:45 PM`` names; None for anything else."""
    text = text.strip().lower()
    if "o'clock" in text:
        text = _O_CLOCK.sub("" if ":" in text else ":00 ", text).strip()
    match = _CLOCK.fullmatch(text)
    if match is None or int(match[1]) > 24:
        return None
    hour, minute, half = int(match[1]), int(match[2] or 0), match[3]
    if half:
        return Clock((hour % 12 + (12 if half == "p" else 0)) * 60 + minute, True)
    return Clock(hour * 60 + minute, hour > 12 or hour == 0)


def same_time(left: Clock, right: Clock) -> bool:
    if left.certain and right.certain:
        return left.minutes == right.minutes
    return left.minutes % 720 == right.minutes % 720


def may_be_a_ratio(text: str) -> bool:
    """Whether ``a:b`` as a ratio would be in lowest terms, and nothing says that it is a time."""
    return not surely_a_time(text) and "o'clock" not in text


def surely_a_time(text: str) -> bool:
    """Whether ``a:b`` must be a time: it says am or pm, or as a ratio it would not be in lowest terms."""
    match = _CLOCK.fullmatch(text.strip().lower())
    return match is not None and (match[3] is not None or gcd(int(match[1]), int(match[2] or 0)) > 1)

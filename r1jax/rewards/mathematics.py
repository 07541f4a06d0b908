"""``verify_math``: whether the final answer of a text is the right one, decided without evaluating any of it as a program.

A plain number is compared as its digits. Everything else is read by a strict grammar (``expressions.reading``) into a tree
whose sizes are bounded, and compared exactly (rationals), to 40 digits at sampled points, and by sympy where samples prove
nothing (``expressions.symbolic``, ``expressions.regions``). All work is counted in steps and ends when they are used up, on
any machine at the same one: it may be called without a worker pool.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Hashable
from fractions import Fraction
from typing import NamedTuple

from r1jax.rewards.answer import extract_answer, guess, last_boxed, marked_answer, names_answer
from r1jax.rewards.expressions.equality import equal
from r1jax.rewards.expressions.keys import key
from r1jax.rewards.expressions.nodes import Node, symbols, uses
from r1jax.rewards.expressions.reading import notation, units, words
from r1jax.rewards.expressions.reading.parser import parse
from r1jax.rewards.expressions.reading.tokens import MAX_CHARACTERS, MAX_DIGITS, Unreadable, plain_unicode
from r1jax.rewards.expressions.values import TooLarge, Undefined, budget
from r1jax.rewards.record import Verdict

_PLAIN_NUMBER = re.compile(r"(-?)\s?\$?([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.([0-9]*))?\Z")
_TEXT_COMMAND = re.compile(r"\\(?:text|mbox|textnormal|textbf|textit|textrm|texttt|mathrm|mathbf|hbox)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\(?:left|right|displaystyle|quad|qquad|[,;:! ])|[$~\s]+")
_WORDS = re.compile(r"(?=.*[^\W\d_]{2})[^\\{}^_=+*/<>|]+", re.DOTALL)
_BLANK = re.compile(r"(?<!\w) | (?!\w)")  # "7 2" is not 72
_CHOICE = re.compile(r"\(\s?([A-Za-z])\s?\)|\[?([A-Z])\]?")
_LEADING_CHOICE = re.compile(
    r"(?:(?:hence|thus|so|therefore),? )?(?:(?:the )?(?:correct )?(?:answer|option|choice) (?:is )?|option|choice)?\s{0,3}(?:\(([a-z])\)|([a-z])(?:[).:](?:\s|\Z)|\Z))"
)
_CHOSEN = re.compile(
    r"选项?\s?:?\s?([a-z])(?:正确)?[。.]?\Z|\b(?:option|choice)\s?\(?([a-z])\)? is (?:the )?(?:correct|right|answer)"
)
_CHOICES = re.compile(r"\(?[A-H]\)?(?:(?:\s*(?:,|;|and|&|、)\s*|\s*)\(?[A-H]\)?)+")
_STATEMENTS = re.compile(r"\(?[IVX]{1,4}\)?(?:\s*(?:,|;|and|&|、|, and)\s*\(?[IVX]{1,4}\)?)+")
_GROUPED = re.compile(r"[0-9],[0-9]{3}")
_DECIMAL_COMMA = re.compile(r"-?(?:[0-9]+,(?:[0-9]{1,2}|[0-9]{4,})|[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+)")
_STATED = re.compile(r"\b(?:is|are|equals)\s+(-?[0-9][0-9.,/]*)\Z")
# What is said of something that the grammar has no name for: "\\operatorname{rank}(A) = 2", "\\text{Volume: } 12".
_LABELLED = re.compile(
    r"(?:(?=[^=]*[A-Za-z])[^=<>0-9]{1,80}(?:=|\\approx)|\\text\{[^{}0-9]{1,60}:\s*\})\s*([^=<>]+)", re.DOTALL
)
_CONCLUSION = re.compile(r"\\(?:Rightarrow|Longrightarrow|implies|therefore)\b|⇒|∴")
# What an answer says of its letters: "..., where k is an integer".
_WHERE = re.compile(r"[,;]?\s*(?:\\text\s?\{\s*)?\b(?:where|for (?:all|any|every|some))\b.*\Z", re.DOTALL)
_LAST_NAME = re.compile(r"(?<![A-Za-z\\])[knmj](?![A-Za-z])")
_QUALIFIER = re.compile(
    r"(?i)US(?=\s?\\\$)|(?:about|approximately|approx\.?|exactly|around|roughly|only|Rs\.?|INR|USD)\s+(?=[-0-9$\\.])"
)
_TWICE = re.compile(r"([^()]{1,60}?)\s*\(([^()]{1,60})\)")
_LETTER_UNIT = re.compile(
    r"(?<=[0-9})\s])\s*([mgshLNJWVK])((?:\^\{?[23]\}?)?)\s*(?:/\s*([a-zA-Z]{1,2})((?:\^\{?[23]\}?)?))?\s*\Z"
)
_PER = re.compile(r"(?<=[a-z])\s+([a-zA-Z]{1,2})\^\{?-(?:1|([23]))\}?\s*\Z")
_PROSE = re.compile(
    r"(?<![\\A-Za-z])(?!(?:[a-zA-Z]?matrix|smallmatrix|array|[dr]?cases|align|aligned|split)\*?\})[A-Za-z]{2,}|[\u3040-\u9fff\uac00-\ud7af]{2,}|[\u0400-\u04ff]{2,}"
)
_REMEMBERED = 200  # characters
_OUTER = (
    ("\\(", "\\)"),
    ("\\[", "\\]"),
    ("$$", "$$"),
    ("$", "$"),
    ("**", "**"),
    ("*", "*"),
    ("__", "__"),
    ("`", "`"),
    ('"', '"'),
)


class _Reading(NamedTuple):
    """An answer as read: ``node``, or None where the grammar knows no such thing; ``plain``, its ``text`` in normal form."""

    node: Node | None
    plain: str
    text: str

    @property
    def is_words(self) -> bool:
        return self.node is None and _WORDS.fullmatch(self.plain) is not None


def plain_number(text: str) -> tuple[str, str, str] | None:
    """(sign, digits, decimals) of a plain decimal number in normal form, however long; None for anything else."""
    match = _PLAIN_NUMBER.match(text.strip())  # blanks in the pattern would take quadratic time
    if match is None:
        return None
    sign, whole, decimals = match.groups()
    if not whole and not decimals:
        return None
    whole = (whole or "").replace(",", "").lstrip("0")
    decimals = (decimals or "").rstrip("0")
    return (sign if whole or decimals else "", whole, decimals)


def _plain(text: str) -> str:
    text = _SPACING.sub(" ", _TEXT_COMMAND.sub(r"\1", text)).strip(" .,;:")
    if _WORDS.fullmatch(text) and len(text) > 1:
        return words.normal(text.casefold().strip("! "))
    return _BLANK.sub("", text)


def _unwrapped(text: str) -> str:
    text = text.strip()
    for start, end in _OUTER * 2:
        if len(text) >= len(start) + len(end) and text.startswith(start) and text.endswith(end):
            inner = text[len(start) : -len(end)]
            if start not in inner and end not in inner:
                text = inner.strip()
    if match := _QUALIFIER.match(text):
        text = text[match.end() :]
    text = _CONCLUSION.split(text)[-1].strip() or text
    if (where := _WHERE.search(text)) and where.start():
        name = _LAST_NAME.search(text[: where.start()]) if "integer" in where[0] else None
        text = text[: where.start()] + (f", {name[0]} \\in \\mathbb{{Z}}" if name else "")
    return text


def _read(text: str, commas_group: bool = True) -> _Reading:
    """Reads an answer of at most ``MAX_CHARACTERS``; raises Unreadable for control characters only."""
    read = _read_short if len(text) <= _REMEMBERED else _read_short.__wrapped__
    return read(text, commas_group)


@functools.lru_cache(1_024)  # of answers short enough that they can't fill the memory
def _read_short(text: str, commas_group: bool) -> _Reading:
    text = _unwrapped(notation.respelled(plain_unicode(text)))
    plain = _plain(text)
    if choice := _CHOICE.fullmatch(_TEXT_COMMAND.sub(r"\1", text).strip(" .,")):
        return _Reading(Node("choice", value=(choice[1] or choice[2]).upper()), plain, text)
    if named := words.as_set(plain):
        return _Reading(parse(named), plain, text)
    if (twice := _TWICE.fullmatch(plain)) and (once := words.numbers_in_digits(twice[1])) == words.numbers_in_digits(
        twice[2]
    ):
        return _read(once)  # "seven (7)"
    digits = words.numbers_in_digits(plain)
    for form in (digits, text) if digits != plain else (text,):
        try:
            return _Reading(parse(form, commas_group), plain, text)
        except Unreadable:
            continue
    if labelled := _LABELLED.fullmatch(text):
        return _read(labelled[1], commas_group)
    return _Reading(None, plain, text)


def _leading_choice(text: str) -> str | None:
    """The letter of ``(C) 17``, ``C. Paris``, ``option C``, or of a sentence that says that option C is it."""
    text = _TEXT_COMMAND.sub(r"\1", text).casefold()
    leading = _LEADING_CHOICE.match(text) or _CHOSEN.search(text)
    return leading and next(group for group in leading.groups() if group).upper()


def _choices(text: str) -> list[str] | None:
    """The letters of several choices, ``A, C`` or ``AC``."""
    text = _TEXT_COMMAND.sub(r"\1", text).strip(" .$")
    if _STATEMENTS.fullmatch(text):
        return sorted(re.findall("[IVX]+", text))
    letters = re.findall("[A-H]", text.replace("and", ",")) if _CHOICES.fullmatch(text) else []
    return sorted(letters) if len(set(letters)) == len(letters) > 1 else None


def _same(gold: _Reading, answer: _Reading) -> bool:
    if gold.plain and gold.plain == answer.plain:
        return True
    if gold.node is not None and gold.node.kind == "choice":
        if answer.node is not None and answer.node.kind == "choice":
            return gold.node == answer.node
        return _leading_choice(answer.text) == gold.node.value
    if (time := words.clock(gold.plain)) and (other := words.clock(answer.plain)):
        if words.same_time(time, other):
            return True
        if words.surely_a_time(gold.plain) or words.surely_a_time(answer.plain):
            return False
    elif time and words.surely_a_time(gold.plain):
        return False
    if (several := _choices(gold.text)) and several == _choices(answer.text):
        return True
    if (
        gold.is_words
        and answer.is_words
        and len(items := words.listed(gold.plain)) > 1
        and items == words.listed(answer.plain)
    ):
        return True
    if gold.node is None or answer.node is None or answer.node.kind == "choice":
        return False
    return equal(gold.node, answer.node)


def _has_unit(node: Node | None) -> bool:
    return node is not None and uses(node, lambda n: n.kind == "unit")


def _unit_letters(text: str) -> _Reading | None:
    """The reading of ``3 m`` and ``3 m/s`` in which the letters are units."""
    text = _PER.sub(r"/\1\2", text)
    match = _LETTER_UNIT.search(text)
    if match is None or (match[3] and not units.known(match[3])):
        return None
    below = f"/\\text{{{match[3]}}}{match[4]}" if match[3] else ""
    return _read(f"{text[: match.start()]}\\text{{{match[1]}}}{match[2]}{below}")


def _readings(text: str) -> list[_Reading]:
    """The ways to read an answer: ``1,234`` may be one number or two, ``3,14`` a decimal number."""
    readings = [_read(text)]
    if _GROUPED.search(text):
        readings.append(_read(text, False))
    if _DECIMAL_COMMA.fullmatch(readings[0].text):
        readings.append(_read(readings[0].text.replace(".", "").replace(",", ".")))
    readings += map(_read, notation.second_readings(readings[0].text))
    return readings


def _matches(gold: list[_Reading], answer: str, marked: bool) -> bool:
    readings = _readings(answer)
    if any(_same(g, a) for g in gold for a in readings):
        return True
    node = gold[0].node
    if node is not None and not symbols(node) and (letters := _unit_letters(readings[0].text)):
        return _same(gold[0], letters)
    if _has_unit(readings[0].node) and (letters := _unit_letters(gold[0].text)):
        return _same(letters, readings[0])
    if readings[0].is_words and any(g.is_words for g in gold):
        said = words.said(readings[0].plain)
        return any(g.is_words and (g.plain == said or words.said(g.plain) == readings[0].plain) for g in gold)
    if readings[0].node is None and _PROSE.search(answer) and not any(g.is_words for g in gold):
        likeliest = guess(answer, sure=marked)
        if likeliest and likeliest != answer:
            return any(_same(g, a) for g in gold for a in _readings(likeliest))
    return False


def _stated(reading: _Reading) -> list[_Reading]:
    """The number that a gold answer in words states at its end: 15 of "the sum is 15"."""
    match = _STATED.search(reading.plain) if reading.node is None else None
    return [_read(match[1])] if match else []


def gold_answer(gold: str) -> str:
    """The right answer in the text that a data set gives for it: after ``####`` (GSM8K), in its last box, or all of it."""
    if "####" in gold:
        return gold.rpartition("####")[2].strip()
    boxed = last_boxed(gold)
    if boxed is None and names_answer(gold):
        return extract_answer(gold) or ""
    return (boxed or gold).strip()


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def grade_math(gold: str, prediction: str) -> tuple[Verdict, str]:
    """``verify_math`` with a line that says why."""
    right = gold_answer(gold)
    if not right:
        return Verdict.UNGRADED, "no right answer is given"
    number = plain_number(right)
    answer = prediction
    found = plain_number(answer) if number else None
    if found is None:
        answer = extract_answer(prediction)
        if answer is None:
            return Verdict.WRONG, "no final answer"
        found = plain_number(answer) if number else None
    if number and found:
        if number == found:
            return Verdict.RIGHT, f"{_short(answer)} is right"
        return Verdict.WRONG, f"{_short(answer)}, but {_short(right)} is right"
    if len(answer) > MAX_CHARACTERS:
        same = answer == right
        return (Verdict.RIGHT, "as given") if same else (Verdict.WRONG, f"{len(answer)} characters are no final answer")
    if len(right) > MAX_CHARACTERS:
        return Verdict.UNGRADED, f"the right answer has {len(right)} characters"
    try:
        with budget():
            return _compare(right, answer, marked_answer(prediction) is not None)
    except RecursionError:  # the caller's stack was nearly full
        return Verdict.UNGRADED, "too little of the stack was left"


def _compare(right: str, answer: str, marked: bool) -> tuple[Verdict, str]:
    try:
        readings = _readings(right)
        readings += _stated(readings[0])
    except Unreadable as error:
        return Verdict.UNGRADED, f"the right answer can't be read: {error}"
    try:
        if _matches(readings, answer, marked):
            return Verdict.RIGHT, f"{_short(answer)} is right"
    except Unreadable as error:
        return Verdict.WRONG, str(error)
    except (TooLarge, Undefined) as error:
        return Verdict.UNGRADED, f"{_short(answer)} against {_short(right)}: {error}"
    if readings[0].node is None and not readings[0].is_words:
        return Verdict.UNGRADED, f"the right answer {_short(right)} is beyond this grader's grammar"
    return Verdict.WRONG, f"{_short(answer)}, but {_short(right)} is right"


def verify_math(gold: str, prediction: str) -> Verdict:
    r"""Whether the final answer of ``prediction`` is that of ``gold``.

    Where the answer stands: in ``<answer>``; else in the last ``\boxed`` (of nested ones the inner; several with nothing but
    "and" or a comma between them are a list); else after ``####``; else after the last "answer is" or "answer:"; else a short
    line whole; else the last formula or number that no "not" denies. Only what follows the last ``</think>`` counts. A marked
    answer of several numbers in prose is none, unless the last is announced by "is" or "=".

    What is the same answer, where that is a convention:

    - Numbers: by value, ``1/2``, ``0.5``, ``2\frac12`` for mixed ones, ``1,234``, ``1{,}234``, ``1 234``, full width, words
      ("twenty-five", 二十三), ``3\times10^5``, ``0.\overline3``, ``0.333...``. ``3,14`` may be a list or a decimal number,
      ``1,234`` a list or a thousand: either counts.
    - Rounding: ``0.33`` is not 1/3. A decimal number of six places and figures or more is what it rounds or cuts off.
      ``\sqrt2 \approx 1.414`` is either side.
    - Percent: 50% is 0.5, and 50 where the gold has the sign or is over 1; 0.5 is not 0.5%.
    - Units: on one side only they are left out, as are words that are no unit ("apples"); on both sides they are converted,
      and must be of one dimension. A letter (``3 m``) is a unit if the other side is a number or has a unit. "million" counts.
    - Logarithms: ``\log`` is that of base e or 10, whichever the other side needs; ``\ln`` and ``\log_2`` are what they say.
    - Angles: 90° is 90 and ``\pi/2``; in a sine a degree is a degree, and a bare number radians.
    - Names: ``x = 5`` is 5, not ``y = 5``; ``f(x) = x^2`` is ``x^2`` and ``y = x^2``. ``x = 1, y = 2`` is ``(1, 2)``. Letters are
      case-sensitive, commute, and stand for positive numbers unless an absolute value does; n, k, m are whole where it matters.
    - Order: tuples and intervals are in order, lists and sets are not; a list may repeat (``1, 1``), a set does not; a list
      in the tuple's order is that tuple. ``(1,2)`` is a point or an open interval. ``(1,2)`` is not ``[1,2]``; ``[1,2,3]`` is
      ``(1,2,3)``.
    - Sets of real numbers: as sets. ``x > 2`` is ``(2,\infty)``, ``x^2 < 4`` is ``-2 < x < 2``, ``[0,1)\cup[1,3)`` is ``[0,3)``, "all
      real numbers" is ``\mathbb{R}``, "no solution" is ``\emptyset``. ``\pm2`` is both.
    - Equations: either side first, scaled, cleared of denominators (``y = 1/x`` is ``xy = 1``), solved for a letter only by
      that. ``3:2`` is ``6:4`` and 3/2. A true chain ``70 + 2 = 72`` is its end. ``1011_2`` is ``1011``, not 11.
    - What follows "where" or "for all" is left out, what stands before the last ``\Rightarrow`` too.
    - Families: ``k\pi, k\in\mathbb{Z}`` under any letter and shift. Residues: ``3 \pmod 7`` is ``10 \pmod 7``.
    - Matrices: any brackets, rows in lists too; a column is not a row but either is a tuple. ``vmatrix`` is a determinant.
    - Choices: ``B``, ``(b)``, ``B. Paris``, "option B"; several letters in any order. Times: 3:45 PM is 15:45, and 3:45.
    - Texts: letter by letter in any case, without an article or a final stop; "A and B" in any order; "yes, ..." is "yes";
      "the colour is red" is "red".
    - Second readings count: ``C_{10}^3`` as 10 over 3, ``1{,}5`` as a decimal, ``(1) 3; (2) 5`` as a pair, ``x + c`` as
      ``x + C``. Backslashes that JSON doubled are single.

    Args:
      gold: the right answer; a whole GSM8K or MATH solution is searched for it.
      prediction: a completion, or a bare answer.

    Returns:
      RIGHT or WRONG (also for no answer, or one that can't be read); UNGRADED where ``gold`` can't be read or a value is
      beyond the bounds. Its truth value is "right". Takes under 0.2 s at worst, on one core of 2026, after sympy is loaded.
    """
    return grade_math(str(gold), str(prediction))[0]


def answer_key(text: str) -> Hashable:
    """A hashable form of the final answer of ``text``, shared by equal answers; None where there is no answer.

    For majority votes: it sees no gold, so that what only a gold answer tells (that "50" means 50%, that a list is a tuple)
    stays apart, and units are left out. Otherwise two answers have one key if ``verify_math`` holds one right given the other.
    """
    answer = extract_answer(text)
    if answer is None:
        return None
    answer = answer[:MAX_CHARACTERS]
    try:
        remembered = _answer_key if len(answer) <= _REMEMBERED else _answer_key.__wrapped__
        return remembered(answer, marked_answer(text) is not None)
    except RecursionError:  # the caller's stack was nearly full: not to be remembered
        return ("text", answer.strip())


@functools.lru_cache(1_024)
def _answer_key(answer: str, marked: bool) -> Hashable:
    number = plain_number(answer)
    if number and len(answer) <= MAX_DIGITS:
        value = Fraction(f"{number[0]}{number[1] or 0}.{number[2]}")
        return ("number", value.numerator, value.denominator)
    try:
        with budget():
            return _reading_key(answer, marked)
    except (Unreadable, TooLarge, Undefined):
        return ("text", answer.strip())


def _reading_key(answer: str, marked: bool) -> Hashable:
    reading = _read(answer)
    if (time := words.clock(reading.plain)) and (time.certain or not words.may_be_a_ratio(reading.plain)):
        return ("time", time.minutes)
    if several := _choices(reading.text):
        return ("choices", *several)
    if (reading.node is None or "选" in reading.text) and (letter := _leading_choice(reading.text)):
        return ("choice", letter)
    if reading.node is None and _PROSE.search(answer) and (likeliest := guess(answer, sure=marked)):
        reading = _read(likeliest)
    if reading.node is None:
        return ("text", *words.listed(reading.plain)) if reading.is_words else ("text", reading.plain)
    return ("choice", reading.node.value) if reading.node.kind == "choice" else key(reading.node)


def same_answer(left: str, right: str) -> bool:
    """Whether the final answers of two texts are the same; False where one has none."""
    keys = answer_key(left), answer_key(right)
    return None not in keys and keys[0] == keys[1]

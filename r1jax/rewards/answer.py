"""The final answer of a completion: where it stands in the text. Every search here takes linear time."""

from __future__ import annotations

import itertools
import re

from r1jax.rewards.expressions.reading import units
from r1jax.rewards.expressions.reading.words import is_number_word

THINK_END = "</think>"
ANSWER_START, ANSWER_END = "<answer>", "</answer>"
# A text without any mark is looked at from its end only.
TAIL = 2_000
# Up to this length a line without any mark is taken whole for the answer.
SHORT = 200

_PHRASE = re.compile(
    r"(?i)(?:\b(?:ans(?:wer)?|(?:correct|right|best) (?:option|choice))\.?\**\s{0,3}(?:is|was|are|:|=|：)(?!\s{1,3}not\b)"
    r"|\b(?:respuesta|réponse|antwort|risposta|resposta|ответ)(?:\s\w{1,12})?\s{0,3}(?:es\b|est\b|ist\b|lautet\b|è(?!\w)|é(?!\w)|:|：|—)"
    r"|答案(?:是|为|：|:)|(?:答え|正解)は|(?:정답|답)은)\s{0,3}[:：]?"
)
_IS_THE_ANSWER = re.compile(r"(?i)\s(?:is|are) (?:thus |therefore )?(?:the|our) (?:final |correct |right )?answers?\b")
# Ends of a Japanese and a Korean sentence, and tokens that end a sequence.
_LAST_WORDS = re.compile(r"(?:です|である|だ|입니다|이다|예요|이에요)[。.]?\Z")
_END_TOKENS = re.compile(r"(?:\s{0,3}(?:</s>|<\|[a-z_]{1,30}\|>|<｜[^｜<>]{1,40}｜>)){1,40}\s{0,3}\Z")
# What follows an answer in its sentence and says why, or begins the next one.
_AFTERWARDS = re.compile(
    r"(?i),?\s(?:because|since|as|which|where|so that|when|if)\s|,\s(?:not|but|so|for)\s|(?<=[^A-Z\s]{2})\.\s|[。！]"
)
_NEGATED = re.compile(
    r"(?i)(?:\b(?:not|never|neither|nor|(?:less|fewer|smaller|more|greater|larger) than)\b|n't\b|不是|不等于)[^.,;\n0-9]{0,30}$"
)
_DENIED = re.compile(r"(?i)[\s$*)\\]{0,5}(?:(?:is|are|was)\s(?:not|wrong|incorrect|false|too)\b|(?:is|are|was)n't\b)")
_ANNOUNCED = re.compile(r"(?i)(?:=|≈|:|\b(?:is|are|equals?|total|of|have|has|gets?|makes?)\b)[\s$*\\(]{0,5}$")
_COPULA = re.compile(
    r"(?i)\b(?:is|are|was|equals?|equal to|to be)(?:\s(?:equal to|exactly|about|approximately|therefore|thus|then))?:?\s"
)
_JOINING = frozenset("am pm AM PM and or sqrt pi sin cos tan log ln".split())
_OR = re.compile(r"\s{0,3},?\s{0,3}or\s{1,3}")
_CLOCK = re.compile(r"[0-9]{1,2}:[0-5][0-9](?:\s?[aApP]\.?\s?[mM]\b)?")
_UNIT = re.compile(r"(?:\s?[A-Za-z]{1,12}\b){1,3}")
# What may stand between the boxes of one answer.
_BETWEEN = re.compile(
    r"[\s$]*(?:,|;|、|\band\b|\bor\b|和|或|,\s?and\b|,\s?or\b|\\text\{\s?(?:and|or)\s?\})(?:[\s$]|\w\s?=\s?)*"
)
_INLINE = re.compile(
    r"\$\$([^$]{1,500})\$\$|(?<!\\)\$((?:[^$\n\\]|\\.){1,500})\$|\\\(((?:[^\\]|\\[^()]){1,500})\\\)|\\\[((?:[^\\]|\\[^\[\]]){1,500})\\\]"
)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}")
_NUMBER = re.compile(
    r"(?:(?<![A-Za-z0-9_.)])[-−])?(?<![A-Za-z0-9_.])"
    r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,20}(?![0-9])|[0-9]{1,400}(?![0-9]))?(?:\.[0-9]{1,400})?(?<=[0-9])"
    r"(?:[eE][+-]?[0-9]{1,4}(?![0-9A-Za-z]))?(?:\s?/\s?[0-9]{1,400}(?![0-9]))?(?:\s?\\?%)?"
)


def _last(pattern: re.Pattern, text: str) -> re.Match | None:
    matches = list(pattern.finditer(text))
    return matches[-1] if matches else None


def after_thinking(completion: str) -> str:
    """What follows the last ``</think>``; all of it where there is none."""
    return completion.rpartition(THINK_END)[2]


def braced(text: str, start: int) -> str:
    """The content of the braces that open at ``text[start]``; to the end of the line where they never close."""
    depth = 0
    for mark in _BRACE.finditer(text, start):
        if mark[0] == "{":
            depth += 1
        elif mark[0] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : mark.start()]
    return text[start + 1 :].partition("\n")[0].strip(" $.")


def _box(text: str, start: int) -> tuple[str, int]:
    r"""The content of the ``\boxed`` or ``\fbox`` at ``start`` and where it ends."""
    place = start + (6 if text.startswith("\\boxed", start) else 5)
    while place < len(text) and text[place] in " \t":
        place += 1
    if text.startswith("{", place):
        content = braced(text, place)
        return content.strip(), min(place + len(content) + 2, len(text))
    content = re.match(r"\\?[A-Za-z0-9.\-]{0,100}", text[place:])[0]
    return content.strip(), place + len(content)


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` (or ``\fbox``) that holds anything; None without one.

    Of nested ones the inner one counts; braces that never close reach to the end of the line; ``\boxed 5`` is 5. Boxes
    with nothing but a comma, "and" or "or" between them are one answer, their list.
    """
    end = len(text)
    contents: list[str] = []
    first = None  # where the earliest box of the answer begins
    for _ in range(16):  # a text full of boxes is not searched for ever
        start = max(text.rfind("\\boxed", 0, end), text.rfind("\\fbox", 0, end))
        if start < 0:
            break
        content, after = _box(text, start)
        end = start
        if not content:
            continue
        if first is not None and (after > first or first - after > 40 or not _BETWEEN.fullmatch(text[after:first])):
            break
        contents, first = [content, *contents], start
    return ", ".join(dict.fromkeys(contents)) if contents else None


def last_tagged(text: str) -> str | None:
    """The content of the last ``<answer>...</answer>``, or of one that never closes; None without one."""
    end = text.rfind(ANSWER_END)
    if end >= 0:
        start = text.rfind(ANSWER_START, 0, end)
        if start >= 0:
            return text[start + len(ANSWER_START) : end].strip()
    start = text.rfind(ANSWER_START)
    return None if start < 0 else text[start + len(ANSWER_START) :].strip()


def marked_answer(completion: str) -> str | None:
    r"""The answer that the text marks as such: in ``<answer>``, else in ``\boxed{}``, else after ``####``.

    Only what follows the last ``</think>`` counts. A box or ``####`` inside ``<answer>`` narrows it further.
    """
    text = after_thinking(completion)
    tagged = last_tagged(text)
    text = text if tagged is None else tagged
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed
    if "####" in text:
        return text.rpartition("####")[2].strip().partition("\n")[0].strip()
    return tagged


def _formulas(tail: str) -> list[tuple[int, str]]:
    """Where each formula between dollar signs begins, and it; those with nothing but "and" or a comma between them as a list."""
    found: list[tuple[int, str]] = []
    after = -1
    for match in _INLINE.finditer(tail):
        formula = next(group for group in match.groups() if group is not None).strip()
        if "\\text" not in formula and _PROSE.search(formula):  # "$5 and $6"
            continue
        if found and match.start() - after < 40 and _BETWEEN.fullmatch(tail, after, match.start()):
            found[-1] = (found[-1][0], f"{found[-1][1]}, {formula}")
        else:
            found.append((match.start(), formula))
        after = match.end()
    return found


def _numbers(tail: str) -> list[tuple[int, str]]:
    """Where each number begins, and it with the unit or the half of the day behind it."""
    found = []
    end = 0
    for match in _NUMBER.finditer(tail):
        number = match[0].strip()
        if not number or match.start() < end:
            continue
        if clock := _CLOCK.match(tail, match.start()):
            number, end = clock[0], clock.end()
        elif unit := _UNIT.match(tail, match.end()):
            known = itertools.takewhile(lambda word: units.known(word) and word != "in", unit[0].split())
            number = " ".join([number, *known])
        if found and _OR.fullmatch(tail, found[-1][0] + len(found[-1][1]), match.start()):
            found[-1] = (found[-1][0], f"{found[-1][1]} or {number}")
        else:
            found.append((match.start(), number))
    return found


def _said(tail: str) -> str | None:
    """What the last line says that something is, if that is mathematics: ``x = 2 and x = 3`` of "the roots are x = 2 and x = 3."."""
    line = tail.rstrip().rpartition("\n")[2]
    said = _last(_COPULA, line)
    if said is None:
        return None
    rest = line[said.end() :].strip().rstrip(".。!").strip("* ").lstrip("} ")
    bare = rest.replace("$", "")
    words = re.findall(r"(?<!\\)\b[A-Za-z]{2,}", re.sub(r"\\text\w*\{[^{}]*\}", "", bare))
    if not re.search("[0-9A-Za-z]", bare) or not all(
        word in _JOINING or is_number_word(word) or units.known(word) for word in words
    ):
        return None
    return bare.strip() if rest.count("$") % 2 == 0 else rest


def guess(text: str, sure: bool = False) -> str | None:
    """The likeliest answer in prose: what its last line says that something is, else the last formula between dollar signs,
    else the last number with its unit; None without any.

    What a "not" denies is passed over. If ``sure``, of several different ones only a last one that a "=" or "is" announces.
    """
    tail = text[-TAIL:]
    found = _formulas(tail) or _numbers(tail)
    if sure and len({formula for _, formula in found}) > 1 and not _ANNOUNCED.search(tail, 0, found[-1][0]):
        return None
    if said := _said(tail):
        return said
    for start, formula in found[:-9:-1]:
        denied = _NEGATED.search(tail, max(0, start - 60), start) or _DENIED.match(tail, start + len(formula))
        if not denied:
            return formula
    return None


def names_answer(text: str) -> bool:
    """Whether a text says "the answer is"."""
    return _PHRASE.search(text[-TAIL:]) is not None


def extract_answer(completion: str) -> str | None:
    """The final answer of a completion, or of a bare answer (itself); None where there is none.

    In order: what is marked (``marked_answer``); what follows the last "answer is" or "answer:"; a short single line
    whole; else ``guess``, else the last line. A thought that never ends has no answer beyond a marked one.
    """
    if ends := _END_TOKENS.search(completion, max(0, len(completion) - 200)):
        completion = completion[: ends.start()]
    marked = marked_answer(completion)
    if marked is not None:
        return marked or None
    text = after_thinking(completion)
    if text is completion and "<think>" in text:
        return None
    tail = text.strip()[-TAIL:]
    phrase = _last(_PHRASE, tail)
    if phrase is not None:
        rest = tail[phrase.end() :].strip("*\n ").lstrip("} ").partition("\n")[0].strip().rstrip(".").strip("*").strip()
        if rest:
            formula = _INLINE.match(rest)
            if formula:
                return formula[0].strip("$ ")
            rest = rest[: cut.start()] if (cut := _AFTERWARDS.search(rest)) and cut.start() else rest
            return _LAST_WORDS.sub("", rest).strip() or rest
    if (said := _IS_THE_ANSWER.search(tail)) and (named := guess(tail[: said.start()])):
        return named
    if len(tail) <= SHORT and "\n" not in tail:
        return tail or None
    lines = tail.split("\n")
    return guess(lines[-1]) or guess(tail) or lines[-1].strip() or None

"""The grader ``choice``: the final answer is the row's option (or options), named by letter or by its text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from r1jax.rewards.answer import TAIL, after_thinking, extract_answer, marked_answer
from r1jax.rewards.record import Verdict
from r1jax.rewards.short_answers.text import normalise, unpacked

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_CHARACTERS = 2_000

_TEXT_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt)?|mathrm|mathbf|mathsf|boxed|fbox|rm|bf)\b\s?")
_LEADING = re.compile(
    r"(?i)^(?:(?:(?:so|thus|hence|therefore|the|my|correct|right|best|final|answers?|options?|choices?|statements?|is|are|would|be|must|"
    r"letters?)\b|答案|选项|正确|应|该|是|为|选|择|故|项)[\s:：,，]*)+"
)
_JOINER = re.compile(r"[,;、，/&+和与及]|\band\b")
# "The answer is (B)", "I choose B", "故选B", "Option C is correct".
_SAID = re.compile(
    r"(?:[Aa]nswers?|ANSWER|[Cc]hoices?|[Oo]ptions?|[Cc]hoose|[Ss]elect|[Pp]ick|答案|选项|选择|应选|故选|选)"
    r"(?:\s?(?:is|are|为|是|应为|应该是|would be|must be|:|：|=)){0,2}\s{0,3}[*(（\[{$]{0,4}([A-Z])(?![A-Za-z'’])"
)
_NEGATED = re.compile(r"(?i)(?:\b(?:not|isn't|wrong|incorrect|eliminate|rule out|except)\b|不|排除|错)[^.,;，。\n]{0,25}$")
_DOUBT = re.compile(r"(?i)\b(?:not|isn't|can't|cannot|wrong|incorrect|or)\b|不|错|或")
_BRACKETED = re.compile(r"(?<![A-Za-z0-9])[(（\[]([A-Z])[)）\]]|(?<![A-Za-z0-9'’])([A-Z])(?=[).、]?(?:\s*$|\*\*))")


def options(row: Mapping[str, Any]) -> dict[str, str]:
    """Label -> text of the options that a row lists under ``choices`` or ``options``: a list (labelled A, B, ...), a
    mapping of labels, or ``{"label": [...], "text": [...]}``; none if it lists none.

    Raises:
      ValueError: the list has another form.
    """
    listed = row.get("choices", row.get("options"))
    if listed is None:
        return {}
    if isinstance(listed, Mapping) and {"label", "text"} <= set(listed):
        pairs = list(zip(listed["label"], listed["text"], strict=True))
    elif isinstance(listed, Mapping):
        pairs = list(listed.items())
    elif isinstance(listed, Sequence) and not isinstance(listed, str) and len(listed) <= len(LETTERS):
        pairs = list(zip(LETTERS, listed))
    else:
        raise ValueError(f"choices must be a list of at most 26 texts or a mapping of labels to texts, not {listed!r:.100}")
    return {str(label).strip().upper(): _own_text(str(label), str(text)) for label, text in pairs}


def _own_text(label: str, text: str) -> str:
    """An option without the label that some data sets write into it: "(A) red", "A. red"."""
    return re.sub(rf"^\s*[(\[]?{re.escape(label.strip())}[)\].:、]\s*", "", text)


def right_labels(row: Mapping[str, Any], listed: Mapping[str, str]) -> frozenset[str]:
    """The labels of the right options: ``answer`` is a letter, several ("A, C", "AC"), a list, the text of an option, or a
    whole number, which counts the options from 0.

    Raises:
      ValueError: it names no option.
    """
    fields = ("answer", "answerKey", "solution")
    answer = unpacked(next((row[field] for field in fields if row.get(field) not in (None, "")), None))
    labels = list(listed)
    if re.fullmatch(r"[0-9]{1,2}", str(answer)) and listed and str(answer) not in listed:
        found = labels_of_text(str(answer), listed)
        if found and isinstance(answer, str):  # the option 3 rather than the third
            return found
        if int(answer) < len(labels):
            return frozenset({labels[int(answer)]})
    elif isinstance(answer, Sequence) and not isinstance(answer, str):
        found = [right_labels({"answer": item}, listed) for item in answer]
        if found:
            return frozenset().union(*found)
    elif answer is not None:
        text = re.sub(r"^\s*####\s*", "", str(answer))
        labels = named_labels(text, listed) or labels_of_text(text, listed)
        if labels:
            return labels
    raise ValueError(f"the answer {answer!r:.60} names none of the options {', '.join(listed) or 'A, B, C ...'}")


def _bare(text: str) -> str:
    """An answer without LaTeX's text commands, emphasis and blanks at its ends."""
    text = unicodedata.normalize("NFKC", text[:MAX_CHARACTERS])
    text = _TEXT_COMMAND.sub("", text).replace("{", " ").replace("}", " ").replace("$", " ").replace("**", " ")
    return " ".join(text.replace("\\", " ").split()).strip(" *_`\"'")


def named_labels(answer: str, listed: Mapping[str, str]) -> frozenset[str]:
    """The labels that a short answer consists of: "B", "(b)", "B.", "Option B", "A, C", "AC", "B. red" where red is B's
    text; empty where it is anything else, or where letter and text disagree."""
    known = set(listed) or set(LETTERS)
    text = _bare(answer)
    bare = _LEADING.sub("", text).strip() or text
    bare = re.sub(r"(?i)\s+(?:is|are)\s+(?:the\s+)?(?:correct|right|true)(?:\s+(?:answer|option|choice)s?)?\.?$", "", bare)
    pieces = [piece.strip("()[]（）.:：。、 ") for piece in _JOINER.sub(" ", bare).split()]
    pieces = [piece.upper() for piece in pieces if piece]
    if pieces and all(piece in known for piece in pieces):
        return frozenset(pieces)
    if len(pieces) == 1 and 1 < len(pieces[0]) <= len(known) and bare.strip("()[]. ").isupper():
        letters = set(pieces[0])
        if letters <= known and len(letters) == len(pieces[0]):  # AC
            return frozenset(letters)
    label = re.match(r"[(\[（]?([A-Za-z0-9]{1,2})(?:[)\]）]\s*[.:：、]?|[.:：、])\s*(?=\S)", bare)
    if label and label[1].upper() in known:
        said = label[1].upper()
        if not listed:  # "B. red" of options that the row does not list: the letter is the answer
            return frozenset({said}) if not _other_label(bare[label.end() :], known) else frozenset()
        meant = labels_of_text(bare[label.end() :], listed)
        if said in meant or (not meant and not _other_label(bare[label.end() :], known)):
            return frozenset({said})
    return frozenset()


def _other_label(text: str, known: set[str]) -> bool:
    """Whether a text names options in brackets, or joins one with "or"."""
    said = {a or b for a, b in re.findall(r"[(\[（]([A-Z])[)\]）]|\bor\s+([A-Z])\b", text)}
    return bool(said & known)


def labels_of_text(answer: str, listed: Mapping[str, str]) -> frozenset[str]:
    """The label of the only option that has this text; empty where none or several have it."""
    wanted = normalise(_bare(answer))
    found = [label for label, text in listed.items() if wanted and normalise(_bare(text)) == wanted]
    return frozenset(found) if len(found) == 1 else frozenset()


def _said_labels(text: str, known: set[str]) -> frozenset[str]:
    """What prose says: the label after the last "answer is", "choose", ..., else the only one in brackets or at the end of
    the last line."""
    tail = unicodedata.normalize("NFKC", text[-TAIL:]).replace("**", "")
    said = [
        m for m in _SAID.finditer(tail) if m[1] in known and not _NEGATED.search(tail, max(0, m.start() - 60), m.start())
    ]
    if said:
        following = tail[said[-1].end() : said[-1].end() + 40]
        other = re.match(r"[)\]）}$]*\s*(?:or|或|/)\s*[(\[（]?([A-Z])\b", following)
        return frozenset() if other and other[1] in known else frozenset({said[-1][1]})
    last = tail.strip().rpartition("\n")[2]
    if _DOUBT.search(last):
        return frozenset()
    found = {a or b for a, b in _BRACKETED.findall(last)} & known
    return frozenset(found) if len(found) == 1 else frozenset()


def chosen_labels(completion: str, listed: Mapping[str, str]) -> frozenset[str]:
    """The labels that a completion gives as its answer; empty where it gives none or leaves it open.

    What it marks as its answer (``answer.marked_answer``) decides alone; without a mark its last words.
    """
    marked = marked_answer(completion)
    answer = extract_answer(completion) if marked is None else marked
    if not answer:
        return frozenset()
    if found := named_labels(answer, listed) or labels_of_text(answer, listed):
        return found
    text = after_thinking(completion) if marked is None else marked
    return _said_labels(text, set(listed) or set(LETTERS))


def grade_choice(row: Mapping[str, Any], completion: str) -> tuple[Verdict, str]:
    """Right if the answer names exactly the row's option, or all of several and no other.

    Raises:
      ValueError: the row's answer names none of its options.
    """
    listed = options(row)
    right = right_labels(row, listed)
    given = chosen_labels(completion, listed)
    shown = ", ".join(sorted(given)) or "no option"
    return (Verdict.RIGHT if given == right else Verdict.WRONG), f"{shown} against {', '.join(sorted(right))}"

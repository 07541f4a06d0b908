"""What reward models learn from: pairs of responses of which one is better, and responses with a label.

A row (JSONL, Parquet, or a ``.json`` list) has a prompt and what was answered. The prompt is

* ``problem`` or ``question`` within a template, as prompt sets have it;
* or ``messages`` (also under ``conversations`` or ``prompt``): ``[{"role", "content"}, ...]``, or ShareGPT's ``[{"from", "value"}]``;
* or nothing of its own, where ``chosen`` and ``rejected`` are whole dialogues that differ in their last answer: lists of messages,
  or transcripts of ``Human:`` and ``Assistant:`` as in Anthropic's helpful-harmless set.

A pair has ``chosen`` and ``rejected``: text, a message or a dialogue. A labelled response has ``response`` (or ``completion``; of
``messages`` the last, if it is the assistant's) and ``safe`` (true or false), or ``label``: a number from 0 to 1, safe or unsafe.

Tokens are those of supervised fine-tuning (``data.examples``): the prompt as the model is given it, the response, the token that
ends it, from whose hidden state a reward model reads its score.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from etils import epath

from r1jax.config import DataSource
from r1jax.data.chat import REASONING_NAMES
from r1jax.data.examples import CHUNK, REASONED, Example, ExampleRow, encode_after, prompt_of
from r1jax.data.prompts import check_text, read_problem, read_template
from r1jax.data.rows import DataError, read_rows
from r1jax.data.summary import final_summary, opens_thought, without_opened_thought
from r1jax.data.tokenizer import Tokenizer

Messages = tuple[Mapping[str, str], ...]
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_DIALOGUES = ("messages", "conversations", "prompt")
_TURN = re.compile(r"\n\n(Human|Assistant):")
_LABELS = {"safe": 1.0, "unsafe": 0.0}


@dataclass(frozen=True)
class PairRow:
    """Two responses to one prompt, as text; the rows differ in their ``completion`` alone."""

    chosen: ExampleRow
    rejected: ExampleRow


@dataclass(frozen=True)
class LabelledRow:
    """A response as text, and how safe it is: 1 is safe."""

    response: ExampleRow
    label: float


@dataclass(frozen=True)
class Pair:
    """Two sequences of one prompt, the better one and the worse one."""

    chosen: Example
    rejected: Example

    @property
    def sequences(self) -> tuple[Example, ...]:
        return self.chosen, self.rejected


@dataclass(frozen=True)
class Labelled:
    """A sequence and its label in [0, 1]."""

    response: Example
    label: float

    @property
    def sequences(self) -> tuple[Example, ...]:
        return (self.response,)


@dataclass(frozen=True)
class LeftOut:
    """Why rows were left out: sequences over the cap, thoughts that no summary follows."""

    too_long: int = 0
    no_summary: int = 0


# ---------------------------------------------------------------------------------------------- rows
def pair_rows(source: DataSource, root: epath.PathLike = ".") -> Iterator[PairRow]:
    """The rows of a set of pairs, one at a time; needs no tokenizer.

    Raises:
      DataError: no such file, no rows, a broken line, a missing or empty field, two equal responses; it names file and line.
    """
    return _rows(_pair_row, source, root)


def labelled_rows(source: DataSource, root: epath.PathLike = ".") -> Iterator[LabelledRow]:
    """The rows of a set of labelled responses; as ``pair_rows``."""
    return _rows(_labelled_row, source, root)


def check_pairs(source: DataSource, root: epath.PathLike = ".") -> None:
    """Reads a set of pairs to its end: see ``pair_rows`` for what it refuses."""
    for _ in pair_rows(source, root):
        pass


def check_labelled(source: DataSource, root: epath.PathLike = ".") -> None:
    """Reads a set of labelled responses to its end."""
    for _ in labelled_rows(source, root):
        pass


_Row = TypeVar("_Row", PairRow, LabelledRow)


def _rows(
    read: Callable[[Mapping[str, Any], DataSource, str], _Row], source: DataSource, root: epath.PathLike
) -> Iterator[_Row]:
    for where, row in read_rows(source, root):
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: a row must be a JSON object, not {type(row).__name__}")
        yield read(row, source, where)


def _pair_row(row: Mapping[str, Any], source: DataSource, where: str) -> PairRow:
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            other = any(row.get(field) is not None for field in ("safe", "label"))
            hint = "; labelled responses are learnt with objective pointwise" if other else ""
            raise DataError(f"{where}: no {name} among its fields {', '.join(map(str, row)) or '(none)'}{hint}")
    (before, chosen), (other, rejected) = (_answer(row[name], name, where) for name in ("chosen", "rejected"))
    if before != other:
        raise DataError(f"{where}: chosen and rejected answer different dialogues; they may differ in the last answer alone")
    if chosen == rejected:
        raise DataError(f"{where}: chosen and rejected are equal; leave the row out")
    first = _prompt_row(row, source, where, before, chosen)
    return PairRow(first, replace(first, completion=rejected))


def _labelled_row(row: Mapping[str, Any], source: DataSource, where: str) -> LabelledRow:
    label = _label(row, source.answer_field, where)
    names = [source.completion_field] if source.completion_field else ["response", "completion"]
    for name in names:
        if row.get(name) is not None:
            return LabelledRow(_prompt_row(row, source, where, *_answer(row[name], name, where)), label)
    if isinstance(row.get("messages"), list):
        before, response = _answer(row["messages"], "messages", where)
        return LabelledRow(ExampleRow(where, response, messages=before), label)
    raise DataError(f"{where}: no {' or '.join(names)} among its fields {', '.join(map(str, row)) or '(none)'}")


def _label(row: Mapping[str, Any], field: str, where: str) -> float:
    names = [field] if field else ["safe", "label"]
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        hint = "; pairs are learnt with objective pairwise" if {"chosen", "rejected"} <= row.keys() else ""
        raise DataError(f"{where}: no {' or '.join(names)} among its fields {', '.join(map(str, row)) or '(none)'}{hint}")
    value = row[name]
    number = _LABELS.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(number, (int, float)) or not 0 <= number <= 1:
        raise DataError(f"{where}: {name} must be true or false, a number from 0 to 1, safe or unsafe, not {value!r:.80}")
    return float(number)


def _prompt_row(row: Mapping[str, Any], source: DataSource, where: str, before: Messages, completion: str) -> ExampleRow:
    """The response after its prompt: the dialogue that came with it, the row's own, or a problem in its template."""
    for name in () if source.prompt_field else _DIALOGUES:
        if isinstance(row.get(name), list):
            if before:
                raise DataError(f"{where}: the prompt stands twice, under {name} and before the answers")
            before = _messages(row[name], name, where)
    if before:
        return ExampleRow(where, completion, messages=before)
    return ExampleRow(where, completion, read_template(row, source, where), read_problem(row, source.prompt_field, where))


def _answer(value: Any, name: str, where: str) -> tuple[Messages, str]:
    """``(what came before, the answer)`` of a text, a message or a dialogue."""
    if isinstance(value, str) and value.startswith("\n\nHuman:"):
        parts = _TURN.split(value)[1:]
        value = [{"from": who.lower(), "value": said.strip()} for who, said in zip(parts[::2], parts[1::2])]
        value = [turn | {"from": "gpt"} if turn["from"] == "assistant" else turn for turn in value]
    if isinstance(value, str):
        check_text(value, name, where)
        return (), value
    messages = _messages(value if isinstance(value, Sequence) else [value], name, where)
    *before, last = messages
    if last["role"] != "assistant":
        raise DataError(f"{where}: the last message of {name} must be the assistant's, not the {last['role']}'s")
    return tuple(before), last["content"]


def _messages(values: Sequence[Any], name: str, where: str) -> Messages:
    """Messages in either notation; the last one's reasoning becomes part of what it says."""
    messages = []
    for value in values:
        said = value if isinstance(value, Mapping) else {}
        role, text = _ROLES.get(said.get("role", said.get("from"))), said.get("content", said.get("value"))
        if role is None:
            raise DataError(f"{where}: {name} has a message without a role of {', '.join(_ROLES)}: {value!r:.80}")
        check_text(text, f"content of the {role}'s message in {name}", where)
        reasoning = next((said[key] for key in REASONING_NAMES if isinstance(said.get(key), str)), None)
        if reasoning and role == "assistant":
            text = REASONED.format(reasoning=reasoning.strip(), content=text)
        messages.append({"role": role, "content": text})
    if not messages:
        raise DataError(f"{where}: {name} has no messages")
    return tuple(messages)


# ---------------------------------------------------------------------------------------------- token ids
def encode_responses(rows: Sequence[ExampleRow], tokenizer: Tokenizer, reads: str) -> list[Example | None]:
    """The sequences that a reward model reads; None where there is no summary to read.

    Args:
      reads: ``final_summary``: the prompt, without a thought that it opens, and the response's summary; ``whole_response``.

    Raises:
      DataError: a response that holds a token which ends a sequence.
      ValueError: a tokenizer without an end token, or without the chat template that is asked for.
    """
    prompts = [prompt_of(row, tokenizer) for row in rows]
    if reads == "whole_response":
        return list(encode_after(rows, prompts, tokenizer))
    summaries = [final_summary(row.completion) for row in rows]
    kept = [i for i, summary in enumerate(summaries) if summary is not None]
    encoded = encode_after(
        [replace(rows[i], completion=summaries[i]) for i in kept],
        [_closed(rows[i], *prompts[i], tokenizer) for i in kept],
        tokenizer,
    )
    found: list[Example | None] = [None] * len(rows)
    for i, example in zip(kept, encoded):
        found[i] = example
    return found


def _closed(row: ExampleRow, text: str, ids: list[int], tokenizer: Tokenizer) -> tuple[str, list[int]]:
    if not opens_thought(text):
        return text, ids
    text = without_opened_thought(text)
    return text, tokenizer.encode(text, add_bos=tokenizer.adds_bos and not row.is_chat)


def load_pairs(
    source: DataSource, tokenizer: Tokenizer, max_tokens: int, reads: str, root: epath.PathLike = "."
) -> tuple[list[Pair], LeftOut]:
    """The pairs of which both sequences can be read and have at most ``max_tokens`` tokens, in the order of their rows.

    Raises:
      DataError: see ``pair_rows`` and ``encode_responses``; nothing is left.
      ValueError: see ``encode_responses``.
    """

    def encode(rows: Sequence[PairRow]) -> Iterable[tuple[Example | None, ...]]:
        both = [row for pair in rows for row in (pair.chosen, pair.rejected)]
        found = encode_responses(both, tokenizer, reads)
        return zip(found[::2], found[1::2])

    return _load(pair_rows(source, root), encode, lambda row, found: Pair(*found), max_tokens, source.path)


def load_labelled(
    source: DataSource, tokenizer: Tokenizer, max_tokens: int, reads: str, root: epath.PathLike = "."
) -> tuple[list[Labelled], LeftOut]:
    """The labelled responses; as ``load_pairs``."""

    def encode(rows: Sequence[LabelledRow]) -> Iterable[tuple[Example | None, ...]]:
        return ((found,) for found in encode_responses([row.response for row in rows], tokenizer, reads))

    return _load(
        labelled_rows(source, root), encode, lambda row, found: Labelled(*found, row.label), max_tokens, source.path
    )


def _load(rows: Iterator[Any], encode: Any, make: Any, max_tokens: int, path: str) -> tuple[list[Any], LeftOut]:
    kept, too_long, no_summary = [], 0, 0
    while chunk := list(itertools.islice(rows, CHUNK)):
        for row, found in zip(chunk, encode(chunk)):
            if any(example is None for example in found):
                no_summary += 1
            elif any(len(example.tokens) > max_tokens for example in found):
                too_long += 1
            else:
                kept.append(make(row, found))
    if not kept:
        raise DataError(
            f"nothing of {path} can be learnt: {too_long} rows exceed max_tokens {max_tokens}, {no_summary} have a thought that no "
            "summary follows; raise max_tokens, or set reads to whole_response"
        )
    return kept, LeftOut(too_long, no_summary)

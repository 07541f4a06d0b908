"""Examples for supervised fine-tuning: a prompt and the completion to be learnt, from rows of text to token ids.

A row is one of two things:

* a prompt as prompt sets have it (``problem`` or ``question``; the row's ``template`` or its source's) and a ``completion``;
* ``messages``, ``[{"role", "content"}, ...]``, of which the last is the assistant's. Only that one is learnt. Earlier turns
  are context, as the model's chat template renders them before an answer (R1's takes the reasoning out of them): what the
  model will see. A dialogue of which more is to be learnt is given as several rows.

A completion's tokens are followed by the one that ends it: after a chat prompt what the model's chat template writes after an
assistant's words, after a plain one the tokenizer's own end of sequence. Nothing else is learnt.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from r1jax.config import DataSource
from r1jax.data.chat import REASONING_NAMES
from r1jax.data.prompts import check_text, read_problem, read_template
from r1jax.data.rows import DataError, read_rows
from r1jax.data.template import CHAT_TEMPLATES, render_prompt
from r1jax.data.tokenizer import Tokenizer

CHUNK = 1_024  # rows that are encoded at a time, on all cores
THINK = "<think>"
# R1's output: reasoning, then the summary.
REASONED = "<think>\n{reasoning}\n</think>\n\n{content}"


@dataclass(frozen=True)
class Example:
    """One sequence to learn.

    Attributes:
      tokens: int32 ``[n]``, the prompt's, the completion's and the one that ends it.
      completion_start: number of prompt tokens, at least 1.
    """

    tokens: np.ndarray
    completion_start: int

    @property
    def learnt(self) -> int:
        """Number of tokens that are learnt."""
        return len(self.tokens) - self.completion_start


@dataclass(frozen=True)
class ExampleRow:
    """A row as text. ``messages``: what comes before the completion; None: ``problem`` within ``template`` does."""

    where: str
    completion: str
    template: str = ""
    problem: str = ""
    messages: tuple[Mapping[str, Any], ...] | None = None

    @property
    def is_chat(self) -> bool:
        return self.messages is not None or self.template in CHAT_TEMPLATES


# ---------------------------------------------------------------------------------------------- rows
def example_rows(source: DataSource, root: epath.PathLike = ".") -> Iterator[ExampleRow]:
    """The rows of a set of examples, one at a time; needs no tokenizer.

    Raises:
      DataError: no such file, no rows, a broken line, a missing or empty field; it names file and line.
    """
    for where, row in read_rows(source, root):
        yield _example_row(row, source, where)


def check_examples(source: DataSource, root: epath.PathLike = ".") -> None:
    """Reads a set of examples to its end: see ``example_rows`` for what it refuses."""
    for _ in example_rows(source, root):
        pass


def _example_row(row: Any, source: DataSource, where: str) -> ExampleRow:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: a row must be a JSON object, not {type(row).__name__}")
    name = source.completion_field or "completion"
    if row.get("messages") is not None and row.get(name) is None:
        *before, last = _messages(row["messages"], where)
        completion = last["content"]
        reasoning = next((last[key] for key in REASONING_NAMES if last.get(key)), None)
        if reasoning is not None:
            check_text(reasoning, "reasoning of the last message", where)
            completion = REASONED.format(reasoning=reasoning.strip(), content=completion)
        return ExampleRow(where, completion, messages=tuple(before))
    if name in row and row[name] is None:
        raise DataError(f"{where}: {name} is null; give the text to be learnt, or name its field with completion_field")
    if name not in row:
        raise DataError(
            f"{where}: neither {name} nor messages among its fields {', '.join(map(str, row)) or '(none)'}; name the text to "
            "be learnt with completion_field"
        )
    check_text(row[name], name, where)
    return ExampleRow(where, row[name], read_template(row, source, where), read_problem(row, source.prompt_field, where))


def _messages(messages: Any, where: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or len(messages) < 2:
        raise DataError(f"{where}: messages must be a list of at least a question and an answer, not {messages!r:.80}")
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise DataError(f"{where}: a message must have a role and content, not {message!r:.80}")
        check_text(message.get("content"), f"content of the {message['role']}'s message", where)
    if messages[-1]["role"] != "assistant":
        raise DataError(
            f"{where}: the last message must be the assistant's, which is learnt, not the {messages[-1]['role']}'s"
        )
    return messages


# ---------------------------------------------------------------------------------------------- token ids
def load_examples(
    source: DataSource, tokenizer: Tokenizer, max_tokens: int, root: epath.PathLike = "."
) -> tuple[list[Example], int]:
    """``(examples, how many were too long)``: those of at most ``max_tokens`` tokens, in the order of their rows.

    Raises:
      DataError: see ``example_rows``; a completion that holds a token which ends a sequence; nothing is left.
      ValueError: a tokenizer without an end token, or without the chat template that is asked for.
    """
    rows, kept, too_long = example_rows(source, root), [], 0
    while chunk := list(itertools.islice(rows, CHUNK)):
        for example in encode_examples(chunk, tokenizer):
            if len(example.tokens) <= max_tokens:
                kept.append(example)
            else:
                too_long += 1
    if not kept:
        raise DataError(f"no example of {source.path} fits max_tokens {max_tokens}: all {too_long} are longer; raise it")
    return kept, too_long


def encode_examples(rows: Sequence[ExampleRow], tokenizer: Tokenizer) -> list[Example]:
    """The rows' token ids, each after its own prompt; see ``encode_after``."""
    return encode_after(rows, [prompt_of(row, tokenizer) for row in rows], tokenizer)


def encode_after(
    rows: Sequence[ExampleRow], prompts: Sequence[tuple[str, list[int]]], tokenizer: Tokenizer
) -> list[Example]:
    """The token ids of the rows' completions after given prompts, text and ids of each.

    The prompt's ids are those that the model is given when it is sampled, whatever follows. The completion's are those that
    the whole text has after them; where a token of the whole text lies across the border, those of the completion alone.
    """
    completions = [_not_opened_twice(text, row.completion) for row, (text, _) in zip(rows, prompts)]
    wholes = tokenizer.encode_batch([text + completion for (text, _), completion in zip(prompts, completions)])
    examples = []
    for row, (_, prompt), completion, whole in zip(rows, prompts, completions, wholes):
        if not prompt:
            raise DataError(f"{row.where}: the prompt has no tokens, and nothing predicts the first one of a sequence")
        if not row.is_chat and tokenizer.adds_bos and whole[:1] != prompt[:1]:
            whole = [tokenizer.bos_id, *whole]
        learnt = whole[len(prompt) :] if whole[: len(prompt)] == prompt else _encode_inside(completion, tokenizer)
        if ends := tokenizer.eos_ids.intersection(learnt):
            raise DataError(
                f"{row.where}: the completion holds {tokenizer.token(min(ends))!r}, which ends a sequence; leave it out, the "
                "end is put after a completion"
            )
        tokens = np.array([*prompt, *learnt, end_token(tokenizer, row.is_chat)], np.int32)
        examples.append(Example(tokens, len(prompt)))
    return examples


def end_token(tokenizer: Tokenizer, chat: bool) -> int:
    """The id that ends a completion, after a chat prompt or a plain one.

    Raises:
      ValueError: the tokenizer has none.
    """
    found = tokenizer.turn_end_id if chat and tokenizer.turn_end_id is not None else tokenizer.eos_id
    if found is None:
        raise ValueError(f"{tokenizer.source} names no end of sequence; put eos_token into its tokenizer_config.json")
    return found


def prompt_of(row: ExampleRow, tokenizer: Tokenizer) -> tuple[str, list[int]]:
    """The text and the ids of a row's prompt, as a model is given it when it is sampled.

    Raises:
      ValueError: a chat template that is missing or refuses the messages.
    """
    if row.messages is None:
        return render_prompt(row.template, row.problem, tokenizer)
    try:
        text = tokenizer.apply_chat_template(row.messages, add_generation_prompt=True)
    except ValueError as error:
        raise DataError(f"{row.where}: {error}") from None
    return text, tokenizer.encode(text)


def _not_opened_twice(prompt: str, completion: str) -> str:
    """The completion without its ``<think>`` where the prompt ends in one, as R1's chat template has it since 2025."""
    if prompt.rstrip().endswith(THINK) and completion.lstrip().startswith(THINK):
        rest = completion.lstrip().removeprefix(THINK)
        return rest.removeprefix("\n") if prompt.endswith("\n") else rest
    return completion


def _encode_inside(text: str, tokenizer: Tokenizer) -> list[int]:
    """The ids of a text that follows another: without the space that sentencepiece puts before a first word."""
    before, both = tokenizer.encode("\n"), tokenizer.encode("\n" + text)
    return both[len(before) :] if both[: len(before)] == before else tokenizer.encode(text)


def total_tokens(examples: Iterable[Example]) -> tuple[int, int]:
    """``(all, learnt)`` tokens of examples."""
    sizes = np.array([(len(example.tokens), example.learnt) for example in examples], np.int64).reshape(-1, 2)
    return int(sizes[:, 0].sum()), int(sizes[:, 1].sum())

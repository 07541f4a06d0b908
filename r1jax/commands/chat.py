"""Talk with a model: its own chat template, answers as they are written, thinking dimmed.

The conversation is kept; what a template cuts from earlier answers (R1's drops everything up to </think>) the model does
not see again. Ctrl-C ends an answer, Ctrl-D or /exit the conversation, /new begins another.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from r1jax.commands.sampling import add_sampling_arguments, check_sampling

THINK, ANSWER = "<think>", "</think>"
DIM, PLAIN = "\033[2m", "\033[0m"
CHUNK = 4  # tokens between two looks: what appears at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a Hugging Face directory or an r1jax checkpoint with a chat template"
    )
    parser.add_argument("--system", metavar="TEXT", help="a system message before the first turn")
    add_sampling_arguments(parser, samples=1, temperature=0.6, top_p=0.95, max_tokens=1024)


def dimmed(pieces: Iterable[str], thinking: bool) -> Iterator[str]:
    """The text with what stands between <think> and </think> dimmed; a tag that is split over pieces is held back until it is
    whole. ``thinking``: whether the text begins inside."""
    if thinking:
        yield DIM
    held = ""
    for piece in pieces:
        held += piece
        while (tag := ANSWER if thinking else THINK) in held:
            before, _, held = held.partition(tag)
            yield before + tag + PLAIN if thinking else before + DIM + tag
            thinking = not thinking
        keep = next((n for n in range(min(len(tag) - 1, len(held)), 0, -1) if held.endswith(tag[:n])), 0)
        if len(held) > keep:
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    yield held + (PLAIN if thinking else "")


class Chat:
    """A conversation with a loaded model. ``answer(text)`` gives the pieces of an answer as they are written."""

    def __init__(self, model: Any, sampler: Any, arguments: argparse.Namespace):
        self._model, self._sampler, self._arguments = model, sampler, arguments
        self._stop_ids = frozenset(model.config.eos_token_ids) | frozenset(model.tokenizer.eos_ids)
        self._turn = 0
        self.begin()

    def begin(self) -> None:
        """Forgets the conversation."""
        system = self._arguments.system
        self.messages = [{"role": "system", "content": system}] if system else []

    def prompt(self, text: str) -> tuple[str, list[int]]:
        """What the model is given for the next turn: text and token ids.

        Raises:
          ValueError: the message, or the conversation with it, leaves no position for an answer.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        rendered = self._model.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        ids = self._model.tokenizer.encode(rendered)
        positions = self._model.config.max_position_embeddings
        if len(ids) >= positions:
            alone = self._model.tokenizer.apply_chat_template(messages[-1:], add_generation_prompt=True)
            tokens, remedy = len(self._model.tokenizer.encode(alone)), ": shorten it"
            what = "the message"
            if tokens < positions:
                what, tokens, remedy = "the conversation", len(ids), "; /new begins another"
            raise ValueError(f"{what} makes {tokens} tokens, the model has {positions} positions{remedy}")
        return rendered, ids

    def answer(self, text: str, ids: list[int], opening: str) -> Iterator[str]:
        """Pieces of the answer. The turn is kept also if the caller stops listening.

        Args:
          text, ids: the user's message and the prompt's token ids (``prompt``).
          opening: of the answer, if the template has begun it (``<think>``): kept in front of it.
        """
        import numpy as np

        from r1jax.rollout import Wave

        arguments, left = self._arguments, self._model.config.max_position_embeddings - len(ids)
        wave = Wave(
            prompts=(np.array(ids, np.int32),),
            prompt_ids=(self._turn,),
            samples=1,
            seed=arguments.seed,
            rollout=0,
            max_tokens=min(arguments.max_tokens, left),
            stop_ids=self._stop_ids,
            temperature=arguments.temperature,
            top_p=arguments.top_p,
        )
        self._turn += 1
        stream, said = self._model.tokenizer.stream(), opening
        try:
            for tokens in self._sampler.stream(self._model.params, wave):
                piece = stream.push([t for t in tokens.tolist() if t not in self._stop_ids])
                said += piece
                yield piece
            piece = stream.finish()
            said += piece
            yield piece
        finally:
            self.messages += [{"role": "user", "content": text}, {"role": "assistant", "content": said}]


def waiting(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces, with an ellipsis in the place of the first until it comes: a longer conversation may have to compile."""
    yield "…"
    erase = "\r\033[K"
    for piece in filter(None, pieces):
        yield erase + piece
        erase = ""
    yield erase


def talk(chat: Chat, lines: Iterable[str], out: TextIO, colours: bool) -> None:
    """Answers each line until there are none."""
    for line in lines:
        text = line.strip()
        if text == "/exit":
            return
        if text == "/new":
            chat.begin()
        if not text or text == "/new":
            continue
        try:
            rendered, ids = chat.prompt(text)
        except ValueError as error:
            print(error, file=out)
            continue
        thinking = rendered.rstrip().endswith(THINK)
        pieces = chat.answer(text, ids, THINK + "\n" if thinking else "")
        shown = dimmed(waiting(pieces), thinking) if colours else pieces
        try:
            for piece in shown:
                print(piece, end="", file=out, flush=True)
        except KeyboardInterrupt:
            pieces.close()
            print(PLAIN if colours else "", end="", file=out)
        print(file=out, flush=True)


def typed() -> Iterator[str]:
    """Lines from the keyboard, with a prompt where there is one; from a pipe, its lines."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (input() edits lines with it)
    while True:
        try:
            yield input("> ")
        except KeyboardInterrupt:
            print()
        except EOFError:
            print()
            return


def run(arguments: argparse.Namespace) -> int:
    check_sampling(arguments)
    if arguments.samples != 1:
        raise ValueError(f"--samples must be 1 in a conversation, not {arguments.samples}")
    from r1jax import sharding
    from r1jax.checkpoint import load_model
    from r1jax.config import SamplerSettings
    from r1jax.models.precision import compute_dtype
    from r1jax.rollout import Sampler

    if sys.stdin.isatty():
        print(
            f"loading {arguments.model}; Ctrl-C ends an answer, Ctrl-D the conversation, /new begins another",
            file=sys.stderr,
        )
    layout = sharding.layout(sharding.make_mesh(), sharding.ROLLOUT_RULES)
    dtype = compute_dtype(layout.platform)
    model = load_model(arguments.model, mesh=layout.mesh, dtype=dtype, rules=sharding.ROLLOUT_RULES, prediction=False)
    if model.tokenizer is None or model.tokenizer.chat is None:
        raise ValueError(f"{arguments.model} has no chat template; r1jax generate continues plain text")
    slots = dataclasses.replace(SamplerSettings(), rows=1, lanes=1, chunk=CHUNK)
    talk(Chat(model, Sampler(model.config, layout, slots, dtype), arguments), typed(), sys.stdout, sys.stdout.isatty())
    return 0

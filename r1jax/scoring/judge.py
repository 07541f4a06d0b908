"""The generative judge: a model that compares an answer with a reference, or two answers with each other.

A judge writes its own input from text, by its own prompts and tokenizer, and reads what the model says as a verdict
(``scoring.verdicts``). Who samples is given to it: ``SampledAnswers`` does on the mesh; a stage that records what it samples
gives its own.

The randomness of an answer is folded from (seed, text of the request, repeat): a request is judged alike in whatever batch it
stands, and two equal requests are one. As everywhere, log-probabilities of other buckets may differ in their last bits, and a
token with them in a tie.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from r1jax import models
from r1jax.config import JudgeSettings, SamplerSettings
from r1jax.data import Tokenizer
from r1jax.data.template import render_prompt
from r1jax.rewards.judgements import without_verdicts
from r1jax.rollout import Sampler, Wave
from r1jax.scoring.judge_prompts import JudgePrompts
from r1jax.scoring.verdicts import TOO_LONG, Answer, Comparison, JudgeVerdict, Reading, read_answer
from r1jax.sharding import Layout


@dataclass(frozen=True)
class WithReference:
    """Does ``answer`` come to the same as ``reference``?"""

    question: str
    reference: str
    answer: str


@dataclass(frozen=True)
class Pair:
    """Which of two answers is better?"""

    question: str
    a: str
    b: str


@dataclass(frozen=True)
class JudgePrompt:
    """A request as the model is given it: its text and its token ids, int32."""

    text: str
    tokens: np.ndarray


class Answers(Protocol):
    """Who samples a judge: ``repeats`` answers to each prompt, in the order of the prompts, which are distinct."""

    def __call__(self, prompts: Sequence[JudgePrompt], repeats: int) -> list[list[Answer]]: ...


class Judge:
    """Judges requests in any number.

    Args:
      answers: who samples.
      tokenizer: of the judge's model.
      prompts: what it is asked.
      settings: how often, and how long a prompt may be; the rest of them is read by whoever samples.

    Raises:
      ValueError: numbers of judgements that can't be: see ``check_judge_settings``.
    """

    def __init__(self, answers: Answers, tokenizer: Tokenizer, prompts: JudgePrompts, settings: JudgeSettings):
        check_judge_settings(settings, "judge")
        self._answers, self._tokenizer, self._prompts, self._settings = answers, tokenizer, prompts, settings
        special = (tokenizer.token(number) for number in tokenizer.special_ids)
        self._special = tuple(filter(None, special))

    def with_references(self, requests: Sequence[WithReference]) -> list[JudgeVerdict]:
        """A verdict on each answer, in the order of the requests."""
        texts = [
            self._render("reference", question=request.question, reference=request.reference, answer=request.answer)
            for request in requests
        ]
        readings = self._readings("reference", texts, self._repeats("reference"))
        return [JudgeVerdict(readings[text]) for text in texts]

    def compare(self, pairs: Sequence[Pair]) -> list[Comparison]:
        """A comparison of each pair, in the order of the pairs: half of the judgements with ``a`` shown first, half with
        ``b``."""
        straight = [self._render("pair", question=pair.question, a=pair.a, b=pair.b) for pair in pairs]
        swapped = [self._render("pair", question=pair.question, a=pair.b, b=pair.a) for pair in pairs]
        readings = self._readings("pair", [*straight, *swapped], self._repeats("pair"))
        return [Comparison(readings[one], readings[other]) for one, other in zip(straight, swapped)]

    def warm_up(self, form: str, should_stop: Callable[[], bool] | None = None) -> None:
        """Compiles what judgements of this form (``reference`` or ``pair``) need, where ``SampledAnswers`` answers.

        Raises:
          SamplingStopped: ``should_stop`` said so.
        """
        self._answers.warm_up(self._repeats(form), should_stop)

    def _repeats(self, form: str) -> int:
        """Of one request: a pair is two, one for each order."""
        return self._settings.reference_judgements if form == "reference" else self._settings.pair_judgements // 2

    def _render(self, form: str, **fields: str) -> str:
        return self._prompts.render(form, **{name: self._as_text(value) for name, value in fields.items()})

    def _as_text(self, text: str) -> str:
        """The text without the judge's special tokens, with which an answer could end its own turn and begin another, and without
        words that could be read as its verdict."""
        before = None
        while before != text:  # taking one out may put another together
            before = text
            for token in self._special:
                text = text.replace(token, "")
        return without_verdicts(text.strip())

    def _readings(self, form: str, texts: Sequence[str], repeats: int) -> dict[str, tuple[Reading, ...]]:
        """text -> the readings of its answers."""
        rendered = {text: self._prompt(text) for text in dict.fromkeys(texts)}
        fitting = {text: p for text, p in rendered.items() if len(p.tokens) <= self._settings.max_prompt_tokens}
        answers = self._answers(list(fitting.values()), repeats) if fitting else []
        readings = dict.fromkeys(rendered, (Reading(None, reason=TOO_LONG),) * repeats)
        for (text, prompt), given in zip(fitting.items(), answers, strict=True):
            readings[text] = tuple(read_answer(answer, prompt.text, form) for answer in given)
        return readings

    def _prompt(self, text: str) -> JudgePrompt:
        shown, ids = render_prompt(self._prompts.template, text, self._tokenizer)
        return JudgePrompt(shown, np.asarray(ids, np.int32))


def check_judge_settings(settings: JudgeSettings, where: str) -> None:
    """Refuses settings that can't be judged by.

    Raises:
      ValueError: naming the key under ``where``, its value and what it may be.
    """
    for key, allowed, what in (
        ("reference_judgements", settings.reference_judgements >= 1, "at least 1"),
        (
            "pair_judgements",
            settings.pair_judgements >= 2 and settings.pair_judgements % 2 == 0,
            "even and at least 2: either order is shown equally often",
        ),
        ("temperature", settings.temperature >= 0, "0 (greedy) or more"),
        ("top_p", 0 < settings.top_p <= 1, "over 0 and at most 1"),
        ("max_tokens", settings.max_tokens >= 1, "at least 1"),
        ("max_prompt_tokens", settings.max_prompt_tokens >= 1, "at least 1"),
        ("rows", settings.rows >= 1, "at least 1"),
    ):
        if not allowed:
            raise ValueError(f"{where}.{key} must be {what}, not {getattr(settings, key)}")


# ---------------------------------------------------------------------------------------------- sampling on the mesh
class SampledAnswers:
    """Answers of a model that is held on the mesh.

    Prompts are sampled with those of their own bucket of lengths, whatever else is asked, so that a call neither compiles for
    its longest one nor has others wait for it; ``warm_up`` compiles for all buckets.

    Args:
      params: of the model, on the layout.
      config: of the model.
      layout: the mesh under the rollout's rules.
      tokenizer: of the model.
      settings: how it is sampled.
      seed: of the run.
      dtype: of the cache, and of ``params``.
      should_stop: looked at while sampling.

    Raises:
      ValueError: the longest prompt and answer need more positions than the model has.
    """

    def __init__(
        self,
        params: Any,
        config: models.ModelConfig,
        layout: Layout,
        tokenizer: Tokenizer,
        settings: JudgeSettings,
        *,
        seed: int,
        dtype: Any,
        should_stop: Callable[[], bool] | None = None,
    ):
        needed = settings.max_prompt_tokens + settings.max_tokens
        if needed > config.max_position_embeddings:
            raise ValueError(
                f"a judge's max_prompt_tokens {settings.max_prompt_tokens} and max_tokens {settings.max_tokens} need {needed} "
                f"positions, the model has {config.max_position_embeddings}: lower them"
            )
        self._params, self._tokenizer, self._settings = params, tokenizer, settings
        self._seed, self._should_stop = seed, should_stop
        self._stop_ids = frozenset(tokenizer.eos_ids) | frozenset(config.eos_token_ids)
        self._samplers = {
            length: Sampler(config, layout, SamplerSettings(rows=settings.rows, prompt_bucket=length), dtype)
            for length in prompt_buckets(settings.max_prompt_tokens)
        }

    def __call__(self, prompts: Sequence[JudgePrompt], repeats: int) -> list[list[Answer]]:
        """See ``Answers``.

        Raises:
          SamplingStopped: ``should_stop`` said so.
        """
        found: list[list[Answer]] = [[] for _ in prompts]
        shorter = 0
        for length, sampler in self._samplers.items():
            own = [place for place, prompt in enumerate(prompts) if shorter < len(prompt.tokens) <= length]
            shorter = length
            for places, numbers in numbered_waves(own, prompts):
                wave, place_of = self._wave([prompts[p] for p in places], numbers, repeats), dict(zip(numbers, places))
                for sequence in sampler.run(self._params, wave, should_stop=self._should_stop):
                    text = self._tokenizer.decode(sequence.content.tolist())
                    found[place_of[sequence.prompt_id]].append(Answer(text, sequence.finish_reason))
        return found

    def warm_up(self, repeats: int, should_stop: Callable[[], bool] | None = None) -> None:
        """Compiles what calls with so many repeats need.

        Raises:
          SamplingStopped: ``should_stop`` said so.
        """
        wave = self._wave([JudgePrompt("", np.zeros(1, np.int32))], [0], repeats)
        for sampler in self._samplers.values():
            sampler.warm_up(self._params, wave, should_stop)

    def _wave(self, prompts: Sequence[JudgePrompt], numbers: Sequence[int], repeats: int) -> Wave:
        return Wave(
            prompts=tuple(prompt.tokens for prompt in prompts),
            prompt_ids=tuple(numbers),
            samples=repeats,
            seed=self._seed,
            rollout=0,
            max_tokens=self._settings.max_tokens,
            stop_ids=self._stop_ids,
            temperature=self._settings.temperature,
            top_p=self._settings.top_p,
        )


def request_number(text: str) -> int:
    """What a request's randomness is folded from: 31 bits of a hash of its text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def numbered_waves(
    places: Sequence[int], prompts: Sequence[JudgePrompt]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(places of prompts, their numbers) of waves that together hold the prompts at ``places``: one wave, save that of prompts
    with the same number, which it could not tell apart, each has another."""
    waiting = [(place, request_number(prompts[place].text)) for place in places]
    while waiting:
        taken: dict[int, int] = {}
        for place, number in waiting:
            taken.setdefault(number, place)
        waiting = [(place, number) for place, number in waiting if taken[number] != place]
        yield tuple(taken.values()), tuple(taken)


def prompt_buckets(longest: int) -> tuple[int, ...]:
    """Lengths up to which prompts are sampled together, rising: ``longest``, and quarters of it down to about 512."""
    lengths = [longest]
    while lengths[-1] >= 2048:
        lengths.append(-(-lengths[-1] // 4))
    return tuple(reversed(lengths))

"""Sampling a wave and having each sequence graded while others are decoded: what rollouts and benchmarks are made of."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from r1jax.data import PromptRow, Tokenizer, render_prompt
from r1jax.rewards.record import RewardRecord, RewardRequest, Verdict, as_failure
from r1jax.rollout.wave import SampledSequence, Wave
from r1jax.scoring.parts import Scored


class Pool(Protocol):
    """What is needed of ``rewards.RewardPool``."""

    def submit(self, key: Hashable, request: RewardRequest) -> None: ...

    def drain(self) -> Sequence[tuple[Hashable, RewardRecord]]: ...


class ModelScores(Protocol):
    """What is needed of rewards that models give: for each request the parts that it needs, by name."""

    def __call__(self, requests: Sequence[RewardRequest]) -> list[dict[str, Scored]]: ...


class Samples(Protocol):
    """What is needed of ``rollout.Sampler``."""

    config: Any  # its max_position_embeddings bounds a sequence

    def run(
        self, params: Any, wave: Wave, on_finished: Any, *, should_stop: Any, on_progress: Any
    ) -> list[SampledSequence]: ...


@dataclass(frozen=True)
class Prompt:
    """A prompt, ready to be sampled: its text, its token ids (int32), and the row that its grader reads."""

    text: str
    tokens: np.ndarray
    row: dict[str, Any]


@dataclass(frozen=True)
class GradedSample:
    """A sampled sequence with its text and its rewards.

    Attributes:
      row: index of the prompt in its data set.
      completion: the text that was graded: without the end-of-sequence token.
    """

    sequence: SampledSequence
    record: RewardRecord
    row: int
    completion: str

    @property
    def cut_off(self) -> bool:
        """Whether the length cap ended it."""
        return self.sequence.finish_reason == "length"

    @property
    def right(self) -> bool:
        """Whether it counts as right, in a benchmark and in a training curve alike: what was cut off never does, whatever
        its grader says (section 4.1 of the paper). The reward is the grader's alone."""
        return self.record.verdict is Verdict.RIGHT and not self.cut_off


@dataclass
class Timing:
    """Seconds of sampling and grading, of the clock and so kept apart from what must be equal; ``tokens`` sampled in them.

    ``reward_s`` is what grading, by rules and by models, took longer than the sampling that it ran beside.
    """

    sample_s: float = 0.0
    reward_s: float = 0.0
    tokens: int = 0


def render(row: PromptRow, tokenizer: Tokenizer) -> Prompt:
    """The row's prompt as the model is given it. Its ids may be none."""
    text, ids = render_prompt(row.template, row.problem, tokenizer)
    own = {**row.row, "problem": row.problem, "answer": row.answer, "grader": row.grader}
    return Prompt(text, np.asarray(ids, np.int32), own)


def sample_and_grade(
    params: Any,
    sampler: Samples,
    tokenizer: Tokenizer,
    wave: Wave,
    prompts: Sequence[Prompt],
    rows: Sequence[int],
    pool: Pool,
    timing: Timing,
    *,
    model_scores: ModelScores | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[GradedSample]:
    """Samples a wave to its end and waits for the last verdict.

    Args:
      params: of the model, as ``sampler`` takes them.
      prompts, rows: of the wave's prompts, in its order: the prompt, and its index in the data set.
      pool: grades; nothing else may be under way in it.
      timing: what this wave took is added to it.
      model_scores: asked on the mesh once all is sampled, while the pool still grades on the host.
      should_stop, on_progress: as ``Sampler.run`` takes them.

    Returns:
      By prompt in the wave's order, then by sample; the order in which verdicts arrived decides nothing.

    Raises:
      SamplingStopped: ``should_stop`` said so.
    """
    position = {prompt_id: i for i, prompt_id in enumerate(wave.prompt_ids)}
    requests: dict[tuple[int, int], RewardRequest] = {}

    def submit(sequence: SampledSequence) -> None:
        prompt, key = prompts[position[sequence.prompt_id]], (sequence.prompt_id, sequence.sample)
        requests[key] = RewardRequest(
            row=prompt.row,
            prompt=prompt.text,
            completion=tokenizer.decode(sequence.content.tolist()),
            tokens=len(sequence.tokens),
            finish_reason=sequence.finish_reason,
            extra={"seed": wave.seed, "rollout": wave.rollout, "prompt_id": key[0], "sample": key[1]},
            max_tokens=wave.max_tokens,
        )
        pool.submit(key, requests[key])

    started = time.monotonic()
    sequences = sampler.run(params, wave, submit, should_stop=should_stop, on_progress=on_progress)
    sampled = time.monotonic()
    keys = [(sequence.prompt_id, sequence.sample) for sequence in sequences]
    scores = model_scores([requests[key] for key in keys]) if model_scores is not None else [{}] * len(keys)
    records = dict(pool.drain())
    timing.sample_s += sampled - started
    timing.reward_s += time.monotonic() - sampled
    timing.tokens += sum(len(s.tokens) for s in sequences)
    samples = []
    for sequence, key, own in zip(sequences, keys, scores):
        samples.append(
            GradedSample(sequence, _joined(records[key], own), int(rows[position[key[0]]]), requests[key].completion)
        )
    return samples


def _joined(record: RewardRecord, own: Mapping[str, Scored]) -> RewardRecord:
    """The rules' record with what models gave, and with their reasons: failures at the end (``rewards.record.common_failure``)."""
    parts = {**record.parts, **{name: scored.value for name, scored in own.items()}}
    failed = [as_failure(s.reason) for s in own.values() if s.value is None]
    told = [s.reason for s in own.values() if s.value is not None]
    return dataclasses.replace(record, parts=parts, reason="; ".join(filter(None, [*told, record.reason, *failed])))

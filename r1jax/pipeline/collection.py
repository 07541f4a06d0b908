"""Collecting a rollout: waves are sampled and graded at once, recorded, and asked for again where groups say nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from etils import epath

from r1jax.pipeline.ledger import GradedSample, read_wave, wave_folder, write_wave
from r1jax.pipeline.records import committed
from r1jax.rewards.record import RewardRequest, Verdict
from r1jax.rollout import SampledSequence, Sampler, Wave


@dataclass(frozen=True)
class Prompt:
    """A prompt, ready to be sampled: its text, its token ids, and the row that its grader reads."""

    text: str
    tokens: np.ndarray
    row: dict[str, Any]


class Pool(Protocol):
    """What is needed of ``rewards.RewardPool``."""

    def submit(self, key: Any, request: RewardRequest) -> None: ...

    def drain(self) -> list[tuple[Any, Any]]: ...


@dataclass
class Timing:
    """Seconds of a rollout's phases: of the clock, so kept apart from what must be equal."""

    sample_s: float = 0.0
    reward_s: float = 0.0
    tokens: int = 0


@dataclass(frozen=True)
class WaveRequest:
    """Everything about a rollout's waves but the prompts."""

    rollout: int
    prompts: int
    samples: int
    seed: int
    max_tokens: int
    stop_ids: frozenset[int]
    temperature: float
    again: int  # most waves sampled again for groups that say nothing

    def wave(self, prompts: Sequence[Prompt], first_id: int) -> Wave:
        return Wave(
            prompts=tuple(p.tokens for p in prompts),
            prompt_ids=tuple(range(first_id, first_id + len(prompts))),
            samples=self.samples,
            seed=self.seed,
            rollout=self.rollout,
            max_tokens=self.max_tokens,
            stop_ids=self.stop_ids,
            temperature=self.temperature,
        )


@dataclass(frozen=True)
class Rollout:
    """A collected rollout.

    Attributes:
      groups: the groups that are trained on, each all samples of one prompt, in order.
      all_samples: besides them those of groups that were replaced.
      prompts_used: how far the prompt set was read.
    """

    groups: list[list[GradedSample]]
    all_samples: list[GradedSample]
    prompts_used: int
    timing: Timing = field(default_factory=Timing)

    @property
    def samples(self) -> list[GradedSample]:
        return [sample for group in self.groups for sample in group]


def says_something(group: Sequence[GradedSample]) -> bool:
    """Whether a group is neither all right nor all wrong, by true accuracy (not by shaped reward: NeMo-RL issue 2431
    shows what that teaches); ungraded samples do not count."""
    verdicts = {sample.record.verdict for sample in group} - {Verdict.UNGRADED}
    return len(verdicts) > 1


class Collector:
    """Samples, grades and records the waves of rollouts.

    Args:
      stage: the stage's folder.
      prompts: the prompt set.
      order: ``order(start, count) -> indices``: the prompt set's endless, reshuffled order.
      sampler, pool: who samples, who grades.
      decode: token ids of a completion -> the text to be graded and read.
    """

    def __init__(
        self,
        stage: epath.Path,
        prompts: Sequence[Prompt],
        order: Callable[[int, int], np.ndarray],
        sampler: Sampler,
        pool: Pool,
        decode: Callable[[np.ndarray], str],
        should_stop: Callable[[], bool],
    ):
        self._stage, self._prompts, self._order = stage, prompts, order
        self._sampler, self._pool, self._decode, self._should_stop = sampler, pool, decode, should_stop

    def collect(
        self, params: Any, request: WaveRequest, start: int, on_progress: Callable[[int, int], None] | None = None
    ) -> Rollout:
        """Collects a rollout from the prompts at ``start`` of the order on.

        With ``request.again``, groups that are all right or all wrong are replaced by new prompts', at most so many times;
        what still lacks then is filled with such groups, so that the size of a rollout never changes.

        Raises:
          SamplingStopped: the run was asked to stop; the unfinished wave is lost, finished ones stay.
        """
        timing, informative, rest, everything = Timing(), [], [], []
        used, wanted = 0, request.prompts
        for number in range(request.again + 1):
            rows = self._order(start + used, wanted)
            groups = self._wave(params, request, number, rows, used, timing, on_progress)
            used += wanted
            everything += [sample for group in groups for sample in group]
            for group in groups:
                (informative if not request.again or says_something(group) else rest).append(group)
            wanted = request.prompts - len(informative)
            if wanted <= 0:
                break
        chosen = (informative + rest)[: request.prompts]
        return Rollout(chosen, everything, used, timing)

    def _wave(self, params, request, number, rows, first_id, timing, on_progress) -> list[list[GradedSample]]:
        folder = wave_folder(self._stage, request.rollout, number)
        if committed(folder):
            samples = read_wave(folder)
        else:
            samples = self._sample(params, request, rows, first_id, timing, on_progress)
            write_wave(folder, samples, {int(row): self._prompts[row].row for row in rows})
        return [samples[i : i + request.samples] for i in range(0, len(samples), request.samples)]

    def _sample(self, params, request, rows, first_id, timing, on_progress) -> list[GradedSample]:
        texts: dict[tuple[int, int], str] = {}

        def grade(sequence: SampledSequence) -> None:
            prompt = self._prompts[rows[sequence.prompt_id - first_id]]
            key = (sequence.prompt_id, sequence.sample)
            texts[key] = self._decode(sequence.tokens)
            self._pool.submit(
                key,
                RewardRequest(
                    row=prompt.row,
                    prompt=prompt.text,
                    completion=texts[key],
                    tokens=len(sequence.tokens),
                    finish_reason=sequence.finish_reason,
                    extra={"seed": request.seed, "rollout": request.rollout, "prompt_id": key[0], "sample": key[1]},
                ),
            )

        started = time.monotonic()
        wave = request.wave([self._prompts[row] for row in rows], first_id)
        sequences = self._sampler.run(params, wave, grade, should_stop=self._should_stop, on_progress=on_progress)
        sampled = time.monotonic()
        verdicts = dict(self._pool.drain())
        timing.sample_s += sampled - started
        timing.reward_s += time.monotonic() - sampled
        timing.tokens += sum(len(s.tokens) for s in sequences)
        return [
            GradedSample(s, verdicts[s.prompt_id, s.sample], int(rows[s.prompt_id - first_id]), texts[s.prompt_id, s.sample])
            for s in sequences
        ]

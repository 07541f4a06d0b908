"""Collecting a rollout: wave after wave is sampled, graded and recorded; groups that say nothing are replaced.

What is collected does not depend on the size of the waves: a prompt's number within the rollout carries its randomness, and
groups are replaced once the whole rollout is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from etils import epath

from r1jax.data import Tokenizer
from r1jax.evaluation.grading import GradedSample, ModelScores, Pool, Prompt, Timing, sample_and_grade
from r1jax.pipeline.ledger import read_wave, wave_folder, write_wave
from r1jax.pipeline.records import committed
from r1jax.rewards.record import Verdict
from r1jax.rollout import Sampler, Wave


@dataclass(frozen=True)
class WaveRequest:
    """Everything about a rollout's waves but the prompts.

    Attributes:
      prompts: of the whole rollout.
      prompts_per_wave: most prompts of one wave.
      again: most times that groups which say nothing are replaced.
      top_p: below 1 only where data is made; training samples the full softmax.
    """

    rollout: int
    prompts: int
    prompts_per_wave: int
    samples: int
    seed: int
    max_tokens: int
    stop_ids: frozenset[int]
    temperature: float
    again: int = 0
    top_p: float = 1.0

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
            top_p=self.top_p,
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
    shows what that teaches); ungraded samples do not count. Where there is no right answer, a group says something."""
    verdicts = {sample.record.verdict for sample in group} - {Verdict.UNGRADED}
    return len(verdicts) > 1 or verdicts == {Verdict.NONE}


class Collector:
    """Samples, grades and records the waves of rollouts.

    Args:
      stage: the stage's folder.
      prompts: the prompt set.
      order: ``order(start, count) -> indices``: the prompt set's endless, reshuffled order.
      sampler, pool: who samples, who grades.
      tokenizer: turns completions into the text to be graded and read.
      model_scores: rewards that models give, recorded with the pool's.
    """

    def __init__(
        self,
        stage: epath.Path,
        prompts: Sequence[Prompt],
        order: Callable[[int, int], np.ndarray],
        sampler: Sampler,
        pool: Pool,
        tokenizer: Tokenizer,
        should_stop: Callable[[], bool],
        model_scores: ModelScores | None = None,
    ):
        self._model_scores = model_scores
        self._stage, self._prompts, self._order = stage, prompts, order
        self._sampler, self._pool, self._tokenizer, self._should_stop = sampler, pool, tokenizer, should_stop

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
        used = waves = 0
        for _ in range(request.again + 1):
            wanted = request.prompts - len(informative)
            for first in range(0, wanted, request.prompts_per_wave):
                rows = self._order(start + used, min(request.prompts_per_wave, wanted - first))
                show = _continued(on_progress, len(everything), timing.tokens)
                samples = self._wave(params, request, waves, rows, used, timing, show)
                used, waves = used + len(rows), waves + 1
                everything += samples
                for i in range(0, len(samples), request.samples):
                    group = samples[i : i + request.samples]
                    (informative if not request.again or says_something(group) else rest).append(group)
            if len(informative) >= request.prompts:
                break
        chosen = (informative + rest)[: request.prompts]
        return Rollout(chosen, everything, used, timing)

    def waves(
        self, params: Any, request: WaveRequest, timing: Timing, on_progress: Callable[[int, int], None] | None = None
    ) -> Iterator[list[GradedSample]]:
        """The waves of a rollout from the beginning of the order, one at a time, for those who don't keep it whole. No group
        is replaced.

        Raises:
          SamplingStopped: as ``collect``.
        """
        done = 0
        for number, first in enumerate(range(0, request.prompts, request.prompts_per_wave)):
            rows = self._order(first, min(request.prompts_per_wave, request.prompts - first))
            show = _continued(on_progress, done, timing.tokens)
            samples = self._wave(params, request, number, rows, first, timing, show)
            done += len(samples)
            yield samples

    def _wave(self, params, request, number, rows, first_id, timing, on_progress) -> list[GradedSample]:
        folder = wave_folder(self._stage, request.rollout, number)
        if committed(folder):
            return read_wave(folder)
        prompts = [self._prompts[row] for row in rows]
        samples = sample_and_grade(
            params,
            self._sampler,
            self._tokenizer,
            request.wave(prompts, first_id),
            prompts,
            rows,
            self._pool,
            timing,
            model_scores=self._model_scores,
            should_stop=self._should_stop,
            on_progress=on_progress,
        )
        write_wave(folder, samples, {int(row): prompt.row for row, prompt in zip(rows, prompts)})
        return samples


def _continued(on_progress: Callable[[int, int], None] | None, sequences: int, tokens: int):
    """``on_progress`` for a wave, after so many sequences and tokens of earlier ones."""
    return on_progress and (lambda done, more: on_progress(sequences + done, tokens + more))

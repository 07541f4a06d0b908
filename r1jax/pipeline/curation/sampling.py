"""A model of a data-making stage: loaded, and sampled in waves that are recorded as those of RL are."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from r1jax import checkpoint, config, sharding
from r1jax.evaluation.grading import GradedSample, Prompt, Timing
from r1jax.models.precision import compute_dtype
from r1jax.pipeline import records
from r1jax.pipeline.collection import Collector, WaveRequest
from r1jax.pipeline.compiles import compile_counter
from r1jax.pipeline.ledger import wave_folder
from r1jax.pipeline.stage import Context, StopRequested
from r1jax.rollout import Sampler, SamplingStopped
from r1jax.rollout.sampler import DEFAULT_LANES, DEFAULT_SLOTS


class ModelSource:
    """A model that texts are sampled from.

    Args:
      name: what progress is shown under.
      path: where the model lies.
      times: the stage's folder of timing files.

    Raises:
      ValueError: it has no tokenizer.
    """

    def __init__(self, name: str, path: str, sampler: config.SamplerSettings, context: Context, times: epath.Path):
        self.name, self.path, self._settings, self._context, self._times = name, path, sampler, context, times
        self._layout = sharding.layout(context.layout.mesh, sharding.ROLLOUT_RULES)
        self._dtype = compute_dtype(self._layout.platform)
        model = checkpoint.load_model(path, self._layout.mesh, self._dtype, rules=sharding.ROLLOUT_RULES, prediction=False)
        if model.tokenizer is None:
            raise ValueError(f"{path} has no tokenizer; put its tokenizer.json or tokenizer.model there")
        self._params, self._config, self.tokenizer = model.params, model.config, model.tokenizer
        self._stop_ids = frozenset(model.tokenizer.eos_ids | set(model.config.eos_token_ids))

    @property
    def positions(self) -> int:
        """Most tokens of a sequence, its prompt included."""
        return self._config.max_position_embeddings

    def check_lengths(self, prompts: Sequence[Prompt], max_tokens: int, where: str) -> None:
        """Refuses a cap that the longest prompt leaves no positions for.

        Raises:
          RecipeError: naming both.
        """
        longest, positions = max(len(p.tokens) for p in prompts), self.positions
        if longest + max_tokens > positions:
            raise config.RecipeError(
                f"{where}.max_tokens {max_tokens} and the longest prompt ({longest}) need {longest + max_tokens} tokens; "
                f"{self.path} has {positions} positions: lower it"
            )

    def release(self) -> None:
        """Lets go of the weights."""
        self._params = None

    def sample(
        self, folder: epath.Path, prompts: Sequence[Prompt], request: WaveRequest, pool: Any
    ) -> Iterator[list[GradedSample]]:
        """Samples every prompt, in order; gives each wave as it is recorded, or as an earlier session recorded it.

        Args:
          folder: where the waves lie.
          request: its ``prompts`` is their number; the model's own ends of sequence are put for its ``stop_ids``.

        Raises:
          StopRequested: the run was asked to stop; finished waves stay.
        """
        longest = max(len(p.tokens) for p in prompts)  # one bucket holds every prompt
        most = min(request.prompts, request.prompts_per_wave, max(1, DEFAULT_SLOTS // min(DEFAULT_LANES, request.samples)))
        settings = dataclasses.replace(
            self._settings,
            prompt_bucket=max(self._settings.prompt_bucket, longest),
            rows=min(self._settings.rows or most, most),  # an idle row costs what a busy one does
        )
        sampler = Sampler(self._config, self._layout, settings, self._dtype)
        collector = Collector(
            folder,
            prompts,
            lambda start, count: np.arange(start, start + count),
            sampler,
            pool,
            self.tokenizer,
            self._context.stop,
        )
        request = dataclasses.replace(request, stop_ids=self._stop_ids)
        console, timing, began = self._context.console, Timing(), time.monotonic()
        sequences = request.prompts * request.samples

        def show(done: int, tokens: int) -> None:
            speed = {"tok/s": round(tokens / (time.monotonic() - began))} if tokens else {}
            console.progress(self.name, done, sequences, speed)

        try:
            if not _all_recorded(folder, request):
                with compile_counter().planned(f"{self.name}: sampling", console.say):
                    first = min(request.prompts, request.prompts_per_wave)
                    sampler.warm_up(self._params, request.wave(prompts[:first], 0), self._context.stop)
            yield from collector.waves(self._params, request, timing, show)
        except SamplingStopped:
            raise StopRequested from None
        finally:
            console.end_progress()
            if timing.tokens:
                # One file per session and set of waves: what depends on the clock stands apart.
                number = len(list(self._times.glob("*.json"))) if self._times.exists() else 0
                records.write_atomic(self._times / f"{number:05d}.json", json.dumps(vars(timing)))


def _all_recorded(folder: epath.Path, request: WaveRequest) -> bool:
    count = -(-request.prompts // request.prompts_per_wave)
    return all(records.committed(wave_folder(folder, request.rollout, number)) for number in range(count))

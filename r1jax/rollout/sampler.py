"""The sampler: the loop of the host around the compiled programs.

Between chunks, and only there, the host hands out finished sequences (copied while the next chunk runs), prefills and
admits waiting work, moves what is live to a smaller or larger bucket, and looks whether it should stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import models
from r1jax.config import SamplerSettings
from r1jax.rollout.programs import DecodeState, Limits, programs_for
from r1jax.rollout.sampling import Distribution
from r1jax.rollout.schedule import Admission, Slots, ladder, prompt_bucket, row_ladder
from r1jax.rollout.wave import SampledSequence, Wave
from r1jax.sharding import Layout

# Lanes decoded at once where the settings leave it open; tokens of stop sets and copies are padded to these.
DEFAULT_LANES, DEFAULT_SLOTS = 16, 256
STOP_IDS, COPIED_LANES = 16, 64


class SamplingStopped(Exception):
    """Sampling was asked to stop between two chunks; the wave is unfinished."""


class Sampler:
    """Samples waves with r1jax's own KV cache.

    Args:
      config: of the model.
      layout: the mesh under the rollout's rules.
      settings: slots, chunk and buckets.
      dtype: of the cache; the parameters given to ``run`` should have it too.
      record_routes: give sequences the expert choices that were made for them; nothing for models without experts.
    """

    def __init__(
        self,
        config: models.ModelConfig,
        layout: Layout,
        settings: SamplerSettings | None = None,
        dtype: Any = jnp.float32,
        *,
        record_routes: bool = False,
    ):
        self.config, self.layout = config, layout
        self.settings = settings or SamplerSettings()
        self._programs = programs_for(
            config, layout, jnp.dtype(dtype), record_routes and models.route_shape(config) is not None
        )

    # ------------------------------------------------------------------------------------------ the plan of a wave
    def _lanes(self, wave: Wave) -> int:
        return min(self.settings.lanes or DEFAULT_LANES, wave.samples)

    def _row_buckets(self, wave: Wave) -> tuple[int, ...]:
        rows = self.settings.rows or max(1, DEFAULT_SLOTS // self._lanes(wave))
        return row_ladder(rows, self.layout.batch_shards)

    def _first_rows(self, wave: Wave) -> int:
        fits = [rows for rows in self._row_buckets(wave) if rows >= len(wave.prompts)]
        return fits[-1] if fits else self._row_buckets(wave)[0]

    def _prompt_length(self, wave: Wave) -> int:
        return prompt_bucket(self.settings.prompt_bucket, max(len(p) for p in wave.prompts))

    def _lengths(self, wave: Wave) -> tuple[int, ...]:
        return ladder(self.settings.completion_bucket, wave.max_tokens)

    # ------------------------------------------------------------------------------------------ running
    def run(
        self,
        params: Any,
        wave: Wave,
        on_finished: Callable[[SampledSequence], None] | None = None,
        *,
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[SampledSequence]:
        """Samples a wave to its end.

        Args:
          params: of the model, on the layout. On CPU the layers are held a second time while this runs.
          wave: what to sample.
          on_finished: called with each sequence as it is finished, while others are decoded.
          should_stop: looked at between chunks.
          on_progress: called between chunks with (sequences finished, tokens in finished sequences).

        Returns:
          All sequences, by prompt in the wave's order, then by sample.

        Raises:
          SamplingStopped: ``should_stop`` said so.
        """
        self._check(wave)
        finished: dict[tuple[int, int], SampledSequence] = {}
        tokens = 0

        def deliver(sequences: Iterator[SampledSequence]) -> None:
            nonlocal tokens
            for sequence in sequences:
                finished[position[sequence.prompt_id], sequence.sample] = sequence
                tokens += len(sequence.tokens)
                if on_finished is not None:
                    on_finished(sequence)

        position = {prompt_id: i for i, prompt_id in enumerate(wave.prompt_ids)}
        with self.layout.use():
            slots = Slots(wave, self._first_rows(wave), self._lanes(wave))
            state = self._programs.empty(slots.rows, slots.lanes, self._prompt_length(wave), self._lengths(wave)[0])
            pending: Iterator[SampledSequence] = iter(())
            decoding = self._programs.decoding_params(params)
            while not slots.finished:
                if should_stop is not None and should_stop():
                    raise SamplingStopped
                state = self._admit(params, state, wave, slots, slots.admit())
                state, status = self._decode(decoding, state, wave, slots)
                deliver(pending)  # of the chunk before, while this one runs
                active, length = (np.asarray(x) for x in status)
                pending = self._harvest(state, wave, slots.finish(active), length)
                state = self._fit_bucket(state, wave, slots, active, length)
                if on_progress is not None:
                    on_progress(len(finished), tokens)
            deliver(pending)
        return [finished[key] for key in sorted(finished)]

    def stream(self, params: Any, wave: Wave) -> Iterator[np.ndarray]:
        """Samples one sequence (a wave of one prompt and one sample) and gives its new token ids chunk by chunk; the last one
        may be an end-of-sequence token. Stop iterating to stop sampling."""
        if len(wave.prompts) != 1 or wave.samples != 1:
            raise ValueError(f"a stream is of one sequence, not of {len(wave.prompts)} prompts x {wave.samples} samples")
        self._check(wave)
        with self.layout.use():
            slots = Slots(wave, self._first_rows(wave), 1)
            state = self._programs.empty(slots.rows, 1, self._prompt_length(wave), self._lengths(wave)[0])
            state, given = self._admit(params, state, wave, slots, slots.admit()), 0
            decoding = self._programs.decoding_params(params)
        while True:
            with self.layout.use():  # not around the yield: the caller has its own ambient layout
                state, status = self._decode(decoding, state, wave, slots)
                active, length = (np.asarray(x) for x in status)
                tokens = np.asarray(state.tokens[0, : int(length[0])])
            yield tokens[given:]
            given = len(tokens)
            if not active[0]:
                return
            with self.layout.use():
                state = self._fit_bucket(state, wave, slots, active, length)

    def warm_up(self, params: Any, wave: Wave, should_stop: Callable[[], bool] | None = None) -> None:
        """Compiles every program that waves of these limits may need, on empty states, so that none compiles later.

        Of ``wave`` count ``max_tokens``, ``samples``, whether it is restricted, and the bucket of its longest prompt (let
        ``prompt_bucket`` cover all prompts); what it asks for is not sampled.

        Raises:
          SamplingStopped: ``should_stop``, looked at before the programs of each bucket, said so.
        """
        lengths, row_buckets = self._lengths(wave), self._row_buckets(wave)
        lanes, prompt_length = self._lanes(wave), self._prompt_length(wave)
        with self.layout.use():
            decoding = self._programs.decoding_params(params)
            for rows in row_buckets:
                for length in lengths:
                    if should_stop is not None and should_stop():
                        raise SamplingStopped
                    slots = Slots(wave, rows, lanes)
                    state = self._programs.empty(rows, lanes, prompt_length, length)
                    for fill in self._fill_sizes(wave, rows):
                        state = self._fill(params, state, wave, [], fill)
                    state = self._start(state, wave, [])
                    state, _ = self._decode(decoding, state, wave, slots)
                    self._programs.copy_out(state, np.zeros(COPIED_LANES, np.int32))
                    for smaller in row_buckets:
                        if smaller < rows:
                            self._programs.move(state, np.full(smaller, -1, np.int32), length=length)
                    for other in lengths:
                        if abs(lengths.index(other) - lengths.index(length)) == 1:
                            self._programs.move(state, np.full(rows, -1, np.int32), length=other)

    def _check(self, wave: Wave) -> None:
        longest = max(len(p) for p in wave.prompts) + wave.max_tokens
        if longest > self.config.max_position_embeddings:
            raise ValueError(
                f"the longest prompt and max_tokens {wave.max_tokens} need {longest} positions, the model has "
                f"max_position_embeddings {self.config.max_position_embeddings}; lower max_tokens"
            )
        if len(wave.stop_ids) > STOP_IDS:
            raise ValueError(f"{len(wave.stop_ids)} stop ids; at most {STOP_IDS} are supported")
        for prompt_id, prompt in zip(wave.prompt_ids, wave.prompts):
            if np.min(prompt) < 0 or np.max(prompt) >= self.config.vocab_size:
                raise ValueError(
                    f"prompt {prompt_id} has token ids outside the model's vocabulary of {self.config.vocab_size}: "
                    "tokenizer and model do not belong together"
                )

    # ------------------------------------------------------------------------------------------ between two chunks
    def _admit(self, params, state: DecodeState, wave: Wave, slots: Slots, admission: Admission) -> DecodeState:
        if admission.prompts:
            size = min(size for size in self._fill_sizes(wave, slots.rows) if size >= len(admission.prompts))
            state = self._fill(params, state, wave, admission.prompts, size)
        return self._start(state, wave, admission.lanes) if admission.lanes else state

    def _fill_sizes(self, wave: Wave, rows: int) -> tuple[int, ...]:
        """Sizes of a prefill. Fewer rows than the most are filled only once, when a wave begins with them."""
        buckets = self._row_buckets(wave)
        return buckets if rows == buckets[0] else (rows,)

    def _fill(self, params, state: DecodeState, wave: Wave, prompts: list[tuple[int, int]], size: int) -> DecodeState:
        S = self._prompt_length(wave)
        tokens, lengths = np.zeros((size, S), np.int32), np.zeros(size, np.int32)
        rows = np.full(size, state.cache.prompt_length.shape[0], np.int32)
        for i, (row, prompt) in enumerate(prompts):
            ids = wave.prompts[prompt][:-1]
            tokens[i, : len(ids)], lengths[i], rows[i] = ids, len(ids), row
        return self._programs.fill(params, state=state, tokens=tokens, lengths=lengths, rows=rows)

    def _start(self, state: DecodeState, wave: Wave, lanes: list[tuple[int, int, int]]) -> DecodeState:
        B = state.last.shape[0]
        admitted, last = np.zeros(B, bool), np.zeros(B, np.int32)
        prompt_ids, samples = np.zeros(B, np.int32), np.zeros(B, np.int32)
        for lane, prompt, sample in lanes:
            admitted[lane], last[lane] = True, wave.prompts[prompt][-1]
            prompt_ids[lane], samples[lane] = wave.prompt_ids[prompt], wave.first_sample + sample
        return self._programs.admit(
            state=state,
            admitted=admitted,
            last=last,
            seed=np.int32(wave.seed),
            rollout=np.int32(wave.rollout),
            prompt_ids=prompt_ids,
            samples=samples,
        )

    def _decode(self, params, state: DecodeState, wave: Wave, slots: Slots):
        """A chunk. While work waits it ends as soon as an eighth of the lanes is idle, so that they are given some."""
        B = slots.rows * slots.lanes
        stop_ids = np.full(STOP_IDS, -1, np.int32)
        stop_ids[: len(wave.stop_ids)] = sorted(wave.stop_ids)
        limits = Limits(
            stop_ids,
            max_tokens=np.int32(wave.max_tokens),
            steps=np.int32(self.settings.chunk),
            idle=np.int32(max(1, B // 8) if slots.work_waiting else B + 1),
        )
        restricted = wave.top_p < 1 or wave.top_k > 0 or wave.min_p > 0
        distribution = Distribution(np.float32(wave.temperature))
        if restricted:
            distribution = Distribution(
                np.float32(wave.temperature), np.float32(wave.top_p), np.int32(wave.top_k), np.float32(wave.min_p)
            )
        return self._programs.decode(params, state=state, distribution=distribution, limits=limits)

    def _harvest(self, state: DecodeState, wave: Wave, done: list[tuple[int, int, int]], length: np.ndarray):
        """Starts copying finished lanes to the host now; the iterator waits for the copies and gives their sequences."""
        copies = []
        for start in range(0, len(done), COPIED_LANES):
            some = done[start : start + COPIED_LANES]
            lanes = np.array([lane for lane, _, _ in some] + [0] * (COPIED_LANES - len(some)), np.int32)
            copies.append((some, self._programs.copy_out(state, lanes)))
        for _, arrays in copies:
            jax.tree.map(lambda x: x.copy_to_host_async(), arrays)

        def read() -> Iterator[SampledSequence]:
            for some, arrays in copies:
                tokens, logprobs, routes = jax.tree.map(np.asarray, arrays)
                for i, (lane, prompt, sample) in enumerate(some):
                    n, fed = int(length[lane]), len(wave.prompts[prompt]) - 1
                    chosen = None if routes is None else np.concatenate([routes[0][i, :fed], routes[1][i, :n]])
                    yield self._sequence(wave, prompt, sample, tokens[i, :n], logprobs[i, :n], chosen)

        return read()

    def _sequence(self, wave: Wave, prompt: int, sample: int, ids, logprobs, routes) -> SampledSequence:
        return SampledSequence(
            prompt_id=wave.prompt_ids[prompt],
            sample=wave.first_sample + sample,
            prompt_tokens=np.asarray(wave.prompts[prompt], np.int32),
            tokens=ids.copy(),
            logprobs=logprobs.copy(),
            finish_reason="stop" if int(ids[-1]) in wave.stop_ids else "length",
            routes=None if routes is None else np.concatenate([routes, routes[-1:]]),
        )

    def _fit_bucket(self, state, wave: Wave, slots: Slots, active: np.ndarray, length: np.ndarray) -> DecodeState:
        """Moves to fewer rows once no prompt waits, and to the length that the longest live sequence needs."""
        if slots.finished:
            return state
        rows, current = slots.rows, state.tokens.shape[1]
        occupied = slots.occupied()
        if not slots.prompts_waiting:
            rows = min(r for r in self._row_buckets(wave) if r >= len(occupied))
        lengths = self._lengths(wave)
        needed = int(np.max(length[active], initial=0))
        fits = [n for n in lengths if n > needed] or [lengths[-1]]
        # Down only with a chunk to spare, lest it go up again at once.
        new = fits[0] if fits[0] > current or needed + self.settings.chunk <= fits[0] else min(current, lengths[-1])
        if rows != slots.rows:
            source = np.full(rows, -1)
            source[: len(occupied)] = occupied
            slots.move(source)
            state = self._programs.move(state, source.astype(np.int32), length=current)
        # Rung by rung: programs for every pair of buckets would be many under a long cap.
        rung, wanted = lengths.index(current), lengths.index(new)
        while rung != wanted:
            rung += 1 if wanted > rung else -1
            state = self._programs.move(state, np.arange(rows, dtype=np.int32), length=lengths[rung])
        return state

"""The wave and the sampled sequence: what goes into the sampler and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Wave:
    """A fixed list of (prompt, sample) to be sampled with one set of weights.

    Its schedule of buckets and refills depends on the wave alone. It is the unit of sampling, of the
    ledger and of recomputation.

    Attributes:
      prompts: token ids of each prompt, int32 ``[any length >= 1]``.
      prompt_ids: the identity of each prompt within its rollout, from which (with ``seed``,
        ``rollout`` and the sample's number) its samples' randomness is folded. Unique.
      samples: samples per prompt (G).
      seed: the run's seed.
      rollout: number of the rollout.
      max_tokens: most tokens of a completion, its end-of-sequence token included.
      stop_ids: the set of token ids that end a sequence.
      temperature: of the sampled distribution; 0 is greedy.
      top_p, top_k, min_p: restrictions of the distribution, for evaluation and generation only.
      first_sample: number of the first sample of each prompt (a wave sampled again asks for others).
    """

    prompts: tuple[np.ndarray, ...]
    prompt_ids: tuple[int, ...]
    samples: int
    seed: int
    rollout: int
    max_tokens: int
    stop_ids: frozenset[int]
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    first_sample: int = 0

    def __post_init__(self):
        if not self.prompts:
            raise ValueError("a wave needs at least one prompt")
        if len(self.prompts) != len(self.prompt_ids):
            raise ValueError(f"a wave of {len(self.prompts)} prompts has {len(self.prompt_ids)} prompt_ids")
        if len(set(self.prompt_ids)) != len(self.prompt_ids):
            raise ValueError("prompt_ids of a wave must be unique: they carry its randomness")
        for number, prompt in zip(self.prompt_ids, self.prompts):
            if np.ndim(prompt) != 1 or len(prompt) == 0:
                raise ValueError(f"prompt {number} must be a non-empty list of token ids, not shape {np.shape(prompt)}")
        for name, value, allowed in (
            ("samples", self.samples, self.samples >= 1),
            ("max_tokens", self.max_tokens, self.max_tokens >= 1),
            ("seed", self.seed, 0 <= self.seed < 2**31),
            ("rollout", self.rollout, 0 <= self.rollout < 2**31),
            ("prompt_ids", self.prompt_ids, all(0 <= number < 2**31 for number in self.prompt_ids)),
            ("first_sample", self.first_sample, 0 <= self.first_sample < 2**31 - self.samples),
            ("temperature", self.temperature, self.temperature >= 0),
            ("top_p", self.top_p, 0 < self.top_p <= 1),
            ("top_k", self.top_k, self.top_k >= 0),
            ("min_p", self.min_p, 0 <= self.min_p < 1),
        ):
            if not allowed:
                raise ValueError(f"{name} of a wave can't be {value}")


@dataclass(frozen=True)
class SampledSequence:
    """One finished completion.

    Attributes:
      prompt_id: identity of its prompt (``Wave.prompt_ids``).
      sample: number of the sample among its prompt's.
      prompt_tokens: int32 ``[prompt length]``.
      tokens: int32 ``[length]``, the end-of-sequence token included where there is one.
      logprobs: float32 ``[length]``, of the temperature-scaled full softmax (at temperature 1 for greedy).
      finish_reason: ``stop`` (an end-of-sequence token) or ``length``.
      routes: uint ``[prompt length + length, L, K]``, recorded expert choices of prompt and completion, or None. The last
        token was never fed to the model; it holds the choice of the one before.
    """

    prompt_id: int
    sample: int
    prompt_tokens: np.ndarray
    tokens: np.ndarray
    logprobs: np.ndarray
    finish_reason: str
    routes: np.ndarray | None = None

    @property
    def content(self) -> np.ndarray:
        """``tokens`` without the end-of-sequence token: what is read as text."""
        return self.tokens[:-1] if self.finish_reason == "stop" else self.tokens

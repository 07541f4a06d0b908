"""A rollout in several waves, with the sampler itself: the same tokens whatever the waves' size, and nothing compiles for it."""

import jax
import numpy as np
import pytest
from etils import epath

from r1jax import models, sharding
from r1jax.config import SamplerSettings
from r1jax.evaluation.grading import Prompt
from r1jax.pipeline.collection import Collector, WaveRequest
from r1jax.pipeline.compiles import compile_counter
from r1jax.rewards.record import RewardRecord, Verdict
from r1jax.rollout import Sampler

CONFIG = models.ModelConfig(
    "qwen2", 24, 16, 24, 2, 4, 2, 4, qkv_bias=True, tie_word_embeddings=True, max_position_embeddings=64
)
PROMPTS = [Prompt(str(i), np.random.default_rng(i).integers(6, 24, 1 + i).astype(np.int32), {}) for i in range(8)]


class Letters:
    def decode(self, ids):
        return "".join(map(chr, ids))


class Parity:
    """Right: a text whose letters sum to an even number."""

    def __init__(self):
        self.requests = {}

    def submit(self, key, request):
        self.requests[key] = request

    def drain(self):
        done, self.requests = self.requests, {}
        verdicts = {key: Verdict.WRONG if sum(map(ord, r.completion)) % 2 else Verdict.RIGHT for key, r in done.items()}
        return [(key, RewardRecord({}, verdict)) for key, verdict in verdicts.items()]


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """Prompts per wave -> (the rollout, programs compiled for it). Replaced groups come in waves of any smaller size."""
    layout = sharding.layout(sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1]), sharding.ROLLOUT_RULES)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) * 0.3, models.abstract_params(CONFIG))
    params = jax.device_put(params, models.param_shardings(CONFIG, layout))
    sampler = Sampler(CONFIG, layout, SamplerSettings(rows=4, lanes=2, chunk=5, prompt_bucket=8, completion_bucket=16))
    order = lambda start, count: np.arange(start, start + count) % len(PROMPTS)  # noqa: E731
    counter, rollouts = compile_counter(), {}
    for per_wave in (6, 3, 2, 1):
        request = WaveRequest(
            rollout=4,
            prompts=6,
            prompts_per_wave=per_wave,
            samples=2,
            seed=3,
            max_tokens=16,
            stop_ids=frozenset({2}),
            temperature=1.0,
            again=2,
        )
        if not rollouts:
            sampler.warm_up(params, request.wave(PROMPTS, 0))
        folder = epath.Path(tmp_path_factory.mktemp(f"waves{per_wave}"))
        before = counter.total
        collector = Collector(folder, PROMPTS, order, sampler, Parity(), Letters(), lambda: False)
        rollouts[per_wave] = collector.collect(params, request, 0), counter.total - before
        assert len(list((folder / "waves").iterdir())) >= 6 // per_wave
    return rollouts


@pytest.mark.parametrize("per_wave", [3, 2, 1])
def test_the_tokens_are_the_same_whatever_the_size_of_a_wave(sampled, per_wave):
    whole, parts = sampled[6][0], sampled[per_wave][0]
    assert whole.prompts_used == parts.prompts_used > 6, "no group was replaced: the test misses something"
    for one, two in zip(whole.all_samples, parts.all_samples, strict=True):
        key = (one.sequence.prompt_id, one.sequence.sample)
        assert key == (two.sequence.prompt_id, two.sequence.sample) and one.record == two.record
        np.testing.assert_array_equal(one.sequence.tokens, two.sequence.tokens)
        np.testing.assert_allclose(one.sequence.logprobs, two.sequence.logprobs, atol=1e-4)
    assert [g[0].sequence.prompt_id for g in whole.groups] == [g[0].sequence.prompt_id for g in parts.groups]


def test_waves_of_every_size_need_no_program_of_their_own(sampled):
    assert [compiled for _, compiled in sampled.values()] == [0, 0, 0, 0]

"""Sampling a mixture of experts: what was sampled is what the trainer scores, to the expert."""

import jax
import numpy as np
import pytest

from r1jax import models, sharding
from r1jax.config import SamplerSettings
from r1jax.data.packing import PackItem, pack
from r1jax.models import Experts, LatentAttention, ModelConfig
from r1jax.models.logprobs import token_logprobs
from r1jax.rollout import Sampler, Wave

CONFIG = ModelConfig(
    architecture="deepseek_v3",
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=12,
    max_position_embeddings=128,
    latent=LatentAttention(kv_lora_rank=12, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8, q_lora_rank=16),
    experts=Experts(
        n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=16, first_k_dense_replace=1, n_group=2, topk_group=1
    ),
)
LAYOUT = sharding.layout(sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1]), sharding.ROLLOUT_RULES)
WAVE = Wave(
    prompts=tuple(np.random.default_rng(n).integers(2, 64, n).astype(np.int32) for n in (3, 7, 1, 5)),
    prompt_ids=(4, 2, 9, 0),
    samples=3,
    seed=1,
    rollout=0,
    max_tokens=14,
    stop_ids=frozenset({0, 1, 5, 8}),
)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    values = jax.tree.map(lambda x: (rng.normal(size=x.shape) * 0.3).astype(x.dtype), models.abstract_params(CONFIG))
    return jax.device_put(values, models.param_shardings(CONFIG, LAYOUT))


def sampler(**slots):
    return Sampler(
        CONFIG, LAYOUT, SamplerSettings(chunk=5, prompt_bucket=8, completion_bucket=8, **slots), record_routes=True
    )


@pytest.fixture(scope="module")
def sampled(params):
    return sampler(rows=2, lanes=2).run(params, WAVE)


def packed(sequences):
    items = [
        PackItem(
            i,
            np.concatenate([s.prompt_tokens, s.tokens]),
            len(s.prompt_tokens),
            values={"sampler_logprobs": s.logprobs},
            routes=s.routes,
        )
        for i, s in enumerate(sequences)
    ]
    return pack(items, 32, 1)


score = jax.jit(lambda params, batch: token_logprobs(CONFIG, params, batch))


def test_the_sampler_s_logprobs_and_choices_are_the_trainer_s(params, sampled):
    batch = packed(sampled)
    completion = batch.completion_mask != 0
    assert completion.sum() == sum(len(s.tokens) for s in sampled) > 60
    logprobs, _, aux = score(params, batch._replace(routes=None))
    difference = np.abs(np.asarray(logprobs) - batch.sampler_logprobs)[completion]
    assert difference.mean() < 1e-5 and difference.max() < 1e-4
    # Every token but a sequence's last, which the sampler never fed to the model.
    last = np.pad(batch.sequence_index[:, 1:] != batch.sequence_index[:, :-1], ((0, 0), (0, 1)), constant_values=True)
    fed = (batch.segment_ids > 0) & ~last
    np.testing.assert_array_equal(np.sort(aux["experts"])[fed], np.sort(batch.routes)[fed])
    assert batch.routes.dtype == np.uint8 and batch.routes.shape[2:] == (2, 2)


def test_replayed_choices_are_taken_exactly(params, sampled):
    batch = packed(sampled)
    _, _, aux = score(params, batch)
    np.testing.assert_array_equal(aux["experts"], batch.routes)
    other = batch._replace(routes=(batch.routes + 1) % 8)
    moved = np.abs(np.asarray(score(params, other)[0]) - batch.sampler_logprobs)[batch.completion_mask != 0]
    assert moved.mean() > 1e-2


@pytest.mark.slow
def test_slots_and_refills_change_no_choice(params, sampled):
    for a, b in zip(sampler(rows=4, lanes=3).run(params, WAVE), sampled, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_array_equal(a.routes, b.routes)
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)


@pytest.mark.slow
def test_nothing_is_recorded_where_nobody_asks(params, sampled):
    plain = Sampler(CONFIG, LAYOUT, SamplerSettings(rows=2, lanes=2, chunk=5, prompt_bucket=8, completion_bucket=8))
    for a, b in zip(plain.run(params, WAVE), sampled, strict=True):
        assert a.routes is None
        np.testing.assert_array_equal(a.tokens, b.tokens)

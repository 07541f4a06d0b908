"""What a mixture of experts adds to a step: balance, load, the bias that no gradient moves, replayed choices."""

import dataclasses

import jax
import numpy as np
import pytest

from r1jax import models
from r1jax.config import OptimizerSettings
from r1jax.losses import PolicyLoss, token_weights
from r1jax.models import Experts, LatentAttention
from r1jax.models.logprobs import token_logprobs
from r1jax.models.precision import cast
from r1jax.training import ApplyStep, MicroStep, ZeroGrads, grpo_token_loss, init_state, make_optimizer, router_loss

LATENT = LatentAttention(kv_lora_rank=12, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=8, q_lora_rank=None)
EXPERTS = Experts(n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=16, first_k_dense_replace=1)


@pytest.fixture(scope="module")
def moe(tiny):
    return dataclasses.replace(
        tiny.config,
        architecture="deepseek_v3",
        num_key_value_heads=4,
        head_dim=10,
        qkv_bias=False,
        num_hidden_layers=3,
        latent=LATENT,
        experts=EXPERTS,
    )


def balanced(batch):
    return batch._replace(balance_weight=token_weights(batch.segment_ids > 0, batch.sequence_index))


def step(tiny, config, layout, **more):
    return MicroStep(config, layout, grpo_token_loss(PolicyLoss()), **more)


def bias_of(tree):
    return np.asarray(tree["expert_layers"]["moe"]["router"]["bias"])


def counted(config, params, batch):
    """The load of each layer's experts, by a loop."""
    _, _, aux = token_logprobs(config, params, batch)
    load = np.zeros((2, 8))
    for b, t in np.argwhere(batch.segment_ids > 0):
        for layer in range(2):
            for expert in np.asarray(aux["experts"])[b, t, layer]:
                load[layer, expert] += 1
    return load


@pytest.mark.slow
def test_one_update_however_it_is_cut_and_wherever_it_runs(tiny, moe):
    """Invariant 1 with balance loss and load, over microbatches and a mesh that spreads the experts."""
    results = {}
    for name, sizes, rows in (("whole", (1, 1, 1), 4), ("cut", (1, 1, 1), 2), ("mesh", (1, 2, 2), 2)):
        layout = tiny.make_layout(sizes)
        params = tiny.any_parameters(moe, layout)
        micro = step(tiny, moe, layout, auxiliary=router_loss(balance=0.5))
        batch = balanced(tiny.batch())
        assert len(batch.tokens) == 4
        results[name] = tiny.accumulate(micro, ZeroGrads(moe, layout), params, batch, rows)
    load = counted(moe, tiny.any_parameters(moe, tiny.make_layout()), tiny.batch())
    whole, metrics = results["whole"]
    np.testing.assert_array_equal(bias_of(whole), load)
    assert load.sum() == 2 * 2 * np.sum(tiny.batch().segment_ids > 0) and metrics["router_balance"] > 0.9
    norm = np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in map(np.asarray, jax.tree.leaves(whole))))
    for name in ("cut", "mesh"):
        grads, others = results[name]
        np.testing.assert_array_equal(bias_of(grads), load)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * norm), grads, whole)
        for key, value in metrics.items():
            assert abs(others[key] - value) < 1e-4 * max(1, abs(value)), (name, key)


@pytest.mark.slow
def test_the_balance_loss_has_a_gradient_of_its_own(tiny, moe):
    layout = tiny.make_layout()
    params, batch = tiny.any_parameters(moe, layout), balanced(tiny.batch())
    without, _ = tiny.accumulate(step(tiny, moe, layout), ZeroGrads(moe, layout), params, batch, 4)
    balance = step(tiny, moe, layout, auxiliary=router_loss(balance=0.5))
    with_it, _ = tiny.accumulate(balance, ZeroGrads(moe, layout), params, batch, 4)
    kernels = [np.asarray(g["expert_layers"]["moe"]["router"]["kernel"]) for g in (without, with_it)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-4


def test_the_balance_loss_is_the_paper_s_of_the_scores_alone(tiny):
    """arXiv 2412.19437 eq. 17-20 by loops: the load counts the best K by the scores, whatever bias, groups or replay chose."""
    batch, rng = balanced(tiny.batch()), np.random.default_rng(0)
    B, T, L, E, K = *batch.tokens.shape, 3, 6, 2
    scores = rng.uniform(size=(B, T, L, E)).astype(np.float32)
    chosen = rng.permuted(np.broadcast_to(np.arange(E), scores.shape), axis=-1)[..., :K]
    got, metrics = router_loss(balance=0.25)({"scores": scores, "experts": chosen}, batch)
    sequences = np.unique(batch.sequence_index[batch.segment_ids > 0])
    want = 0.0
    for index in sequences:
        s = scores[(batch.sequence_index == index) & (batch.segment_ids > 0)].astype(np.float64)  # [n, L, E]
        for layer in range(L):
            for expert in range(E):
                f = sum(expert in np.argsort(-token)[:K] for token in s[:, layer]) * E / (K * len(s))
                P = np.mean([token[expert] / token.sum() for token in s[:, layer]])
                want += 0.25 * f * P / len(sequences)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(metrics["router_balance"], want / 0.25 / L, rtol=1e-5)


@pytest.mark.slow
def test_the_bias_moves_against_the_load_and_nothing_else_moves_it(tiny, moe):
    layout = tiny.make_layout()
    optimizer = make_optimizer(OptimizerSettings(lr=1e-2, weight_decay=0.1), 10)
    params = tiny.any_parameters(moe, layout)
    before, load = bias_of(params), counted(moe, params, tiny.batch())
    grads, _ = tiny.accumulate(step(tiny, moe, layout), ZeroGrads(moe, layout), params, tiny.batch(), 4)
    leaves = [np.asarray(g, np.float64) for g in jax.tree.leaves(grads) if not np.array_equal(g, bias_of(grads))]
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in leaves))
    state = init_state(moe, params, optimizer, layout)
    state, metrics = ApplyStep(moe, optimizer, layout, bias_rate=1e-3)(state, grads)
    np.testing.assert_allclose(bias_of(state.params), before + 1e-3 * np.sign(load.mean(1, keepdims=True) - load), atol=1e-7)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)  # counts are no gradient
    np.testing.assert_allclose(metrics["expert_load_max"], (load.max(1) / load.mean(1)).max(), rtol=1e-5)
    assert not bias_of(state.opt_state[0].mu).any()


@pytest.mark.slow
def test_flips_are_counted_where_choices_are_not_replayed(tiny, moe):
    layout = tiny.make_layout()
    params, batch = tiny.any_parameters(moe, layout), tiny.batch()
    _, _, aux = token_logprobs(moe, params, batch)
    routes = np.asarray(aux["experts"], np.uint8)[..., ::-1].copy()  # the order of a token's choices is no flip
    rows, columns = np.nonzero(batch.completion_mask)
    for b, t in list(zip(rows, columns))[:5]:
        routes[b, t, 0] = (routes[b, t, 0] + 1) % 8
    want = sum(batch.token_weight[b, t] for b, t in list(zip(rows, columns))[:5]) / 2 / batch.token_weight.sum()
    again = step(tiny, moe, layout, auxiliary=router_loss(replayed=False), replay=False)
    _, metrics = tiny.accumulate(again, ZeroGrads(moe, layout), params, batch._replace(routes=routes), 4)
    np.testing.assert_allclose(metrics["router_flips"], want, rtol=1e-5)
    replaying = step(tiny, moe, layout, auxiliary=router_loss())
    grads, metrics = tiny.accumulate(replaying, ZeroGrads(moe, layout), params, batch._replace(routes=routes), 4)
    assert "router_flips" not in metrics
    load = np.zeros((2, 8))
    np.add.at(load, (np.arange(2)[:, None], routes[batch.segment_ids > 0]), 1)
    np.testing.assert_array_equal(bias_of(grads), load)


def test_routers_stay_in_float32(moe):
    params = jax.eval_shape(lambda p: cast(p, "bfloat16"), models.abstract_params(moe))
    dtypes = jax.tree.map(lambda x: str(x.dtype), params)
    assert dtypes == jax.tree.map(lambda x: str(x.dtype), models.abstract_params(moe, "bfloat16"))
    router = dtypes["expert_layers"]["moe"].pop("router")
    assert set(jax.tree.leaves(router)) == {"float32"} and set(jax.tree.leaves(dtypes)) == {"bfloat16"}

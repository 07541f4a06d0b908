"""Multi-token prediction in a step: its loss, what it moves, and what it leaves alone."""

import dataclasses

import jax
import numpy as np
import pytest

from r1jax.losses import PolicyLoss, mtp_loss
from r1jax.models import Experts, LatentAttention
from r1jax.models.logprobs import mtp_logprobs, token_logprobs
from r1jax.training import MicroStep, PredictAhead, ZeroGrads, grpo_token_loss

LATENT = LatentAttention(kv_lora_rank=12, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=8, q_lora_rank=None)
EXPERTS = Experts(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=8, first_k_dense_replace=1)


@pytest.fixture(scope="module")
def ahead(tiny):
    return dataclasses.replace(
        tiny.config,
        architecture="deepseek_v3",
        num_key_value_heads=4,
        head_dim=10,
        qkv_bias=False,
        latent=LATENT,
        experts=EXPERTS,
        num_nextn_predict_layers=1,
    )


@pytest.fixture(scope="module")
def updates(tiny, ahead):
    """Gradients and metrics: without it, with it, with it alone, with it alone in two micro-batches."""
    layout = tiny.make_layout()
    params, out = tiny.any_parameters(ahead, layout), {}
    for name, loss, rows in (
        ("without", None, 4),
        ("with", PredictAhead(0.3), 4),
        ("alone", PredictAhead(0.3, alone=True), 4),
        ("cut", PredictAhead(0.3, alone=True), 2),
    ):
        step = MicroStep(ahead, layout, grpo_token_loss(PolicyLoss()), temperature=0.7, ahead=loss)
        grads, metrics = tiny.accumulate(step, ZeroGrads(ahead, layout), params, tiny.batch(), rows)
        out[name] = jax.device_get(grads), metrics
    return out


def largest(tree):
    return max(np.abs(x).max() for x in jax.tree.leaves(tree))


@pytest.mark.slow
def test_the_modules_learn_and_the_policy_takes_nothing_from_them(updates):
    (without, _), (alone, _) = updates["without"], updates["alone"]
    assert largest(without["mtp"]) == 0 and largest(alone["mtp"]) > 1e-3
    size = largest(without)
    for name in without.keys() - {"mtp"}:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6 * size), alone[name], without[name])


@pytest.mark.slow
def test_in_pre_training_the_model_learns_from_them(updates):
    (without, _), (with_it, _), (alone, _) = (updates[name] for name in ("without", "with", "alone"))
    for name in ("embed", "head", "dense_layers"):
        assert largest(jax.tree.map(np.subtract, with_it[name], without[name])) > 1e-3, name
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), with_it["mtp"], alone["mtp"])


@pytest.mark.slow
def test_the_loss_is_that_of_the_paper(tiny, ahead, updates):
    params, batch = tiny.any_parameters(ahead, tiny.make_layout()), tiny.batch()
    _, _, aux = token_logprobs(ahead, params, batch, 0.7)
    guesses, _ = mtp_logprobs(ahead, params, batch, aux["hidden"], 0.7)
    value, _ = mtp_loss(guesses, batch.token_weight, batch.positions, coefficient=1.0)
    metrics = updates["with"][1]
    np.testing.assert_allclose(metrics["mtp_cross_entropy"], value / batch.token_weight.sum(), rtol=1e-5)
    assert metrics["mtp_cross_entropy"] > 1


@pytest.mark.slow
def test_cutting_an_update_changes_nothing(updates):
    (whole, metrics), (cut, others) = updates["alone"], updates["cut"]
    size = largest(whole)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * size), cut, whole)
    np.testing.assert_allclose(others["mtp_cross_entropy"], metrics["mtp_cross_entropy"], rtol=1e-5)


def test_a_model_without_the_modules_is_refused(tiny):
    with pytest.raises(ValueError, match="num_nextn_predict_layers is 0.*mtp_coefficient"):
        MicroStep(tiny.config, tiny.layout, grpo_token_loss(PolicyLoss()), ahead=PredictAhead(0.3))

"""A tiny model, a rollout's worth of random sequences, and the steps over a mesh."""

import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from r1jax import sharding
from r1jax.config import OptimizerSettings
from r1jax.data.packing import PackItem, micro_batches, pack
from r1jax.losses import PolicyLoss, merge_metrics, token_weights
from r1jax.models import ModelConfig, abstract_params, param_shardings
from r1jax.scoring import Scorer
from r1jax.training import ApplyStep, MicroStep, ZeroGrads, grpo_token_loss, init_state, make_optimizer


def model_config(**change):
    return ModelConfig(**{**dict(
        architecture="qwen2", vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, qkv_bias=True, rms_norm_eps=1e-5,
    ), **change})  # fmt: skip


def sequences(count=12, seed=0, values=()):
    rng = np.random.default_rng(seed)
    out = []
    for index, length in enumerate(rng.integers(6, 16, count)):
        start = int(rng.integers(2, length - 1))
        shape = length - start
        arrays = {"advantages": float(rng.normal()), "old_logprobs": rng.normal(-4.2, 0.2, shape)}
        arrays |= {"ref_logprobs": rng.normal(-4.2, 0.2, shape), "sampler_logprobs": rng.normal(-4.2, 0.2, shape)}
        out.append(PackItem(index, rng.integers(0, 64, length), start, values=arrays))
    return out


def weighted(batch, **keywords):
    return batch._replace(token_weight=token_weights(batch.completion_mask, batch.sequence_index, **keywords))


@functools.cache
def _values(config, dtype):
    """Parameters away from the symmetric initial ones: scales that are not 1, biases that are not 0."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: (rng.normal(size=x.shape) * (0.1 if len(x.shape) > 1 else 0.3) + (x.shape[-1:] == x.shape)).astype(dtype),
        abstract_params(config),
    )


def parameters(config, layout, dtype=np.float32):
    return jax.device_put(_values(config, dtype), param_shardings(config, layout))


def make_layout(sizes=(1, 1, 1)):
    return sharding.layout(sharding.make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))]), sharding.TRAIN_RULES)


def accumulate(micro_step, zero_grads, params, batch, rows):
    grads, parts = zero_grads(), []
    for part in micro_batches(batch, rows):
        grads, metrics = micro_step(params, grads, part)
        parts.append(metrics)
    return grads, merge_metrics(jax.device_get(parts))


@pytest.fixture(scope="session")
def tiny():
    """The programs of a 1x1x1 mesh, compiled once for all tests: rows [2, 32]."""
    config, layout = model_config(), make_layout()
    optimizer = make_optimizer(OptimizerSettings(lr=1e-3), 10)
    return SimpleNamespace(
        config=config,
        layout=layout,
        optimizer=optimizer,
        loss=PolicyLoss(kl_coefficient=0.05),
        score=Scorer(config, layout, temperature=0.7),
        micro_step=MicroStep(config, layout, grpo_token_loss(PolicyLoss(kl_coefficient=0.05)), temperature=0.7),
        apply_step=ApplyStep(config, optimizer, layout),
        zero_grads=ZeroGrads(config, layout),
        parameters=lambda: parameters(config, layout),
        state=lambda **keywords: init_state(config, parameters(config, layout), optimizer, layout, **keywords),
        batch=lambda order=None, seed=0: weighted(
            pack([sequences(seed=seed)[i] for i in (range(12) if order is None else order)], 32, 2)
        ),
        accumulate=accumulate,
        make_layout=make_layout,
        model_config=model_config,
        sequences=sequences,
        weighted=weighted,
        any_parameters=parameters,
    )

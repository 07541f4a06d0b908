"""Experts over a mesh: what one device computes, for any table; padding, balance, compilations, warnings."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from r1jax import sharding
from r1jax.ops.experts import expert_mlp
from r1jax.sharding import ROLLOUT_RULES, TRAIN_RULES

B, T, K, E, D, F = 8, 6, 3, 8, 16, 8  # what a table may spread divides by the 8 devices
# Experts where no row is, where the rows are (which are gathered first), and both.
TABLES = {
    "train": TRAIN_RULES,
    "rollout": ROLLOUT_RULES,
    "experts over fsdp and tensor": {**TRAIN_RULES, "expert": ("fsdp", "tensor"), "expert_embed": None},
    "experts over tensor and fsdp": {**TRAIN_RULES, "expert": ("tensor", "fsdp"), "expert_embed": None},
    "experts over data and fsdp": {**TRAIN_RULES, "expert": ("data", "fsdp"), "expert_embed": "tensor"},
    "experts over fsdp": {**TRAIN_RULES, "expert": "fsdp", "expert_embed": "tensor"},
    "experts nowhere": {**TRAIN_RULES, "expert": None},
}
AXES = {
    "x": ("batch", None, None),
    "weights": ("batch", None, None),
    "gate": ("expert", "expert_embed", None),
    "up": ("expert", "expert_embed", None),
    "down": ("expert", None, "expert_embed"),
}


def example(seed=0, dtype=np.float32):
    """Arguments, the experts, and a cotangent. Every eighth token or so is padding, one expert has no token."""
    rng = np.random.default_rng(seed)
    shapes = {"x": (B, T, D), "weights": (B, T, K), "gate": (E, D, F), "up": (E, D, F), "down": (E, F, D)}
    args = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    experts = np.argsort(rng.random((B, T, E - 1)), -1)[..., :K].astype(np.int32)
    experts[rng.random((B, T)) < 0.12] = E
    return args, experts, rng.normal(size=(B, T, D)).astype(dtype)


def loop(args, experts):
    """Token by token."""
    out = np.zeros((B, T, D))
    for b, t, k in np.ndindex(B, T, K):
        e = experts[b, t, k]
        if e < E:
            x = args["x"][b, t].astype(float)
            gate = x @ args["gate"][e]
            out[b, t] += args["weights"][b, t, k] * ((gate / (1 + np.exp(-gate)) * (x @ args["up"][e])) @ args["down"][e])
    return out


def value_and_gradients(args, experts, cotangent):
    def scalar(args):
        y = expert_mlp(args["x"], experts, args["weights"], args["gate"], args["up"], args["down"])
        return (y * cotangent).sum(), y

    (_, y), gradients = jax.value_and_grad(scalar, has_aux=True)(args)
    return y, gradients


def test_one_device_computes_the_loop():
    args, experts, cotangent = example(dtype=np.float64)
    with jax.enable_x64(True):
        y, gradients = jax.jit(value_and_gradients)(args, experts, cotangent)
        np.testing.assert_allclose(y, loop(args, experts), atol=1e-12)
        rng, step = np.random.default_rng(1), 1e-6
        forward = jax.jit(lambda args: expert_mlp(args["x"], experts, *(args[n] for n in ("weights", "gate", "up", "down"))))
        for name in args:
            direction = rng.normal(size=args[name].shape)
            up, down = (forward(args | {name: args[name] + s * step * direction}) for s in (1, -1))
            slope = np.sum((up - down) * cotangent) / (2 * step)
            np.testing.assert_allclose(np.sum(gradients[name] * direction), slope, rtol=1e-7)


def test_padding_is_routed_nowhere():
    args, experts, cotangent = example()
    nowhere = (experts == E).all(-1)
    assert 0 < nowhere.sum() < nowhere.size
    args["x"][nowhere] = args["weights"][nowhere] = np.nan
    y, gradients = jax.jit(value_and_gradients)(args, experts, cotangent)
    assert not np.any(np.asarray(y)[nowhere]) and not np.any(np.asarray(gradients["x"])[nowhere])
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    assert not np.any(np.asarray(gradients["gate"])[E - 1])  # nobody chose it


@pytest.fixture(scope="module")
def alone():
    return jax.jit(value_and_gradients)(*example())


@pytest.mark.parametrize(
    "sizes, table",
    [((2, 2, 2), name) for name in TABLES]
    + [
        pytest.param(sizes, name, marks=pytest.mark.slow)
        for sizes in ((1, 4, 2), (1, 1, 8), (8, 1, 1), (1, 8, 1))
        for name in TABLES
    ],
)
def test_a_mesh_changes_nothing(sizes, table, alone, compilations):
    args, experts, cotangent = example()
    layout = sharding.layout(sharding.make_mesh(*sizes), TABLES[table])
    places = {name: layout.sharding(axes) for name, axes in AXES.items()}
    rows = layout.sharding(("batch", None, None))
    placed = jax.tree.map(jax.device_put, args, places), *(jax.device_put(a, rows) for a in (experts, cotangent))
    with layout.use():
        step = jax.jit(value_and_gradients, out_shardings=(rows, places))
        y, gradients = step(*placed)
        step(*placed)
    assert compilations["value_and_gradients"] <= 1  # 0 where another table lays this out alike
    scale = float(np.abs(alone[0]).max())
    np.testing.assert_allclose(y, alone[0], rtol=0, atol=1e-5 * scale)
    for name, gradient in gradients.items():
        assert gradient.sharding.is_equivalent_to(places[name], 3)
        np.testing.assert_allclose(gradient, alone[1][name], rtol=0, atol=1e-5 * float(np.abs(alone[1][name]).max()))


def test_each_device_holds_its_experts_alone():
    """No device gathers the experts of another."""
    layout = sharding.layout(sharding.make_mesh(2, 2, 2), TABLES["experts over fsdp and tensor"])
    args, experts, cotangent = example()
    structs = {n: jax.ShapeDtypeStruct(args[n].shape, args[n].dtype, sharding=layout.sharding(AXES[n])) for n in args}
    with layout.use():
        text = jax.jit(value_and_gradients).lower(structs, experts, cotangent).compile().as_text()
    gathered = [line for line in text.splitlines() if "all-gather" in line and f"f32[{E},{D},{F}]" in line]
    assert not gathered and f"f32[{E // 4},{D},{F}]" in text


# ------------------------------------------------------------------------------------------------------------ the whole model
WHOLE = """
import dataclasses, os
import jax, jax.numpy as jnp, numpy as np
from r1jax import models, sharding
from r1jax.models import Experts, LatentAttention, ModelConfig
from r1jax.models.logprobs import mtp_logprobs, token_logprobs
from r1jax.data import empty_batch

config = ModelConfig(
    architecture="deepseek_v3", vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=4, head_dim=8, num_nextn_predict_layers=1, initializer_range=0.3,
    latent=LatentAttention(kv_lora_rank=8, qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=6, q_lora_rank=8),
    experts=Experts(n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=8, first_k_dense_replace=1),
)
rng = np.random.default_rng(0)
batch = empty_batch(8, 16)
for row in range(8):
    cut, end = rng.integers(3, 8), rng.integers(10, 17)
    batch.segment_ids[row] = np.where(np.arange(16) < cut, 1, np.where(np.arange(16) < end, 2, 0))
    batch.positions[row] = np.where(np.arange(16) < cut, np.arange(16), np.arange(16) - cut) * (np.arange(16) < end)
    batch.tokens[row] = rng.integers(0, 48, 16) * (np.arange(16) < end)
batch = batch._replace(token_weight=rng.normal(size=(8, 16)).astype(np.float32) * (batch.segment_ids > 0))

def step(params, batch):
    def loss(params):
        logprobs, entropy, aux = token_logprobs(config, params, batch)
        guesses, told = mtp_logprobs(config, params, batch, aux["hidden"])
        value = jnp.sum(batch.token_weight * (logprobs + 0.1 * entropy + 0.3 * guesses[0]))
        return value, (logprobs, models.statistics(config, aux | told, batch.segment_ids > 0))
    return jax.grad(loss, has_aux=True)(params)

params = models.init_params(config, jax.random.key(0))
want = jax.tree.map(np.asarray, jax.jit(step)(params, batch))
norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(want[0])))
tables = {
    "train": sharding.TRAIN_RULES, "rollout": sharding.ROLLOUT_RULES,
    "experts wide": {**sharding.TRAIN_RULES, "expert": ("fsdp", "tensor"), "expert_embed": None},
}
for name, rules in tables.items():
    layout = sharding.layout(sharding.make_mesh(2, 2, 2), rules)
    shardings = models.param_shardings(config, layout)
    with layout.use():
        compiled = jax.jit(step, out_shardings=((shardings, None)))
        got = compiled(jax.device_put(params, shardings), layout.put(batch, ("batch", "sequence")))
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=0, atol=1e-4 * norm), got[0], want[0])
    np.testing.assert_allclose(got[1][0], want[1][0], atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, got[1][1], want[1][1])
    assert compiled._cache_size() == 1
    print(name, "is equal")
"""


@pytest.mark.slow
def test_a_whole_model_on_eight_devices_is_that_on_one():
    """In a process of its own, which shows XLA's warnings; a program from the compilation cache would give none."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    ended = subprocess.run([sys.executable, "-c", WHOLE], capture_output=True, text=True, cwd=root, env=environment)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.split("\n")[:3] == ["train is equal", "rollout is equal", "experts wide is equal"]
    assert "Involuntary full rematerialization" not in ended.stderr, ended.stderr[-3000:]

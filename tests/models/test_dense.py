"""The dense decoder against a plain NumPy one, its cache against itself, its packing, remat and meshes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import models, sharding
from r1jax.models import Cache, ModelConfig
from r1jax.models.cache import by_layer

LLAMA = ModelConfig(
    architecture="llama",
    vocab_size=32,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=6,  # not hidden_size / heads
    rope_theta=100.0,
)
QWEN = dataclasses.replace(LLAMA, architecture="qwen2", qkv_bias=True, tie_word_embeddings=True)
BIASED = dataclasses.replace(QWEN, o_bias=True, mlp_bias=True, num_key_value_heads=4, tie_word_embeddings=False)
SCALED = dataclasses.replace(LLAMA, rope_scaling=models.RopeScaling(4.0, 1.0, 4.0, 16))

# Compiled whole: op by op, every small operation would be compiled on its own.
forward = jax.jit(models.forward, static_argnums=0, static_argnames="remat")


def random_params(config, seed=0):
    """Every leaf random, norms and biases too: what starts at one or zero hides mistakes. float64."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape) * 0.3, models.abstract_params(config))


def norm(x, scale, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * scale


def rotate(x, positions, frequencies):
    half = x.shape[-1] // 2
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * positions[:, None, None] * frequencies)
    return np.concatenate([turned.real, turned.imag], -1)


def silu(x):
    return x / (1 + np.exp(-x))


def plain_forward(config, params, tokens, positions):
    """Hidden states of one sequence, token by token and head by head."""
    frequencies = models.layers.rope_frequencies(config.head_dim, config.rope_theta, config.rope_scaling).astype(float)
    x = params["embed"]["embedding"][tokens]
    for i in range(config.num_hidden_layers):
        layer = jax.tree.map(lambda p, i=i: p[i], params["layers"])
        attention, mlp = layer["attention"], layer["mlp"]
        y = norm(x, layer["input_norm"]["scale"], config.rms_norm_eps)
        q, k, v = (np.tensordot(y, attention[n]["kernel"], 1) + attention[n].get("bias", 0) for n in "qkv")
        q, k = rotate(q, positions, frequencies), rotate(k, positions, frequencies)
        out = np.zeros_like(q)
        for t in range(len(tokens)):
            for n in range(config.num_attention_heads):
                shared = n // (config.num_attention_heads // config.num_key_value_heads)
                weights = np.exp(k[: t + 1, shared] @ q[t, n] / np.sqrt(config.head_dim))
                out[t, n] = weights @ v[: t + 1, shared] / weights.sum()
        x = x + np.tensordot(out, attention["o"]["kernel"], 2) + attention["o"].get("bias", 0)
        y = norm(x, layer["post_attention_norm"]["scale"], config.rms_norm_eps)
        gate, up = (y @ mlp[n]["kernel"] + mlp[n].get("bias", 0) for n in ("gate", "up"))
        x = x + silu(gate) * up @ mlp["down"]["kernel"] + mlp["down"].get("bias", 0)
    return norm(x, params["final_norm"]["scale"], config.rms_norm_eps)


@pytest.mark.parametrize("config", [LLAMA, QWEN, BIASED, SCALED], ids=["llama", "qwen2", "biases", "scaled"])
def test_hidden_states_are_those_of_the_formulas(config):
    params = random_params(config)
    tokens = np.random.default_rng(1).integers(0, 32, (2, 9))
    positions = np.stack([np.arange(9), np.arange(4, 13)])
    with jax.enable_x64(True):
        hidden, cache, aux = forward(config, params, tokens, positions)
    assert cache is None and aux == {}
    for row in range(2):
        np.testing.assert_allclose(hidden[row], plain_forward(config, params, tokens[row], positions[row]), atol=1e-10)


def test_head_is_the_embedding_where_tied():
    tied, own = random_params(QWEN), random_params(LLAMA)
    assert "head" not in tied
    np.testing.assert_array_equal(models.head_weight(QWEN, tied), tied["embed"]["embedding"].T)
    np.testing.assert_array_equal(models.head_weight(LLAMA, own), own["head"]["kernel"])


def test_packed_segments_do_not_see_each_other_and_padding_changes_nothing():
    params = random_params(QWEN)
    rng = np.random.default_rng(2)
    first, second = rng.integers(0, 32, 5), rng.integers(0, 32, 4)
    tokens = np.concatenate([first, second, [7, 9, 9]])[None]
    positions = np.concatenate([np.arange(5), np.arange(4), [0, 3, 1]])[None]
    segments = np.array([[1] * 5 + [2] * 4 + [0] * 3])
    with jax.enable_x64(True):
        packed, *_ = forward(QWEN, params, tokens, positions, segments)
        alone = [forward(QWEN, params, s[None], np.arange(len(s))[None])[0][0] for s in (first, second)]
    np.testing.assert_allclose(packed[0, :9], np.concatenate(alone), atol=1e-12)


def test_gradients_are_finite_beside_padding():
    params = random_params(QWEN)
    segments = np.array([[1, 1, 0, 0], [0, 0, 0, 0]])

    def loss(params):
        hidden, *_ = forward(QWEN, params, np.ones((2, 4), int), np.zeros((2, 4), int), segments)
        return (hidden[0, :2] ** 2).sum()

    gradients = jax.tree.leaves(jax.jit(jax.grad(loss))(jax.tree.map(np.float32, params)))
    assert all(np.isfinite(g).all() for g in gradients)
    assert any(np.any(g != 0) for g in gradients)


@pytest.mark.parametrize("policy", ["nothing", pytest.param("dots", marks=pytest.mark.slow)])
def test_remat_changes_no_gradient(policy):
    params = random_params(QWEN)
    tokens = np.random.default_rng(3).integers(0, 32, (2, 6))

    def loss(params, remat):
        return (forward(QWEN, params, tokens, np.arange(6)[None].repeat(2, 0), remat=remat)[0] ** 2).sum()

    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(loss), static_argnums=1)
        plain, again = (gradient(params, remat) for remat in ("none", policy))
        kept = [str(gradient.trace(params, remat).jaxpr) for remat in ("none", policy)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), plain, again)
    assert "remat" not in kept[0] and "remat" in kept[1]


@pytest.mark.parametrize("arranged", [lambda stacks: stacks, by_layer], ids=["stacks", "by layer"])
def test_prefill_and_decode_equal_the_whole_sequence(arranged):
    """Two prompts of unequal lengths, two lanes each, every lane with its own continuation."""
    params = random_params(QWEN)
    rng = np.random.default_rng(4)
    lengths, lanes, steps = [3, 5], 2, 4
    prompts = [rng.integers(0, 32, n) for n in lengths]
    own = rng.integers(0, 32, (4, steps))
    padded = np.zeros((2, 6), int)
    for row, prompt in enumerate(prompts):
        padded[row, : len(prompt)] = prompt
    segments = (np.arange(6) < np.array(lengths)[:, None]).astype(int)
    with jax.enable_x64(True):
        block = models.init_block(QWEN, 2, 8, jnp.float64)  # longer than what is prefilled
        positions = np.arange(6)[None].repeat(2, 0)
        empty = Cache(block, jnp.array(lengths))
        hidden, cache, _ = forward(QWEN, params, padded, positions, segments, empty)
        for row, prompt in enumerate(prompts):
            expected = plain_forward(QWEN, params, prompt, np.arange(len(prompt)))
            np.testing.assert_allclose(hidden[row, : len(prompt)], expected, atol=1e-10)
        own_block = arranged(models.init_block(QWEN, 4, steps, jnp.float64))
        cache = cache._replace(prompt=arranged(cache.prompt), own=own_block, own_length=jnp.zeros(4, int))
        decoded = []
        for step in range(steps):
            positions = np.repeat(lengths, lanes)[:, None] + step
            hidden, cache, _ = forward(QWEN, params, own[:, step : step + 1], positions, cache=cache)
            cache = cache._replace(own_length=cache.own_length + 1)
            decoded.append(hidden[:, 0])
    for lane in range(4):
        whole = np.concatenate([prompts[lane // lanes], own[lane]])
        expected = plain_forward(QWEN, params, whole, np.arange(len(whole)))[-steps:]
        np.testing.assert_allclose(np.stack(decoded)[:, lane], expected, atol=1e-10)


def test_a_lane_at_the_end_of_its_block_writes_nowhere():
    params = jax.tree.map(jnp.float32, random_params(QWEN))
    block = models.init_block(QWEN, 1, 2)
    own = jax.tree.map(lambda x: jnp.full_like(x, 7), models.init_block(QWEN, 2, 3))
    cache = Cache(block, jnp.array([1]), own, jnp.array([3, 1]))
    _, after, _ = forward(QWEN, params, np.ones((2, 1), int), np.ones((2, 1), int), cache=cache)
    for leaf in jax.tree.leaves(after.own):
        assert (leaf[:, 0] == 7).all()
        assert (leaf[:, 1, :, [0, 2]] == 7).all() and (leaf[:, 1, :, 1] != 7).all()


SLOW = pytest.mark.slow


@pytest.mark.parametrize("sizes", [(2, 2, 2), pytest.param((8, 1, 1), marks=SLOW), pytest.param((1, 2, 4), marks=SLOW)])
def test_a_mesh_changes_nothing(sizes, capfd):
    """More tensor shards than key heads (1, 2, 4) are refused by XLA for parameters, so those have 4."""
    config = dataclasses.replace(QWEN, num_key_value_heads=4)
    params = jax.tree.map(np.float32, random_params(config))
    rng = np.random.default_rng(5)
    tokens = rng.integers(0, 32, (8, 6))
    positions = np.arange(6)[None].repeat(8, 0)
    expected = forward(config, params, tokens, positions)[0]
    layout = sharding.layout(sharding.make_mesh(*sizes), sharding.TRAIN_RULES)
    with layout.use():
        placed = jax.device_put(params, models.param_shardings(config, layout))
        found = forward(config, placed, *layout.put((tokens, positions), ("batch", None)))[0]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    assert found.sharding.is_equivalent_to(layout.sharding(("batch", None, None)), 3)
    assert "Involuntary full rematerialization" not in capfd.readouterr().err

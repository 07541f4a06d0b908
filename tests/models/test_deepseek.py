"""DeepSeek models against transformers: logits, cached decoding, gradients, gates, all on random small configurations."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import models
from r1jax.models import Cache, Experts, LatentAttention, ModelConfig, YarnScaling

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

YARN = YarnScaling(factor=4.0, original_max_position_embeddings=32, mscale=0.8, mscale_all_dim=0.9)
V3 = ModelConfig(
    architecture="deepseek_v3",
    vocab_size=67,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=4,
    num_attention_heads=3,
    num_key_value_heads=3,
    head_dim=14,
    rms_norm_eps=1e-5,
    rope_theta=1000.0,
    rope_scaling=YARN,
    max_position_embeddings=128,
    latent=LatentAttention(kv_lora_rank=10, qk_nope_head_dim=8, qk_rope_head_dim=6, v_head_dim=7, q_lora_rank=9),
    experts=Experts(
        n_routed_experts=12,
        num_experts_per_tok=3,
        moe_intermediate_size=11,
        n_shared_experts=2,
        first_k_dense_replace=1,
        n_group=4,
        topk_group=2,
        routed_scaling_factor=2.5,
    ),
)


def changed(config=V3, latent=None, experts=None, **top):
    return dataclasses.replace(
        config,
        latent=dataclasses.replace(config.latent, **(latent or {})),
        experts=dataclasses.replace(config.experts, **(experts or {})),
        **top,
    )


V2 = changed(
    architecture="deepseek_v2",
    latent={"q_lora_rank": None},
    experts={"scoring_func": "softmax", "selection_bias": False, "norm_topk_prob": False, "group_score": "max"},
)
CONFIGS = {
    "v3": V3,
    "v3 without yarn, without q_lora, one group": changed(
        rope_scaling=None, latent={"q_lora_rank": None}, experts={"n_group": 1, "topk_group": 1, "n_shared_experts": 1}
    ),
    "v3 of experts only, weights not normalised": changed(experts={"first_k_dense_replace": 0, "norm_topk_prob": False}),
    "v2 with groups": V2,
    "v2 greedy, with q_lora": changed(V2, latent={"q_lora_rank": 5}, experts={"n_group": 1, "topk_group": 1}),
}


def published(config):
    """The same model in transformers."""
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        rope |= {"rope_type": "yarn"} | dataclasses.asdict(config.rope_scaling)
    latent, experts = dataclasses.asdict(config.latent), dataclasses.asdict(config.experts)
    for name in ("scoring_func", "group_score", "selection_bias"):
        experts.pop(name)
    same = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    shared = {name: getattr(config, name) for name in same} | latent | experts
    shared |= {
        "rms_norm_eps": config.rms_norm_eps,
        "num_key_value_heads": config.num_key_value_heads,
        "rope_parameters": rope,
    }
    shared |= {"max_position_embeddings": config.max_position_embeddings}
    if config.architecture == "deepseek_v2":
        method = "group_limited_greedy" if config.experts.n_group > 1 else "greedy"
        settings = transformers.DeepseekV2Config(**shared, topk_method=method)
        model = transformers.DeepseekV2ForCausalLM(settings)
    else:
        model = transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**shared, num_mtp_layers=0))
    model.set_experts_implementation("eager")  # torch's grouped product takes multiples of 16 bytes only
    return model.eval()


def randomised(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in list(model.named_parameters()) + list(model.named_buffers()):
            if "inv_freq" in name:
                continue
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(1 + 0.1 * noise if name.endswith(("norm.weight", "layernorm.weight")) else 0.3 * noise)
    return model


def params_of(model, config):
    """Its weights as r1jax holds them, by hand: r1jax's own converter is tested elsewhere."""
    table = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    N, latent = config.num_attention_heads, config.latent

    def kernel(name):
        return table[f"{name}.weight"].T

    def mlp(at):
        return {part: {"kernel": kernel(f"{at}.{part}_proj")} for part in ("gate", "up", "down")}

    def layer(i):
        at = f"model.layers.{i}"
        attention = {
            "kv_down": {"kernel": kernel(f"{at}.self_attn.kv_a_proj_with_mqa")},
            "kv_norm": {"scale": table[f"{at}.self_attn.kv_a_layernorm.weight"]},
            "kv_up": {"kernel": kernel(f"{at}.self_attn.kv_b_proj").reshape(latent.kv_lora_rank, N, -1)},
            "o": {"kernel": kernel(f"{at}.self_attn.o_proj").reshape(N, latent.v_head_dim, -1)},
        }
        if latent.q_lora_rank is None:
            attention["q"] = {"kernel": kernel(f"{at}.self_attn.q_proj").reshape(-1, N, config.head_dim)}
        else:
            attention["q"] = {
                "down": {"kernel": kernel(f"{at}.self_attn.q_a_proj")},
                "norm": {"scale": table[f"{at}.self_attn.q_a_layernorm.weight"]},
                "up": {"kernel": kernel(f"{at}.self_attn.q_b_proj").reshape(-1, N, config.head_dim)},
            }
        out = {
            "input_norm": {"scale": table[f"{at}.input_layernorm.weight"]},
            "post_attention_norm": {"scale": table[f"{at}.post_attention_layernorm.weight"]},
            "attention": attention,
        }
        if i < config.experts.first_k_dense_replace:
            return out | {"mlp": mlp(f"{at}.mlp")}
        gate, up = np.split(table[f"{at}.mlp.experts.gate_up_proj"], 2, axis=1)
        router = {"kernel": kernel(f"{at}.mlp.gate")}
        if config.experts.selection_bias:
            router["bias"] = table[f"{at}.mlp.gate.e_score_correction_bias"]
        moe = {"router": router, "gate": gate.swapaxes(1, 2), "up": up.swapaxes(1, 2)}
        moe |= {"down": table[f"{at}.mlp.experts.down_proj"].swapaxes(1, 2), "shared": mlp(f"{at}.mlp.shared_experts")}
        return out | {"moe": moe}

    def stacked(layers):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)

    dense = config.experts.first_k_dense_replace
    layers = [layer(i) for i in range(config.num_hidden_layers)]
    params = {
        "embed": {"embedding": jnp.asarray(table["model.embed_tokens.weight"])},
        "expert_layers": stacked(layers[dense:]),
        "final_norm": {"scale": jnp.asarray(table["model.norm.weight"])},
        "head": {"kernel": jnp.asarray(kernel("lm_head"))},
    }
    return params | ({"dense_layers": stacked(layers[:dense])} if dense else {})


FAST = ("v3",)


@pytest.fixture(
    scope="module",
    params=[pytest.param(c, id=n, marks=() if n in FAST else pytest.mark.slow) for n, c in CONFIGS.items()],
)
def pair(request):
    model = randomised(published(request.param), 3)
    return request.param, model, params_of(model, request.param)


TOKENS = np.random.default_rng(0).integers(0, 67, (2, 50)).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def logits_of(config, params, tokens, **more):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden, _, aux = models.forward(config, params, tokens, positions, **more)
    return hidden @ models.head_weight(config, params), aux


def test_every_parameter_is_the_schema_s(pair):
    config, _, params = pair
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes == jax.tree.map(lambda x: x.shape, models.abstract_params(config))


def test_logits_equal_transformers(pair):
    config, model, params = pair
    with torch.no_grad():
        want = model(torch.tensor(TOKENS).long()).logits.numpy()
    got, _ = logits_of(config, params, TOKENS)
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_gradients_equal_transformers(pair):
    config, model, params = pair
    weights = np.random.default_rng(1).normal(size=(2, 50, 67)).astype(np.float32)
    model.zero_grad()
    (model(torch.tensor(TOKENS).long()).logits * torch.tensor(weights)).sum().backward()
    for parameter in model.parameters():  # the table is read from values
        parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
    want = params_of(model, config)
    model.load_state_dict(randomised(published(config), 3).state_dict())
    got = jax.jit(jax.grad(lambda p: jnp.sum(logits_of(config, p, TOKENS)[0] * weights)))(params)
    if config.experts.selection_bias:  # a buffer there; here it decides the choice alone
        assert not np.any(got["expert_layers"]["moe"]["router"].pop("bias"))
        want["expert_layers"]["moe"]["router"].pop("bias")
    norm = np.sqrt(sum(np.sum(np.square(w)) for w in jax.tree.leaves(want)))
    assert norm > 0
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=1e-4 * norm), got, want)


@pytest.mark.parametrize("by_layer", [False, True], ids=["stacks", "layer by layer"])
def test_absorbed_decoding_equals_the_naive_form(pair, by_layer):
    config, _, params = pair
    P, lanes, S, steps = 2, 2, 9, 6
    whole, _ = logits_of(config, params, np.repeat(TOKENS[:, : S + steps], lanes, 0))
    length = np.array([S, S - 2], np.int32)
    segments = (np.arange(S) < length[:, None]).astype(np.int32)
    tokens = TOKENS[:, :S] * segments
    block = models.init_block(config, P, S)
    fill = jax.jit(models.forward, static_argnums=0)
    _, filled, _ = fill(config, params, tokens, np.arange(S) * segments, segments, Cache(block, length))
    own = models.init_block(config, P * lanes, 8)
    prompt = filled.prompt
    if by_layer:
        prompt, own = (models.cache.by_layer(x) for x in (prompt, own))
    cache = Cache(prompt, length, own, np.zeros(P * lanes, np.int32))
    step = jax.jit(lambda tokens, positions, cache: models.forward(config, params, tokens, positions, cache=cache)[:2])
    for t in range(steps - 2):
        at = np.repeat(length + t, lanes)
        fed = np.repeat(TOKENS, lanes, 0)[np.arange(P * lanes), at][:, None]
        hidden, cache = step(fed, at[:, None], cache)
        cache = cache._replace(own_length=cache.own_length + 1)
        got = hidden[:, 0] @ models.head_weight(config, params)
        want = whole[np.arange(P * lanes), at]
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_the_cache_holds_the_latent_and_one_rotary_key(pair):
    config, _, _ = pair
    values = sum(np.prod(x.shape) for x in jax.tree.leaves(models.init_block(config, 3, 5)))
    assert values == config.num_hidden_layers * 3 * 5 * (config.latent.kv_lora_rank + config.latent.qk_rope_head_dim)


def test_padding_and_neighbours_change_nothing_and_route_nowhere(pair):
    config, _, params = pair
    alone, aux = logits_of(config, params, TOKENS[:1, :20])
    tokens = np.concatenate([TOKENS[1:, :7], TOKENS[:1, :20], np.zeros((1, 3), np.int32)], 1)
    segments = np.array([[1] * 7 + [2] * 20 + [0] * 3])
    positions = np.concatenate([np.arange(7), np.arange(20), np.zeros(3, int)])[None]
    forward = jax.jit(models.forward, static_argnums=0)
    hidden, _, packed = forward(config, params, tokens, positions, segments)
    got = hidden[:, 7:27] @ models.head_weight(config, params)
    np.testing.assert_allclose(got, alone, atol=1e-5 * np.abs(alone).max())
    np.testing.assert_array_equal(packed["experts"][:, 7:27], aux["experts"])


def test_routes_that_are_replayed_are_the_ones_that_are_used(pair):
    config, _, params = pair
    got, aux = logits_of(config, params, TOKENS)
    again, replayed = logits_of(config, params, TOKENS, routes=np.asarray(aux["experts"], np.uint8))
    np.testing.assert_array_equal(again, got)
    other = (np.asarray(aux["experts"]) + 1) % config.experts.n_routed_experts
    moved, taken = logits_of(config, params, TOKENS, routes=other.astype(np.uint8))
    np.testing.assert_array_equal(taken["experts"], other)
    assert np.abs(moved - got).max() > 1e-3

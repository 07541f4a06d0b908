"""Multi-token prediction against NumPy, token by token, and against transformers; finite differences; packing and padding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import models
from r1jax.data import empty_batch
from r1jax.losses import mtp_loss
from r1jax.models import Experts, LatentAttention, ModelConfig, YarnScaling
from r1jax.models.logprobs import mtp_acceptance, mtp_logprobs, token_logprobs

CONFIG = ModelConfig(
    architecture="deepseek_v3",
    vocab_size=23,
    hidden_size=10,
    intermediate_size=14,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=8,
    rope_theta=100.0,
    latent=LatentAttention(kv_lora_rank=6, qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=5, q_lora_rank=8),
    experts=Experts(
        n_routed_experts=6,
        num_experts_per_tok=2,
        moe_intermediate_size=5,
        first_k_dense_replace=1,
        n_group=3,
        topk_group=2,
        routed_scaling_factor=1.5,
    ),
    num_nextn_predict_layers=2,
    initializer_range=0.4,
)
DENSE = dataclasses.replace(CONFIG, experts=None, num_nextn_predict_layers=1)
LENGTHS = (7, 4, 2, 1)  # of the sequences that are packed into a row, before two places of padding


def packed(seed=0, lengths=LENGTHS, padding=2, config=CONFIG):
    """One row of sequences, their completions from the third token on."""
    rng, T = np.random.default_rng(seed), sum(lengths) + padding
    batch, at = empty_batch(1, T), 0
    for number, length in enumerate(lengths):
        here = slice(at, at + length)
        batch.tokens[0, here] = rng.integers(0, config.vocab_size, length)
        batch.positions[0, here] = np.arange(length)
        batch.segment_ids[0, here] = number + 1
        batch.completion_mask[0, here][2:] = 1
        batch.token_weight[0, here][2:] = rng.uniform(0.5, 1, max(length - 2, 0))
        at += length
    return batch


def random_params(config, seed=1):
    rng = np.random.default_rng(seed)

    def drawn(path, x):
        name = path[-1].key
        scale = {"scale": 0.2, "bias": 0.1}.get(name, 0.4)
        return ((name == "scale") + scale * rng.normal(size=x.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(drawn, models.abstract_params(config))


@functools.partial(jax.jit, static_argnums=0)
def both(config, params, batch):
    _, _, aux = token_logprobs(config, params, batch, compute_dtype=params["final_norm"]["scale"].dtype)
    guesses, told = mtp_logprobs(config, params, batch, aux["hidden"], compute_dtype=aux["hidden"].dtype)
    states, _ = models.mtp_hidden(config, params, aux["hidden"], batch.tokens, batch.positions, batch.segment_ids)
    return guesses, aux["hidden"], told, states


# ------------------------------------------------------------------------- the reference, one sequence, token by token, float64
def norm(x, scale, eps):
    return x / np.sqrt(np.mean(x * x) + eps) * scale


def rotated(x, position, theta):
    out = np.empty_like(x)
    for pair in range(len(x) // 2):
        angle = position * theta ** (-2 * pair / len(x))
        a, b = x[2 * pair], x[2 * pair + 1]
        out[2 * pair] = a * np.cos(angle) - b * np.sin(angle)
        out[2 * pair + 1] = a * np.sin(angle) + b * np.cos(angle)
    return out


def swiglu(x, gate, up, down):
    g = x @ gate
    return (g / (1 + np.exp(-g)) * (x @ up)) @ down


def attention(p, xs, config):
    latent, N = config.latent, config.num_attention_heads
    keys, values, outs = [], [], []
    for t, x in enumerate(xs):
        down = x @ p["kv_down"]["kernel"]
        c = norm(down[: latent.kv_lora_rank], p["kv_norm"]["scale"], 1e-6)
        shared = rotated(down[latent.kv_lora_rank :], t, config.rope_theta)
        kv = np.einsum("r,rnh->nh", c, p["kv_up"]["kernel"])
        keys.append([np.concatenate([kv[n, : latent.qk_nope_head_dim], shared]) for n in range(N)])
        values.append(kv[:, latent.qk_nope_head_dim :])
        c_q = norm(x @ p["q"]["down"]["kernel"], p["q"]["norm"]["scale"], 1e-6)
        q = np.einsum("r,rnh->nh", c_q, p["q"]["up"]["kernel"])
        out = np.zeros(config.hidden_size)
        for n in range(N):
            nope, rope = q[n, : latent.qk_nope_head_dim], q[n, latent.qk_nope_head_dim :]
            query = np.concatenate([nope, rotated(rope, t, config.rope_theta)])
            scores = np.array([query @ keys[s][n] for s in range(t + 1)]) * config.head_dim**-0.5
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            out += sum(w * values[s][n] for s, w in enumerate(weights)) @ p["o"]["kernel"][n]
        outs.append(out)
    return outs


def mixture(p, x, experts):
    scores = 1 / (1 + np.exp(-(x @ p["router"]["kernel"])))
    choice = scores + p["router"]["bias"]
    groups = np.split(np.arange(experts.n_routed_experts), experts.n_group)
    best = sorted(groups, key=lambda group: -np.sort(choice[group])[-2:].sum())[: experts.topk_group]
    chosen = sorted(np.concatenate(best), key=lambda e: -choice[e])[: experts.num_experts_per_tok]
    y = sum(scores[e] / scores[chosen].sum() * swiglu(x, p["gate"][e], p["up"][e], p["down"][e]) for e in chosen)
    shared = p["shared"]
    y = y * experts.routed_scaling_factor + swiglu(x, *(shared[part]["kernel"] for part in ("gate", "up", "down")))
    return y, chosen


def reference(config, params, hidden, tokens):
    """``([M][t] log-probabilities of token t, experts chosen)`` of one sequence of hidden states ``[T, D]``."""
    head, out, routed = params["head"]["kernel"], [], []
    for k in range(1, config.num_nextn_predict_layers + 1):
        p = jax.tree.map(lambda x, k=k: x[k - 1], params["mtp"])
        xs = []
        for i in range(len(tokens) - k):
            embedding = params["embed"]["embedding"][tokens[i + k]]
            joined = [norm(embedding, p["embed_norm"]["scale"], 1e-6), norm(hidden[i], p["hidden_norm"]["scale"], 1e-6)]
            xs.append(np.concatenate(joined) @ p["projection"]["kernel"])
        block, states = p["block"], []
        attended = attention(block["attention"], [norm(x, block["input_norm"]["scale"], 1e-6) for x in xs], config)
        for x, y in zip(xs, attended):
            x = x + y
            inner = norm(x, block["post_attention_norm"]["scale"], 1e-6)
            if config.experts is None:
                y = swiglu(inner, *(block["mlp"][part]["kernel"] for part in ("gate", "up", "down")))
            else:
                y, chosen = mixture(block["moe"], inner, config.experts)
                routed.append((k, chosen))
            states.append(norm(x + y, p["final_norm"]["scale"], 1e-6))
        said = np.zeros(len(tokens))
        for i in range(len(tokens) - k - 1):
            logits = states[i] @ head
            said[i + k + 1] = logits[tokens[i + k + 1]] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        out.append(said)
        hidden = states
    return out, routed


@pytest.mark.parametrize("config", [CONFIG, DENSE], ids=["experts, two depths", "dense"])
def test_every_guess_is_the_reference_s(config):
    batch = packed(config=config)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), random_params(config))
        guesses, hidden, told, _ = both(config, params, batch)
        assert guesses.dtype == jnp.float64
        loads = models.statistics(config, told | {"experts": told["mtp_experts"]}, batch.segment_ids > 0) if told else {}
    host, at, routed = jax.tree.map(np.asarray, params), 0, []
    assert guesses.shape == (config.num_nextn_predict_layers, *batch.tokens.shape)
    for length in LENGTHS:
        here = slice(at, at + length)
        want, chosen = reference(config, host, np.asarray(hidden[0, here]), batch.tokens[0, here])
        np.testing.assert_allclose(guesses[:, 0, here], want, rtol=0, atol=1e-8)  # rotary frequencies are float32
        routed, at = routed + chosen, at + length
    assert not np.any(guesses[:, 0, at:])
    if config.experts is not None:  # the load counts what lies inside a sequence, at each depth, and nothing else
        want = np.zeros((2, 6))
        for k, chosen in routed:
            want[k - 1, chosen] += 1
        np.testing.assert_array_equal(loads["mtp"]["block"]["moe"]["router"]["bias"], want)


def test_sequences_alone_are_sequences_packed():
    params = random_params(CONFIG)
    batch = packed()
    together = both(CONFIG, params, batch)[0]
    first = packed(lengths=LENGTHS[:1], padding=sum(LENGTHS[1:]) + 2)
    np.testing.assert_array_equal(first.tokens[0, : LENGTHS[0]], batch.tokens[0, : LENGTHS[0]])
    alone = both(CONFIG, params, first)[0]
    np.testing.assert_allclose(alone[:, :, : LENGTHS[0]], together[:, :, : LENGTHS[0]], atol=2e-5)
    assert not np.any(alone[:, :, LENGTHS[0] :])
    changed = batch._replace(tokens=np.where(batch.segment_ids == 1, batch.tokens, (batch.tokens + 5) % 23))
    after = both(CONFIG, params, changed)[0]
    np.testing.assert_array_equal(after[:, :, : LENGTHS[0]], together[:, :, : LENGTHS[0]])
    assert np.abs(np.asarray(after - together))[:, :, LENGTHS[0] : sum(LENGTHS[:2])].max() > 0.01


def test_a_later_token_is_not_seen():
    """Depth k knows what lies up to k places behind its hidden state, and no more."""
    params, batch = random_params(CONFIG), packed(lengths=(10,), padding=6)
    before = both(CONFIG, params, batch)[0]
    for t in range(2, 10):
        tokens = batch.tokens.copy()
        tokens[0, t] = (tokens[0, t] + 1) % 23
        after = both(CONFIG, params, batch._replace(tokens=tokens))[0]
        np.testing.assert_array_equal(after[:, :, :t], before[:, :, :t])
        if t < 9:
            assert np.all(after[0, :, t + 1] != before[0, :, t + 1])


@pytest.mark.slow
def test_the_loss_s_gradient_by_finite_differences():
    batch = packed()
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), random_params(CONFIG, 3))

        @jax.jit
        @jax.value_and_grad
        def loss(params):
            guesses = both(CONFIG, params, batch)[0]
            return mtp_loss(guesses, batch.token_weight, batch.positions, coefficient=0.3)[0]

        _, gradient = loss(params)
        rng = np.random.default_rng(0)
        for name in ("mtp", "embed", "head", "dense_layers"):  # through the hidden states into the decoder as well
            direction = {key: jax.tree.map(jnp.zeros_like, value) for key, value in params.items()}
            direction[name] = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params[name])
            if name == "mtp":  # the bias decides the choice alone
                direction[name]["block"]["moe"]["router"]["bias"] *= 0
            up, down = (loss(jax.tree.map(lambda p, d, s=s: p + s * 1e-6 * d, params, direction))[0] for s in (1, -1))
            slope = sum(jnp.sum(g * d) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction)))
            assert abs(slope) > 1e-3
            np.testing.assert_allclose((up - down) / 2e-6, slope, rtol=1e-6)
        assert not np.any(gradient["mtp"]["block"]["moe"]["router"]["bias"])


def test_acceptance_counts_where_both_choose_the_same():
    params, batch = random_params(CONFIG), packed(seed=4, lengths=(7, 5, 3), padding=1)
    counts = np.asarray(jax.jit(mtp_acceptance, static_argnums=0)(CONFIG, params, batch))
    _, hidden, _, states = both(CONFIG, params, batch)
    head = models.head_weight(CONFIG, params)
    own, guess = np.argmax(hidden @ head, -1)[0], np.argmax(states @ head, -1)[:, 0]
    want = np.zeros((2, 2))
    for k in (1, 2):
        for t in range(batch.tokens.shape[1]):
            if batch.positions[0, t] > k and batch.completion_mask[0, t]:
                want[k - 1] += [guess[k - 1, t - k - 1] == own[t - 1], 1]
    np.testing.assert_array_equal(counts, want)
    assert counts[0, 1] == 5 + 3 + 1 and counts[1, 1] == 4 + 2


def test_a_model_without_it_is_refused():
    config = dataclasses.replace(CONFIG, num_nextn_predict_layers=0)
    assert "mtp" not in models.abstract_params(config)
    batch = packed()
    with pytest.raises(ValueError, match="num_nextn_predict_layers is 0"):
        mtp_logprobs(config, random_params(config), batch, jnp.zeros((1, batch.tokens.shape[1], 10)))


def test_experts_in_prediction_alone():
    """A model whose own layers are all dense: nothing to record, and one load to balance."""
    config = dataclasses.replace(CONFIG, experts=dataclasses.replace(CONFIG.experts, first_k_dense_replace=2))
    assert models.route_shape(config) is None
    batch = packed()
    _, _, told, _ = both(config, random_params(config), batch)
    counts = models.statistics(config, told, batch.segment_ids > 0)
    assert list(counts) == ["mtp"] and counts["mtp"]["block"]["moe"]["router"]["bias"].sum() == 2 * (10 + 7)
    assert models.statistics(config, {}, batch.segment_ids > 0) == {}


def test_groups_of_one_expert_have_no_best_two():
    with pytest.raises(ValueError, match="n_group 6 leaves one expert to a group"):
        dataclasses.replace(CONFIG.experts, n_group=6, topk_group=2)


# ------------------------------------------------------------------------------------------------- transformers has it since 5.20
@pytest.mark.slow
@pytest.mark.parametrize("yarn", [False, True])
def test_states_equal_transformers(yarn):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    layers = pytest.importorskip("transformers.modeling_layers")
    if not hasattr(layers, "MtpModel"):
        pytest.skip(f"transformers {transformers.__version__} has no MtpModel")
    config = dataclasses.replace(CONFIG, rope_scaling=YarnScaling(4.0, 16, mscale=0.8, mscale_all_dim=0.9) if yarn else None)
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if yarn:
        rope |= {"rope_type": "yarn"} | dataclasses.asdict(config.rope_scaling)
    experts = dataclasses.asdict(config.experts)
    for name in ("scoring_func", "group_score", "selection_bias"):
        experts.pop(name)
    same = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    settings = transformers.DeepseekV3Config(
        **{name: getattr(config, name) for name in same},
        **dataclasses.asdict(config.latent),
        **experts,
        num_key_value_heads=config.num_key_value_heads,
        rope_parameters=rope,
        rms_norm_eps=config.rms_norm_eps,
        max_position_embeddings=64,
        num_mtp_layers=2,
    )
    torch.manual_seed(0)
    main = transformers.DeepseekV3ForCausalLM(settings)
    model = layers.MtpModel(main, 2)
    for part in (main, model):
        part.set_experts_implementation("eager")
    params = random_params(config)
    with torch.no_grad():
        main.get_input_embeddings().weight.copy_(torch.tensor(np.asarray(params["embed"]["embedding"])))
        for k, layer in enumerate(model.layers):
            fill(torch, layer, jax.tree.map(lambda x, k=k: np.asarray(x[k]), params["mtp"]))
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(1, 12, 10)).astype(np.float32)
    tokens = rng.integers(0, 23, (1, 12)).astype(np.int32)
    got, _ = jax.jit(models.mtp_hidden, static_argnums=0)(config, params, hidden, tokens, np.arange(12)[None])
    with torch.no_grad():
        state = torch.tensor(hidden)
        for k in (1, 2):
            ids = torch.tensor(tokens[:, k:]).long()
            at = torch.arange(k, 12)[None]
            state = model.forward_layer(k - 1, state[:, : 12 - k], at, None, input_ids=ids)
            np.testing.assert_allclose(got[k - 1][:, : 12 - k], state.numpy(), atol=2e-5)


def fill(torch, layer, p):
    """One depth's weights into transformers' layer, by hand."""

    def put(module, kernel):
        module.weight.copy_(torch.tensor(np.asarray(kernel)))

    for module, name in ((layer.enorm, "embed_norm"), (layer.hnorm, "hidden_norm"), (layer.post_norm, "final_norm")):
        put(module, p[name]["scale"])
    put(layer.eh_proj, p["projection"]["kernel"].T)
    block, at = p["block"], layer.mtp_block
    put(at.input_layernorm, block["input_norm"]["scale"])
    put(at.post_attention_layernorm, block["post_attention_norm"]["scale"])
    attention, theirs = block["attention"], at.self_attn
    put(theirs.q_a_proj, attention["q"]["down"]["kernel"].T)
    put(theirs.q_a_layernorm, attention["q"]["norm"]["scale"])
    put(theirs.q_b_proj, attention["q"]["up"]["kernel"].reshape(8, -1).T)
    put(theirs.kv_a_proj_with_mqa, attention["kv_down"]["kernel"].T)
    put(theirs.kv_a_layernorm, attention["kv_norm"]["scale"])
    put(theirs.kv_b_proj, attention["kv_up"]["kernel"].reshape(6, -1).T)
    put(theirs.o_proj, attention["o"]["kernel"].reshape(-1, 10).T)
    moe, theirs = block["moe"], at.mlp
    put(theirs.gate, moe["router"]["kernel"].T)
    theirs.gate.e_score_correction_bias.copy_(torch.tensor(moe["router"]["bias"]))
    joined = np.concatenate([moe["gate"], moe["up"]], 2).swapaxes(1, 2)
    theirs.experts.gate_up_proj.copy_(torch.tensor(joined))
    theirs.experts.down_proj.copy_(torch.tensor(moe["down"].swapaxes(1, 2)))
    for part in ("gate", "up", "down"):
        put(getattr(theirs.shared_experts, f"{part}_proj"), moe["shared"][part]["kernel"].T)

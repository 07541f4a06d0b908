"""What tests of the recipes at the paper's size count with: bytes on a device, a head comment's numbers, the paper's RL."""

import math

import jax

from r1jax.models import abstract_params, logical_axes
from r1jax.sharding import ROLLOUT_RULES

H800 = 989e12  # bfloat16 FLOP/s, as an H200's
SHARE = 0.039  # of it: R1-Zero's published hours against its FLOPs
V5P, V5P_MEMORY = 459e12, 2.765e12  # bfloat16 FLOP/s, bytes/s of HBM


def head(path):
    return " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))


def number(text):
    return float(text.replace(",", ""))


def held(model, rules, mesh, each, without=()):
    """GB on a device of parameters of so many bytes each, ``without`` some groups; every dimension that a table spreads must
    divide."""
    sizes = {"data": mesh.data, "fsdp": mesh.fsdp, "tensor": mesh.tensor}
    leaves = jax.tree_util.tree_leaves_with_path(abstract_params(model))
    named = jax.tree.leaves(logical_axes(model), is_leaf=lambda x: isinstance(x, tuple))
    total = 0.0
    for (path, leaf), axes in zip(leaves, named, strict=True):
        if path[0].key in without:
            continue
        parts = 1
        for length, axis in zip(leaf.shape, axes, strict=True):
            spread = rules.get(axis) or ()
            shards = math.prod(sizes[name] for name in ([spread] if isinstance(spread, str) else spread))
            assert length % shards == 0, (axis, length, shards)
            parts *= shards
        total += leaf.size * each / parts
    return total / 1e9


def states(model, row_tokens):
    """GB of the hidden states that one packed row leaves for the backward pass, in bfloat16."""
    return model.num_hidden_layers * row_tokens * model.hidden_size * 2 / 1e9


def experts_read(experts, tensor, sequences):
    """Experts of a layer that a chip reads in a decode step: the mean, and of the busiest chip, for which the others wait.

    Each sequence chooses its K of E at random. The chips' numbers are taken as independent; they are nearly (8 sequences,
    256 experts, 64 chips, 800 draws: 3.08, 3.15 where the choice is bound to 4 of 8 groups; here 3.05).
    """
    E, K, here = experts.n_routed_experts, experts.num_experts_per_tok, experts.n_routed_experts // tensor
    untouched = [(math.comb(E - k, K) / math.comb(E, K)) ** sequences for k in range(here + 1)]  # k given experts

    def exactly(touched):
        rest = here - touched
        signed = ((-1) ** j * math.comb(touched, j) * untouched[rest + j] for j in range(touched + 1))
        return math.comb(here, rest) * sum(signed)

    up_to = [sum(exactly(i) for i in range(k + 1)) for k in range(here)]
    return sum(1 - p for p in up_to), sum(1 - p**tensor for p in up_to)


def weights_read(model, mesh):
    """GB on a device that a decode step reads in bfloat16: whatever is chosen, and all the routed experts. The module of
    multi-token prediction is not run; of the embedding a few rows are read."""
    experts = model.experts
    layers = model.num_hidden_layers - experts.first_k_dense_replace
    each = 3 * model.hidden_size * experts.moe_intermediate_size
    routed = layers * experts.n_routed_experts // mesh.tensor * each * 2 / 1e9
    return held(model, ROLLOUT_RULES, mesh, 2, without=("mtp", "embed")) - routed, routed


def check_rollouts(stage, mesh):
    """What must divide: rows over the mesh, checkpoints and refreshes over rollouts."""
    settings = stage.settings
    shards = mesh.data * mesh.fsdp
    assert settings.rows_per_microbatch % shards == 0 and settings.sampler.rows % shards == 0
    assert settings.checkpoint_every % settings.minibatches == 0
    assert settings.prompts_per_rollout % settings.prompts_per_wave == 0
    if settings.row_tokens:  # else the longest prompt and the cap
        assert settings.max_prompt_tokens + settings.max_tokens <= settings.row_tokens


def check_paper_s_rl(settings, lr, temperature=1.0):
    """Nature 645:633: 32 prompts of 16 samples an update, 8,192 sequences a rollout in 16 minibatches."""
    assert (settings.prompts_per_rollout, settings.samples_per_prompt, settings.minibatches, settings.epochs) == (
        512,
        16,
        16,
        1,
    )
    assert (settings.temperature, settings.max_tokens, settings.reference_every) == (temperature, 32_768, 400)
    assert (settings.loss.kl, settings.loss.kl_coefficient, settings.loss.surrogate) == ("k3", 1e-3, "clip")
    assert (settings.optimizer.lr, settings.optimizer.schedule, settings.optimizer.warmup_steps) == (lr, "constant", 0)
    assert (settings.advantages.normalize, settings.aggregation) == ("std", "sequence_mean")

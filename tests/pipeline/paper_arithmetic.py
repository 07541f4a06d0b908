"""What tests of the recipes at the paper's size count with: bytes on a device, a head comment's numbers, the paper's RL."""

import math

import jax

from r1jax.models import abstract_params, logical_axes

H800 = 989e12  # bfloat16 FLOP/s, as an H200's
SHARE = 0.039  # of it: R1-Zero's published hours against its FLOPs


def head(path):
    return " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))


def number(text):
    return float(text.replace(",", ""))


def held(model, rules, mesh, each):
    """GB on a device of parameters of so many bytes each; every dimension that a table spreads must divide."""
    sizes = {"data": mesh.data, "fsdp": mesh.fsdp, "tensor": mesh.tensor}
    leaves = jax.tree.leaves(abstract_params(model))
    named = jax.tree.leaves(logical_axes(model), is_leaf=lambda x: isinstance(x, tuple))
    total = 0.0
    for leaf, axes in zip(leaves, named, strict=True):
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

"""What the whole of R1 at its own size would cost with its recipe's own slots: the second half of its head's costs."""

from pathlib import Path

import pytest
from paper_arithmetic import H800, V5P, V5P_MEMORY, experts_read, head, held, weights_read

from r1jax import config
from r1jax.models.published import PUBLISHED, count
from r1jax.sharding import ROLLOUT_RULES, TRAIN_RULES

WHOLE = Path(__file__).parents[2] / "configs" / "r1_671b.yaml"


def rounded(value):
    """To three digits, as the head writes hours and tokens a second."""
    return f"{float(f'{value:.3g}'):,.0f}"


def test_the_671b_s_own_pace_is_as_it_says():
    """What a decode step reads from HBM, and the hours that the recipe's slots then take: no longer the paper's."""
    recipe = config.load_recipe(str(WHOLE))
    stages = {stage.name: stage for stage in recipe.stages}
    said, model, mesh = head(WHOLE), PUBLISHED["deepseek-v3"].config, recipe.mesh
    rows, chips, experts = mesh.data * mesh.fsdp, mesh.data * mesh.fsdp * mesh.tensor, model.experts
    samplers = {name: stages[name].settings.sampler for name in ("zero", "dev2", "rejection_sampling", "r1")}
    slots = {name: (sampler.rows // rows, sampler.lanes) for name, sampler in samplers.items()}
    assert slots == {"zero": (1, 8), "dev2": (1, 16), "rejection_sampling": (1, 8), "r1": (1, 16)}
    assert all(stages[name].settings.samples_per_prompt >= lanes for name, (_, lanes) in slots.items())
    assert "16 rows x 8 lanes are 128 sequences (256 in Dev2 and R1)" in said and rows * 8 == 128
    flops = 2 * count(model).active * rows * 8
    assert f"{flops:.1e}".replace("e+", "e") + f" FLOPs take {flops / chips / V5P * 1e3:.2f} ms of {chips:,} chips" in said

    fixed, routed = weights_read(model, mesh)
    here = experts.n_routed_experts // mesh.tensor
    assert f"reads {fixed:.1f} GB of weights whatever is chosen, and of {routed:.1f} GB of routed experts ({here} in" in said
    mean, busiest = experts_read(experts, mesh.tensor, 8)
    assert mean == pytest.approx(here * (1 - (1 - experts.num_experts_per_tok / experts.n_routed_experts) ** 8))
    of_16 = experts_read(experts, mesh.tensor, 16)[1]
    assert (
        f"sequences {mean:.1f} on average and {busiest:.1f} on the busiest chip" in said and f"({of_16:.1f} with 16)" in said
    )

    def weights(touched):  # GB, ms
        read = fixed + routed * touched / here
        return read, read * 1e9 / V5P_MEMORY * 1e3

    (read, slowest), (more, slower) = weights(busiest), weights(of_16)
    none_waits, every = weights(mean)[1], weights(here)[1]
    assert f"{read:.1f} GB, {slowest:.1f} ms ({none_waits:.1f} if nobody waited, {every:.1f} for all of them)" in said
    assert f"{more:.1f} GB, {slower:.1f} ms with 16" in said

    token = (model.latent.kv_lora_rank + model.latent.qk_rope_head_dim) * 2 * model.num_hidden_layers

    def cache(lanes, bucket):
        return lanes * bucket * token / V5P_MEMORY * 1e3

    shortest, longest = samplers["zero"].completion_bucket, stages["zero"].settings.max_tokens
    assert {sampler.completion_bucket for sampler in samplers.values()} == {shortest} == {8_192}
    assert {stages[name].settings.max_tokens for name in samplers} == {longest} == {32_768}
    buckets = (shortest, longest)
    few, many = ([cache(lanes, bucket) for bucket in buckets] for lanes in (8, 16))
    assert f"{few[0]:.1f} ms at 8,192 tokens, {few[1]:.1f} at 32,768 with 8 lanes" in said
    assert f"{many[0]:.1f} and {many[1]:.1f} with 16" in said
    steps = {8: [slowest + x for x in few], 16: [slower + x for x in many]}

    def pace(lanes):
        return [rounded(rows * lanes / step * 1e3) for step in steps[lanes]]

    assert "takes {:.1f} to {:.1f} ms, {} to {} tokens a second".format(*steps[8], *pace(8)) in said
    assert "with 16 lanes {:.1f} to {:.1f} ms, {} to {}.".format(*steps[16], *pace(16)) in said

    def hours(tokens, in_flight, step):
        """Of a v5p, all of them busy with nothing else; of an H800 by FLOPs."""
        device = tokens / in_flight * step / 1e3 * chips / 3600
        return device, device * V5P / H800

    rl = {name: stages[name].settings.steps * 512 * 6_000 for name in ("zero", "dev2", "r1")}
    sampled = rl | {"rejection_sampling": 160_000 * stages["rejection_sampling"].settings.samples_per_prompt * 6_000}
    names = {"zero": "R1-Zero", "dev2": "Dev2", "rejection_sampling": "rejection sampling", "r1": "R1"}
    said_hours = said.partition("sampling alone, in hours of a v5p")[2].partition("Left out")[0]
    for stage, name in names.items():
        lanes = slots[stage][1]
        low, high = (hours(sampled[stage], rows * lanes, step) for step in steps[lanes])
        ours = f"{rounded(low[0])} to {rounded(high[0])}, {rounded(low[1])} to {rounded(high[1])}"
        assert f" {name} {ours}" in said_hours, name
    assert hours(sampled["zero"], 128, steps[8][0])[1] > 101_000, "else the head is wrong to call it slower than the paper"
    bound = hours(sampled["zero"], 128, none_waits)
    assert f"{none_waits:.1f} ms, R1-Zero's would be {rounded(bound[0])}, {rounded(bound[1])}" in said and bound[1] < 101_000
    passes = 10 * count(model).active * sampled["zero"] / (0.4 * H800) / 3600
    assert f"10 N D, are {float(f'{passes:.2g}'):,.0f} of an H800 at 40%" in said

    # What memory allows, what lanes alone can give, and what they give with a cache that is spread.
    kept = held(model, TRAIN_RULES, mesh, 12) + held(model, TRAIN_RULES, mesh, 2) + held(model, ROLLOUT_RULES, mesh, 2)
    lanes = [int((95 - kept) * 1e9 / token / bucket) for bucket in (longest, 65_536)]
    assert f"{95 - kept:.1f} GB are left" in said
    assert f"{lanes[0]} lanes of 32,768 tokens, {lanes[1]} of 65,536" in said
    most = rows / cache(1, longest) * 1e3
    assert f"reads {cache(1, longest):.2f} ms a step at 32,768" in said and f"at most {rounded(most)} tokens" in said
    least = hours(sampled["zero"], rows, cache(1, longest))[1]
    assert f"takes about {rounded(least)} of an H800 or more" in said
    spread = 32 * 65_536 * token / mesh.tensor
    step = weights(experts_read(experts, mesh.tensor, 32)[1])[1] + spread / V5P_MEMORY * 1e3
    device, published = hours(sampled["zero"], 32 * 16, step)
    assert 32 // rows * 16 == 32
    assert f"32 rows of 16 lanes have {spread / 1e9:.1f} GB of it at 65,536 tokens, a step takes {step:.1f} ms" in said
    assert f"R1-Zero's sampling {rounded(device)} of a v5p, {rounded(published)} of an H800" in said
    assert f"with the other passes {rounded(published + passes)}: the paper's order" in said

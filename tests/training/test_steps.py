"""The steps: what they give is the update's, however it was cut; the first ratio is 1; nothing compiles twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.data.batch import empty_batch
from r1jax.data.packing import micro_batches, pack
from r1jax.losses import PolicyLoss, grpo_loss
from r1jax.models import abstract_params
from r1jax.training import MicroStep, ZeroGrads, copy_params, grpo_token_loss, sft_token_loss


def flat(tree):
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


def assert_same_update(one, other, tolerance):
    (grads, metrics), (other_grads, other_metrics) = one, other
    norm = np.linalg.norm(flat(grads))
    assert norm > 0.01
    assert np.linalg.norm(flat(grads) - flat(other_grads)) < tolerance * norm
    for name, value in metrics.items():
        assert abs(value - other_metrics[name]) < 10 * tolerance * max(1, abs(value)), name


def test_one_update_however_it_is_cut(tiny):
    """Invariant 1 through a model, float32: microbatching, order, packing, padding."""
    params = tiny.parameters()
    whole = tiny.accumulate(tiny.micro_step, tiny.zero_grads, params, tiny.batch(), 2)
    # Other rows: every sequence has other neighbours, and there is a row of padding.
    items = tiny.sequences()
    ways = [
        tiny.weighted(pack(items[::-1], 32, 6)),
        _concatenate([pack(items[i : i + 2], 32, 2) for i in range(0, 12, 2)], tiny),
    ]
    for batch in ways:
        assert_same_update(whole, tiny.accumulate(tiny.micro_step, tiny.zero_grads, params, batch, 2), 1e-4)
    reversed_parts = tiny.batch()
    reversed_parts = type(reversed_parts)(*(None if x is None else x[::-1] for x in reversed_parts))
    assert_same_update(whole, tiny.accumulate(tiny.micro_step, tiny.zero_grads, params, reversed_parts, 2), 1e-4)


def _concatenate(batches, tiny):
    joined = [None if x[0] is None else np.concatenate(x) for x in zip(*batches)]
    return tiny.weighted(type(batches[0])(*joined))


@pytest.mark.slow
def test_one_update_however_it_is_cut_in_float64(tiny):
    with jax.enable_x64(True):
        config, layout = tiny.config, tiny.layout
        params = tiny.any_parameters(config, layout, jnp.float64)
        step = MicroStep(config, layout, grpo_token_loss(tiny.loss), compute_dtype=jnp.float64)
        zero_grads = ZeroGrads(config, layout, dtype=jnp.float64)
        whole = tiny.accumulate(step, zero_grads, params, tiny.batch(), 2)
        items = tiny.sequences()
        other = _concatenate([pack(items[i : i + 3], 32, 2) for i in range(0, 12, 3)], tiny)
        assert_same_update(whole, tiny.accumulate(step, zero_grads, params, other, 2), 1e-9)
        assert jax.tree.leaves(whole[0])[0].dtype == jnp.float64


@pytest.mark.parametrize(
    "sizes", [(2, 2, 2), pytest.param((8, 1, 1), marks=pytest.mark.slow), pytest.param((1, 4, 2), marks=pytest.mark.slow)]
)
def test_one_update_on_any_mesh(tiny, sizes, compilations):
    config = tiny.config
    whole = tiny.accumulate(tiny.micro_step, tiny.zero_grads, tiny.parameters(), tiny.batch(), 2)
    layout = tiny.make_layout(sizes)
    compilations.clear()
    step = MicroStep(config, layout, grpo_token_loss(tiny.loss), temperature=0.7)
    params = tiny.any_parameters(config, layout)
    batch = tiny.weighted(pack(tiny.sequences(), 32, 8))
    assert_same_update(whole, tiny.accumulate(step, ZeroGrads(config, layout), params, batch, 8), 1e-4)
    assert compilations["micro_step"] == 1


def test_a_token_s_weight_is_read_and_another_s_is_not(tiny):
    """What invariant 1 would not see: a mask or a shift that is wrong in the same way everywhere."""
    params = tiny.parameters()
    batch = next(micro_batches(tiny.batch(), 2))
    for place in [tuple(p) for p in np.argwhere(batch.completion_mask > 0)[::7]]:
        alone = batch._replace(token_weight=np.zeros_like(batch.token_weight))
        alone.token_weight[place] = 1.0
        _, metrics = tiny.micro_step(params, tiny.zero_grads(), alone)
        row, t = place
        start = np.flatnonzero(batch.segment_ids[row] == batch.segment_ids[row, t])[0]
        # The sequence by itself, up to this token, in a row of its own.
        single = empty_batch(*batch.tokens.shape)
        for name in ("tokens", "positions"):
            getattr(single, name)[0, : t + 1 - start] = getattr(batch, name)[row, start : t + 1]
        single.segment_ids[0, : t + 1 - start] = 1
        with tiny.layout.use():
            logprobs, entropy = tiny.score.jitted(params, tiny.layout.put(single, ("batch", "sequence")))
        expected, _ = grpo_loss(
            logprobs[0, t - start], batch.old_logprobs[place], batch.advantages[place], np.float32(1),
            ref_logprobs=batch.ref_logprobs[place], config=tiny.loss,
        )  # fmt: skip
        np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(metrics["entropy"], entropy[0, t - start], rtol=1e-5)


def test_the_first_ratio_is_one(tiny):
    """Invariant 2: from separately computed log-probabilities, over whole updates, not only at initialisation."""
    state = tiny.state(reference=copy_params(tiny.parameters(), jnp.float32))
    first = None
    for seed in range(4):
        batch = tiny.batch(seed=seed)
        parts = list(micro_batches(batch, 2))
        old = np.concatenate([tiny.score(state.params, part) for part in parts])
        ref = np.concatenate([tiny.score(state.reference, part) for part in parts])
        batch = batch._replace(old_logprobs=old, ref_logprobs=ref, sampler_logprobs=old)
        grads, metrics = tiny.accumulate(tiny.micro_step, tiny.zero_grads, state.params, batch, 2)
        assert metrics["ratio_max"] == 1 and metrics["kl_old"] == 0
        assert metrics["clip_low"] == 0 and metrics["clip_high"] == 0
        assert abs(metrics["ratio_mean"] - 1) < 1e-7  # the mean of ones, in float32
        assert (metrics["kl_ref"] == 0) == (seed == 0)
        first = first or (batch, copy_params(grads, jnp.float32))
        state, _ = tiny.apply_step(state, grads)
    # Were the old policy another one, or the temperature, it would show.
    _, metrics = tiny.accumulate(tiny.micro_step, tiny.zero_grads, state.params, first[0], 2)
    assert metrics["ratio_max"] > 1 and metrics["kl_old"] > 0
    # The way without an old pass is the same update.
    skipping = MicroStep(tiny.config, tiny.layout, grpo_token_loss(tiny.loss, on_policy=True), temperature=0.7)
    blind = first[0]._replace(old_logprobs=np.full_like(first[0].old_logprobs, np.nan))
    grads, metrics = tiny.accumulate(skipping, tiny.zero_grads, tiny.parameters(), blind, 2)
    assert metrics["ratio_max"] == 1
    np.testing.assert_allclose(flat(grads), flat(first[1]), rtol=0, atol=1e-7)


def test_scores_are_zero_where_nothing_is_predicted(tiny):
    batch = next(micro_batches(tiny.batch(), 2))
    logprobs = np.asarray(tiny.score(tiny.parameters(), batch))
    predicted = (batch.segment_ids > 0) & (batch.positions > 0)
    assert (logprobs[~predicted] == 0).all() and (logprobs[predicted] < 0).all()


def test_padding_changes_nothing(tiny):
    """Tokens and values in padding and in prompts are not read."""
    params, batch = tiny.parameters(), next(micro_batches(tiny.batch(), 2))
    padding, idle = batch.segment_ids == 0, batch.completion_mask == 0
    junk = {name: np.where(idle, np.nan, getattr(batch, name)) for name in ("advantages", "old_logprobs", "ref_logprobs")}
    other = batch._replace(tokens=np.where(padding, 63, batch.tokens).astype(np.int32), **junk)
    assert padding.any()
    grads, metrics = tiny.micro_step(params, tiny.zero_grads(), batch)
    other_grads, other_metrics = tiny.micro_step(params, tiny.zero_grads(), other)
    assert metrics["loss"] == other_metrics["loss"]
    assert (flat(grads) == flat(other_grads)).all()


def test_the_gradient_is_that_of_finite_differences(tiny):
    with jax.enable_x64(True):
        config, layout = tiny.config, tiny.layout
        step = MicroStep(config, layout, sft_token_loss, compute_dtype=jnp.float64)
        params = tiny.any_parameters(config, layout, jnp.float64)
        batch = next(micro_batches(tiny.batch(), 2))
        zero = ZeroGrads(config, layout, dtype=jnp.float64)
        grads, _ = step(params, zero(), batch)
        rng = np.random.default_rng(0)
        direction = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
        slope = flat(grads) @ flat(direction)
        losses = []
        for move in (1e-5, -1e-5):
            moved = jax.tree.map(lambda p, d, m=move: jax.device_put(np.asarray(p) + m * d, p.sharding), params, direction)
            losses.append(step(moved, zero(), batch)[1]["loss"])
        np.testing.assert_allclose((losses[0] - losses[1]) / 2e-5, slope, rtol=1e-6)


def test_nothing_compiles_twice_and_the_accumulator_is_donated(tiny, compilations):
    """Parameters fresh or updated, batches on the host or the mesh: one program each."""
    state, batch = tiny.state(), next(micro_batches(tiny.batch(), 2))
    micro_step = MicroStep(tiny.config, tiny.layout, sft_token_loss)
    for part in (batch, tiny.layout.put(batch, ("batch", "sequence"))):
        grads = tiny.zero_grads()
        new, _ = micro_step(state.params, grads, part)
        assert all(x.is_deleted() for x in jax.tree.leaves(grads))
        new, _ = micro_step(state.params, new, part)
        tiny.score(state.params, part)
        state, _ = tiny.apply_step(state, new)
    assert compilations["micro_step"] == 1
    assert max(compilations[name] for name in ("score", "apply_step")) <= 1  # shared with other tests


def test_bfloat16_compute_leaves_float32_gradients(tiny):
    config, layout = tiny.config, tiny.layout
    step = MicroStep(config, layout, grpo_token_loss(tiny.loss), temperature=0.7, compute_dtype=jnp.bfloat16)
    params, batch = tiny.parameters(), tiny.batch()
    grads, metrics = tiny.accumulate(step, tiny.zero_grads, params, batch, 2)
    exact, _ = tiny.accumulate(tiny.micro_step, tiny.zero_grads, params, batch, 2)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(grads))
    error = np.linalg.norm(flat(grads) - flat(exact)) / np.linalg.norm(flat(exact))
    assert 1e-5 < error < 0.05


def test_temporary_memory_has_no_logits(tiny):
    """Compiled, not run: 8,192 tokens of which 1,024 have logits at a time."""
    config = tiny.model_config(vocab_size=65536, num_hidden_layers=1)
    step = MicroStep(config, tiny.layout, grpo_token_loss(PolicyLoss()))
    params = abstract_params(config)
    with tiny.layout.use():
        found = step.jitted.lower(params, params, empty_batch(8, 1024)).compile().memory_analysis()
    logits = 4 * 8 * 1024 * 65536
    assert found.temp_size_in_bytes < logits  # which a naive loss holds at least twice
    assert found.alias_size_in_bytes >= sum(4 * np.prod(x.shape) for x in jax.tree.leaves(params))

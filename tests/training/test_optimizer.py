"""AdamW against its formulas, schedules at their corners, the clip over the whole, and where the state lies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.config import OptimizerSettings
from r1jax.models import abstract_params
from r1jax.models.published import PUBLISHED
from r1jax.training import (
    ApplyStep,
    ZeroGrads,
    abstract_state,
    copy_params,
    init_state,
    learning_rate,
    make_optimizer,
)


def gradients(zero_grads, seed, scale=1.0):
    leaves, tree = jax.tree.flatten(zero_grads())
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(
        tree, [jax.device_put(np.float32(rng.normal(size=x.shape) * scale), x.sharding) for x in leaves]
    )


def leaves(tree):
    return {jax.tree_util.keystr(path): np.asarray(x, np.float64) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_adamw(tiny, clip_norm, compilations):
    """Three updates in NumPy, with decay on kernels and embeddings only."""
    settings = OptimizerSettings(lr=1e-2, b1=0.8, b2=0.9, weight_decay=0.3, clip_norm=clip_norm, schedule="linear")
    optimizer = make_optimizer(settings, 3)
    state = init_state(tiny.config, tiny.parameters(), optimizer, tiny.layout)
    apply_step = ApplyStep(tiny.config, optimizer, tiny.layout)
    expected = leaves(state.params)
    first, second = ({name: 0 * x for name, x in expected.items()} for _ in range(2))
    for k, rate in enumerate([1e-2, 1e-2 * (1 - 0.9 / 2), 1e-3]):
        given = gradients(tiny.zero_grads, k, scale=0.1)
        values = leaves(given)
        norm = np.sqrt(sum((g**2).sum() for g in values.values()))
        assert norm > 1
        state, metrics = apply_step(state, given)
        np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
        np.testing.assert_allclose(metrics["lr"], rate, rtol=1e-5)
        for name, g in values.items():
            g = g / norm if clip_norm else g
            first[name] = 0.8 * first[name] + 0.2 * g
            second[name] = 0.9 * second[name] + 0.1 * g**2
            update = first[name] / (1 - 0.8 ** (k + 1)) / (np.sqrt(second[name] / (1 - 0.9 ** (k + 1))) + 1e-8)
            decay = 0.3 if name.endswith(("['kernel']", "['embedding']")) else 0.0
            expected[name] = expected[name] - rate * (update + decay * expected[name])
    for name, value in leaves(state.params).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-5, err_msg=name)
    assert any(name.endswith("['scale']") for name in expected) and any(name.endswith("['bias']") for name in expected)
    assert state.step == 3 and compilations["apply_step"] == 1


@pytest.mark.slow
def test_everything_but_scales_and_biases_is_decayed_and_what_is_held_is_not():
    """The experts' matrices too, which lie in the tree without a kernel's name."""
    params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), abstract_params(PUBLISHED["tiny-deepseek-v3"].config))
    for held in ((), ("mtp",)):
        transform = make_optimizer(OptimizerSettings(weight_decay=0.25), 10, held=held).transform
        updates, _ = transform.update(jax.tree.map(np.zeros_like, params), transform.init(params), params)
        for path, update in jax.tree_util.tree_leaves_with_path(updates):
            matrix = path[-1].key not in ("scale", "bias") and (path[0].key != "mtp" or not held)
            np.testing.assert_array_equal(update, 0.25 * matrix, err_msg=jax.tree_util.keystr(path))
    assert {"gate", "up", "down", "router"} < set(updates["mtp"]["block"]["moe"])


def test_a_small_gradient_is_not_scaled_up(tiny):
    optimizer = make_optimizer(OptimizerSettings(lr=1.0, clip_norm=1.0), 3)
    state = init_state(tiny.config, tiny.parameters(), optimizer, tiny.layout)
    given = gradients(tiny.zero_grads, 0, scale=1e-5)
    values = leaves(given)
    state, metrics = ApplyStep(tiny.config, optimizer, tiny.layout)(state, given)
    assert metrics["grad_norm"] < 1
    moments = leaves(state.opt_state)
    for name, g in values.items():
        found = [m for n, m in moments.items() if ".mu" in n and n.endswith(name)]
        np.testing.assert_allclose(found[0], 0.1 * g, rtol=1e-5)


def test_an_update_of_3e_6_changes_the_master_weights(tiny):
    """Invariant 11: in bfloat16 weights of size 0.1 and more would not move."""
    optimizer = make_optimizer(OptimizerSettings(lr=3e-6), 10)
    state = init_state(tiny.config, tiny.parameters(), optimizer, tiny.layout)
    before = leaves(state.params)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state.params))
    state, _ = ApplyStep(tiny.config, optimizer, tiny.layout)(state, gradients(tiny.zero_grads, 0))
    for name, value in leaves(state.params).items():
        assert (value != before[name]).mean() > 0.99, name
        np.testing.assert_allclose(np.abs(value - before[name]), 3e-6, atol=5e-7)
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.params)
    same = [
        (np.asarray(x, np.float64) == np.asarray(jnp.bfloat16(before[n]), np.float64)).mean()
        for n, x in leaves(rounded).items()
    ]
    assert np.mean(same) > 0.9


def test_a_gradient_that_is_not_finite_changes_nothing(tiny):
    state = tiny.state()
    before = leaves((state.params, state.opt_state))
    for bad in (np.nan, np.inf):
        given = gradients(tiny.zero_grads, 0)
        given["final_norm"]["scale"] = given["final_norm"]["scale"].at[3].set(bad)
        state, metrics = tiny.apply_step(state, given)
        assert metrics["skipped"] == 1 and not np.isfinite(metrics["grad_norm"])
        after = leaves((state.params, state.opt_state))
        assert all((after[name] == before[name]).all() for name in before)
    state, metrics = tiny.apply_step(state, gradients(tiny.zero_grads, 0))
    assert metrics["skipped"] == 0 and state.step == 3


def test_the_state_is_donated_and_the_gradients_are_freed(tiny):
    state, given = tiny.state(), gradients(tiny.zero_grads, 0)
    reference = copy_params(state.params, jnp.float32)
    new, _ = tiny.apply_step(state._replace(reference=reference), given)
    assert all(x.is_deleted() for x in jax.tree.leaves((state.params, state.opt_state, given)))
    assert not any(x.is_deleted() for x in jax.tree.leaves(new))  # the reference among them
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(new.reference), jax.tree.leaves(reference)))


def test_bfloat16_moments_are_half_the_size_and_close(tiny):
    results = []
    for moments in ("float32", "bfloat16"):
        optimizer = make_optimizer(OptimizerSettings(lr=1e-2, moments_dtype=moments), 10)
        state = init_state(tiny.config, tiny.parameters(), optimizer, tiny.layout)
        apply_step = ApplyStep(tiny.config, optimizer, tiny.layout)
        for k in range(3):
            state, _ = apply_step(state, gradients(tiny.zero_grads, k))
        kinds = {x.dtype for x in jax.tree.leaves(state.opt_state) if x.ndim}
        assert kinds == {jnp.dtype(moments)}
        results.append(state)
    difference = [np.abs(a - b).max() for a, b in zip(*(leaves(s.params).values() for s in results))]
    assert 0 < max(difference) < 3e-3  # of three updates of about 1e-2


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 8, 1)])
def test_moments_lie_where_their_parameters_do(tiny, sizes):
    layout = tiny.make_layout(sizes)
    optimizer = make_optimizer(OptimizerSettings(weight_decay=0.1), 10)
    params = tiny.any_parameters(tiny.config, layout)
    state = init_state(tiny.config, params, optimizer, layout, reference=copy_params(params, jnp.bfloat16))
    grads = ZeroGrads(tiny.config, layout)()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        name = jax.tree_util.keystr(path)
        for tree in (state.opt_state, state.reference, grads):
            found = [x for p, x in jax.tree_util.tree_leaves_with_path(tree) if jax.tree_util.keystr(p).endswith(name)]
            assert found and all(x.sharding.is_equivalent_to(leaf.sharding, x.ndim) for x in found), name
    kernel = state.params["layers"]["mlp"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // (sizes[1] * sizes[2])
    abstract = abstract_state(tiny.config, optimizer, layout, jnp.bfloat16)
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    for a, x in zip(jax.tree.leaves(abstract), jax.tree.leaves(state)):
        assert (a.shape, a.dtype) == (x.shape, x.dtype) and a.sharding.is_equivalent_to(x.sharding, x.ndim)


@pytest.mark.parametrize(
    "schedule, expected",
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.7, 0.4, 0.1]),
        ("cosine", [0.5, 1.0, 1.0, 0.1 + 0.9 * 0.75, 0.1 + 0.9 * 0.25, 0.1]),
    ],
)
def test_schedules(schedule, expected):
    settings = OptimizerSettings(lr=2.0, schedule=schedule, warmup_steps=2, final_lr_ratio=0.1)
    rate = learning_rate(settings, 6)
    np.testing.assert_allclose([rate(k) for k in range(6)], 2.0 * np.array(expected), rtol=1e-6)
    np.testing.assert_allclose(rate(100), 2.0 * expected[-1], rtol=1e-6)  # and no further


@pytest.mark.parametrize(
    "keywords, words",
    [
        ({"schedule": "step"}, "'step' is unknown; known: constant, linear, cosine"),
        ({"moments_dtype": "float16"}, "'float16' is unknown"),
        ({"lr": -1.0}, "optimizer.lr can't be -1.0"),
        ({"b2": 1.0}, "optimizer.b2 can't be 1.0"),
        ({"clip_norm": float("nan")}, "optimizer.clip_norm can't be nan"),
    ],
)
def test_bad_settings_are_named(keywords, words):
    with pytest.raises(ValueError, match=words):
        make_optimizer(OptimizerSettings(**keywords), 10)

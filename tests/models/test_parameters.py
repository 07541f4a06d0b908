"""A parameter is declared once: shapes, axes, shardings, initial values and counts come from that."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import models, sharding
from r1jax.models import ModelConfig

CONFIG = ModelConfig("qwen2", 64, 16, 48, 3, 4, 2, 4, qkv_bias=True, initializer_range=0.05)


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: isinstance(x, tuple))
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def test_shapes_and_names_are_those_of_the_agreement():
    shapes = {name: x.shape for name, x in flat(models.abstract_params(CONFIG)).items()}
    assert shapes == {
        "embed/embedding": (64, 16),
        "layers/input_norm/scale": (3, 16),
        "layers/attention/q/kernel": (3, 16, 4, 4),
        "layers/attention/q/bias": (3, 4, 4),
        "layers/attention/k/kernel": (3, 16, 2, 4),
        "layers/attention/k/bias": (3, 2, 4),
        "layers/attention/v/kernel": (3, 16, 2, 4),
        "layers/attention/v/bias": (3, 2, 4),
        "layers/attention/o/kernel": (3, 4, 4, 16),
        "layers/post_attention_norm/scale": (3, 16),
        "layers/mlp/gate/kernel": (3, 16, 48),
        "layers/mlp/up/kernel": (3, 16, 48),
        "layers/mlp/down/kernel": (3, 48, 16),
        "final_norm/scale": (16,),
        "head/kernel": (16, 64),
    }


def test_every_dimension_has_an_axis_that_both_tables_know():
    shapes, axes = flat(models.abstract_params(CONFIG)), flat(models.logical_axes(CONFIG))
    assert shapes.keys() == axes.keys()
    mesh = sharding.make_mesh(1, 4, 2)
    for rules in (sharding.TRAIN_RULES, sharding.ROLLOUT_RULES):
        shardings = flat(models.param_shardings(CONFIG, sharding.layout(mesh, rules)))
        for name, x in shapes.items():
            assert len(axes[name]) == len(x.shape), name
            assert shardings[name].spec == sharding.layout(mesh, rules).spec(axes[name])


def test_the_count_is_of_these_shapes():
    by_hand = 2 * 64 * 16 + 16 + 3 * (2 * 16 + 16 * 16 * 2 + 16 * 8 * 2 + 16 + 8 + 8 + 3 * 16 * 48)
    assert models.count_params(CONFIG) == by_hand
    tied = dataclasses.replace(CONFIG, tie_word_embeddings=True)
    assert models.count_params(tied) == by_hand - 64 * 16


@pytest.mark.parametrize("dtype", [pytest.param(jnp.float32, marks=pytest.mark.slow), jnp.bfloat16])
def test_initial_values_have_their_scale_dtype_and_sharding(dtype):
    layout = sharding.layout(sharding.make_mesh(1, 4, 2), sharding.TRAIN_RULES)
    params = models.init_params(CONFIG, jax.random.key(1), layout, dtype)
    shardings = flat(models.param_shardings(CONFIG, layout))
    for name, x in flat(params).items():
        assert x.dtype == dtype and x.sharding.is_equivalent_to(shardings[name], x.ndim), name
        values = np.asarray(x, np.float32)
        if name.endswith("scale"):
            assert (values == 1).all()
        elif name.endswith("bias"):
            assert (values == 0).all()
        else:
            assert abs(values.std() / 0.05 - 1) < 0.2 and abs(values.mean()) < 0.01, name
    layers = np.asarray(params["layers"]["mlp"]["up"]["kernel"], np.float32)
    assert np.abs(np.corrcoef(layers.reshape(3, -1)) - np.eye(3)).max() < 0.2  # each layer its own draw


@pytest.mark.slow
def test_the_key_decides_and_the_mesh_does_not():
    layout = sharding.layout(sharding.make_mesh(2, 2, 2), sharding.TRAIN_RULES)
    alone, spread = (models.init_params(CONFIG, jax.random.key(7), where) for where in (None, layout))
    # The same draws; jax 0.12 rounds the inverse error function of a shard otherwise than that of the whole.
    jax.tree.map(lambda a, b: np.testing.assert_array_max_ulp(np.asarray(a), np.asarray(b), maxulp=4), alone, spread)
    other = models.init_params(CONFIG, jax.random.key(8))
    assert np.any(np.asarray(other["embed"]["embedding"]) != np.asarray(alone["embed"]["embedding"]))


@pytest.mark.parametrize(
    "wrong, named",
    [
        (dict(architecture="gpt2"), "gpt2"),
        (dict(num_key_value_heads=3), "num_key_value_heads 3"),
        (dict(head_dim=5), "head_dim 5"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(wrong, named):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(CONFIG, **wrong)

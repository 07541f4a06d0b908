"""Meshes, tables of axes, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from r1jax import sharding
from r1jax.sharding import ROLLOUT_RULES, TRAIN_RULES, Layout, constrain, layout, make_mesh


def test_one_size_takes_what_is_left():
    mesh = make_mesh(data=2, fsdp=-1, tensor=2)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert dict(make_mesh(devices=jax.devices()[:1]).shape) == {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize("sizes", [(3, -1, 1), (2, 2, 1), (-1, -1, 1), (0, -1, 1), (16, 1, 1), (-2, 1, 1)])
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ValueError, match="mesh"):
        make_mesh(*sizes)


def test_specs_follow_the_table():
    spread = layout(make_mesh(2, 2, 2), TRAIN_RULES)
    assert spread.spec(("batch", None, "activation_heads")) == PartitionSpec(("data", "fsdp"), None, "tensor")
    assert layout(make_mesh(2, 2, 2), ROLLOUT_RULES).spec(("embed", "ffw")) == PartitionSpec(None, "tensor")
    assert spread.batch_shards == 4 and layout(make_mesh(1, 1, 8), TRAIN_RULES).batch_shards == 1


def test_two_dimensions_on_one_mesh_axis_are_refused():
    spread = layout(make_mesh(), TRAIN_RULES)
    with pytest.raises(ValueError, match="'fsdp'"):
        spread.spec(("batch", "embed"))
    with pytest.raises(KeyError, match="nonsense"):
        spread.spec(("nonsense",))


def test_both_tables_know_the_same_axes():
    assert TRAIN_RULES.keys() == ROLLOUT_RULES.keys()


def test_platform_is_the_meshs():
    class Device:
        platform = "tpu"

    class Mesh:
        devices = np.array([Device()], object)

    assert Layout(Mesh(), ()).platform == "tpu"
    assert layout(make_mesh(), TRAIN_RULES).platform == "cpu"


def test_put_shards_leading_dimensions_or_replicates():
    spread = layout(make_mesh(4, 1, 2), TRAIN_RULES)
    placed = spread.put({"wide": np.zeros((8, 3)), "flat": np.zeros(4)}, ("batch", None))
    assert placed["wide"].sharding.is_equivalent_to(spread.sharding(("batch", None)), 2)
    assert placed["flat"].addressable_shards[0].data.shape == (1,)
    assert spread.put(np.zeros((8, 3))).sharding.is_fully_replicated


def test_constraints_hold_inside_a_layout_and_are_nothing_outside():
    x = jnp.zeros((8, 4))
    assert constrain(x, "batch", None) is x
    spread = layout(make_mesh(), TRAIN_RULES)
    with spread.use() as inside:
        assert sharding.current() is inside is spread
        assert jax.jit(lambda x: constrain(x, "batch", None))(x).sharding.is_equivalent_to(
            spread.sharding(("batch", None)), 2
        )
    assert sharding.current() is None


def test_layouts_nest_and_can_be_hashed():
    train, rollout = layout(make_mesh(), TRAIN_RULES), layout(make_mesh(), ROLLOUT_RULES)
    assert hash(train) == hash(layout(make_mesh(), TRAIN_RULES)) and train != rollout
    with train.use():
        with pytest.raises(RuntimeError), rollout.use():
            raise RuntimeError
        assert sharding.current() is train

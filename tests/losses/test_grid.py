"""Invariant 1: an update's loss, gradient and metrics, whatever the micro-batches, order, packing, padding, mesh and rule."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from losskit import checks
from losskit.algorithms import ALGORITHMS

RULES = ("sequence_mean", "token_mean", "constant_length")
PER_SEQUENCE = {
    **checks.NUMBERS,
    "ratio": "sequence",
    "surrogate": "clip",
    "correction": "mask",
    "correction_level": "sequence",
    "kl": "k3_unbiased",
    "off_policy_delta": 0.15,
    "entropy_coefficient": 0.1,
}


def meshes():
    out = [((8,), ("data",), "data"), ((2, 4), ("data", "fsdp"), ("data", "fsdp")), ((4, 2), ("data", "tensor"), "data")]
    for shape, names, rows in out:
        for kind in (AxisType.Auto, AxisType.Explicit):
            yield NamedSharding(jax.make_mesh(shape, names, axis_types=(kind,) * len(names)), PartitionSpec(rows))


@pytest.mark.parametrize("rule", RULES)
def test_grpo(losses, rule):
    checks.invariant_1(losses, {**checks.NUMBERS, "kl": "k3"}, rule)


def test_everything_that_is_per_sequence(losses):
    checks.invariant_1(losses, PER_SEQUENCE, "sequence_mean", meshes=list(meshes())[-1:])


@pytest.mark.slow
def test_everything_that_is_per_sequence_in_float64(losses):
    checks.invariant_1(losses, PER_SEQUENCE, "token_mean", np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_published_algorithms(losses, algorithm):
    composition, rule = ALGORITHMS[algorithm]
    checks.invariant_1(losses, composition, rule, meshes=list(meshes())[:1])


@pytest.mark.slow
@pytest.mark.parametrize("which", range(6))
def test_more_compositions_on_every_mesh(losses, which):
    composition = checks.sample_of_compositions(6, seed=7)[which]
    checks.invariant_1(losses, composition, RULES[which % 3], seed=which, meshes=meshes())
    checks.invariant_1(losses, composition, RULES[which % 3], np.float64, seed=which)

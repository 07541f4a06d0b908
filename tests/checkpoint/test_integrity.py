"""Checksums: equal on host and devices and for every layout, changed by every change; finiteness by bits."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from r1jax.checkpoint.integrity import CheckpointError, checksum, checksums, describe, device_checksums, is_finite, verify
from r1jax.sharding import ROLLOUT_RULES, layout, make_mesh

DTYPES = [np.float32, ml_dtypes.bfloat16, np.float16, np.int32, np.uint8, np.int8, np.bool_, ml_dtypes.float8_e4m3fn]


def sample(dtype, shape=(12, 8, 3), seed=0):
    values = np.random.default_rng(seed).normal(size=shape) * 50
    return (values > 0) if dtype is np.bool_ else values.astype(np.int16).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_host_and_every_layout_agree(dtype):
    array = sample(dtype)
    place = layout(make_mesh(1, 4, 2), {**ROLLOUT_RULES, "embed": "fsdp"})
    spread = {
        "one": jnp.asarray(array),
        "replicated": jax.device_put(array, place.replicated),
        "rows": jax.device_put(array, place.sharding(("embed", "heads", None))),
        "columns": jax.device_put(array, place.sharding(("heads", "embed", None))),
    }
    assert set(checksums(spread).values()) == {checksum(array)}
    for x in spread.values():  # what an accelerator would run
        assert device_checksums([x]).tolist() == [checksum(array)]


def test_eight_byte_types():
    with jax.enable_x64(True):
        for dtype in (np.float64, np.int64):
            array = sample(dtype)
            place = layout(make_mesh(1, 4, 2), ROLLOUT_RULES)
            for x in (jnp.asarray(array), jax.device_put(array, place.sharding(("batch", "heads", None)))):
                assert x.dtype == dtype
                assert checksums({"x": x})["x"] == device_checksums([x]).tolist()[0] == checksum(array)


def test_long_arrays_are_summed_in_pieces():
    array = np.random.default_rng(0).normal(size=(1 << 20) + 17).astype(np.float32)
    assert checksums({"x": jnp.asarray(array)})["x"] == device_checksums([jnp.asarray(array)]).tolist()[0] == checksum(array)


def test_every_flipped_bit_and_every_exchange_changes_the_sum():
    array = sample(np.float32, (6, 4))
    before = checksum(array)
    for position in range(array.size):
        for bit in range(32):
            changed = array.copy()
            changed.reshape(-1).view(np.uint32)[position] ^= np.uint32(1 << bit)
            assert checksum(changed) != before
    assert checksum(np.roll(array, 1, 0)) != before
    assert checksum(array[::-1]) != before


def test_verify_names_what_is_damaged():
    arrays = {"a": np.arange(3), "b": np.ones((2, 2), np.float32)}
    manifest = describe(arrays)
    verify(arrays, manifest, "here")
    with pytest.raises(CheckpointError, match="here: b is damaged"):
        verify({**arrays, "b": np.zeros((2, 2), np.float32)}, manifest, "here")


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16], ids=lambda d: np.dtype(d).name)
def test_finite(dtype):
    array = np.linspace(-60_000, 60_000, 50).astype(dtype)
    assert is_finite(array)
    for bad in (np.nan, np.inf, -np.inf):
        array[17] = bad
        assert not is_finite(array)
    assert is_finite(np.zeros((0,), dtype)) and is_finite(np.zeros((), dtype))

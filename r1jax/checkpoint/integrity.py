"""What is checked of every array that is read: a sum over its bits, and that its numbers are finite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

# Odd, so that a changed bit always changes the sum; depends on the position, so that exchanged entries do too.
_MULTIPLIER = np.uint32(2_654_435_761)
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint32}
_CHUNK = 1 << 20  # entries looked at together on the host, so that its temporaries stay in cache


class CheckpointError(ValueError):
    """A model or state on disk that can't be used; the message names file or tensor, what is wrong and the remedy."""


def _weighted(words: Any, position: Any, np_or_jnp: Any) -> Any:
    return np_or_jnp.sum(words.astype(np.uint32) * (position * _MULTIPLIER * np.uint32(2) + np.uint32(1)), dtype=np.uint32)


def checksum(array: np.ndarray, start: Sequence[int] = (), shape: Sequence[int] = ()) -> int:
    """Sum over an array's bits, modulo 2**32, each word weighted by its position in row-major order.

    Args:
      array: on the host.
      start, shape: where ``array`` is the block from ``start`` of a larger array of ``shape``: what it adds to that one's.
    """
    array = np.ascontiguousarray(array)
    word = np.dtype(_WORDS[array.dtype.itemsize])
    if start:
        words = array.view(word).reshape(*array.shape, -1)  # the last axis: words of an entry
        start, shape = (*start, 0), (*shape, words.shape[-1])
    else:
        words = array.reshape(-1).view(word)
        start, shape = (0,), words.shape
    rows = max(1, _CHUNK * len(words) // max(1, words.size))
    total = 0
    for row in range(0, len(words), rows):
        chunk = words[row : row + rows]
        position = np.zeros((), np.uint32)
        for axis, size in enumerate(chunk.shape):
            first = start[axis] + (row if axis == 0 else 0)
            steps = np.arange(first, first + size, dtype=np.uint64) * math.prod(shape[axis + 1 :])
            position = position + steps.astype(np.uint32).reshape(-1, *(1,) * (chunk.ndim - 1 - axis))
        total += int(_weighted(chunk, position, np))
    return total % (1 << 32)


def _device_checksum(array: jax.Array) -> jax.Array:
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    words = jax.lax.bitcast_convert_type(array, _WORDS[array.dtype.itemsize])  # 8-byte types gain a last axis of 2
    position = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        stride = np.uint32(math.prod(words.shape[axis + 1 :]) % (1 << 32))
        position += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * stride
    return _weighted(words, position, jnp)


@jax.jit
def device_checksums(arrays: Sequence[jax.Array]) -> jax.Array:
    """``checksum`` of arrays that are spread over one mesh, where they lie: uint32 ``[len(arrays)]``."""
    return jnp.stack([_device_checksum(array) for array in arrays])


def _devices(array: jax.Array) -> tuple[Any, ...]:
    sharding = array.sharding
    return tuple(sharding.mesh.devices.flat if isinstance(sharding, NamedSharding) else sorted(sharding.device_set, key=str))


def checksums(arrays: Mapping[str, Any]) -> dict[str, int]:
    """``checksum`` of each array: the same number whatever mesh it is spread over.

    In this process's own memory they are summed by numpy, which compiles nothing; elsewhere on the devices, by one
    program per set of shapes (call it once at a stage's start to have it compiled).
    """
    sums: dict[str, int] = {}
    groups: dict[Any, list[str]] = {}
    for name, array in arrays.items():
        if not isinstance(array, jax.Array):
            sums[name] = checksum(np.asarray(array))
        elif array.is_fully_addressable and _devices(array)[0].platform == "cpu":
            shards = [shard for shard in array.addressable_shards if shard.replica_id == 0]
            starts = [[part.start or 0 for part in shard.index] for shard in shards]
            parts = (checksum(np.asarray(shard.data), start, array.shape) for shard, start in zip(shards, starts))
            sums[name] = sum(parts) % (1 << 32)
        else:
            groups.setdefault(_devices(array), []).append(name)
    for names in groups.values():
        values = np.asarray(device_checksums([arrays[name] for name in names]))
        sums |= {name: int(value) for name, value in zip(names, values)}
    return {name: sums[name] for name in arrays}


def describe(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The manifest of named arrays: shape, dtype and sum of each."""
    sums = checksums(arrays)
    return {
        name: {
            "shape": list(np.shape(array)),
            "dtype": str(np.asarray(array).dtype if np.isscalar(array) else array.dtype),
            "sum": sums[name],
        }
        for name, array in arrays.items()
    }


def verify(arrays: Mapping[str, Any], manifest: Mapping[str, Mapping[str, Any]], where: Any) -> None:
    """Compares arrays that were read with their manifest.

    Raises:
      CheckpointError: one of them is not what was written.
    """
    for name, value in checksums(arrays).items():
        if value != manifest[name]["sum"]:
            raise CheckpointError(
                f"{where}: {name} is damaged: its checksum is not the one that was written; restore it from a copy"
            )


# The bits of the exponent; all of them set means infinite or not a number.
_EXPONENT = {
    "float64": (np.uint64, 0x7FF << 52),
    "float32": (np.uint32, 0xFF << 23),
    "float16": (np.uint16, 0x1F << 10),
    "bfloat16": (np.uint16, 0xFF << 7),
}


def is_finite(array: np.ndarray) -> bool:
    """Whether a floating array holds neither NaN nor infinity. Looks at bits: ml_dtypes has no fast ``isfinite``."""
    word, exponent = _EXPONENT[str(array.dtype)]
    bits = np.ascontiguousarray(array).reshape(-1).view(word)
    exponent = word(exponent)
    return all(bool(np.all((bits[i : i + _CHUNK] & exponent) != exponent)) for i in range(0, bits.size, _CHUNK))

"""Exporting models to Hugging Face's layout, loadable by transformers 4 and 5 and by ``load_model``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from r1jax.checkpoint.configuration import config_to_hf, generation_config_to_hf
from r1jax.checkpoint.directory import TOKENIZER_FILES, check_replaceable, copy_tokenizer, replacing
from r1jax.checkpoint.huggingface import Binding, bindings, flatten
from r1jax.checkpoint.integrity import CheckpointError, is_finite
from r1jax.checkpoint.tensor_files import INDEX, SINGLE, read_json, write_tensors
from r1jax.models.config import ModelConfig

_CONFIG, _GENERATION = "config.json", "generation_config.json"
_MARK = "r1jax_export"  # a key of config.json that transformers passes over

_Layout = dict[str, tuple[np.dtype, tuple[int, ...]]]


def _is_earlier_output(path: epath.Path) -> bool:
    names = {item.name for item in path.iterdir()}
    tensors = {name for name in names if name.startswith("model") and name.endswith(".safetensors")}
    known = {_CONFIG, _GENERATION, INDEX, *TOKENIZER_FILES, *tensors}
    return names <= known and _CONFIG in names and _MARK in read_json(path / _CONFIG)


def export_model(
    out_dir: epath.PathLike,
    config: ModelConfig,
    params: Any,
    tokenizer_dir: epath.PathLike | None = None,
    dtype: Any = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Writes safetensors (sharded beyond ``max_shard_bytes``), config.json, generation_config.json and the tokenizer.

    Args:
      out_dir: appears whole or not at all; an earlier export there is replaced.
      params: nested dict of jax or numpy arrays, of any dtype and layout.
      tokenizer_dir: whose tokenizer files are copied.
      dtype: of the tensors; None: the configuration's.

    Raises:
      CheckpointError: ``out_dir`` holds something else; parameters that the configuration does not describe, or with
        NaN or infinity (also when ``dtype`` can't hold their numbers); names the parameter. Nothing is left behind.
    """
    out_dir = epath.Path(out_dir).resolve()
    check_replaceable(out_dir, _is_earlier_output)
    written = config_to_hf(config)
    dtype = jnp.dtype(config.dtype if dtype is None else dtype)
    written |= {"dtype": str(dtype), "torch_dtype": str(dtype), _MARK: 1}
    bound, arrays = bindings(config), flatten(params)
    for name in (*bound, *arrays):
        shape = tuple(bound[name].sizes.values()) if name in bound else None
        if name not in arrays or arrays[name].shape != shape:
            is_shape = list(arrays[name].shape) if name in arrays else "missing"
            raise CheckpointError(
                f"parameter {name} is {is_shape}; the configuration asks for {list(shape) if shape else 'none'}"
            )
    shards = _shards(bound, dtype, max_shard_bytes)
    single = len(shards) == 1
    files = [SINGLE if single else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    with replacing(out_dir) as partial:
        tensors = _tensors(bound, arrays, dtype)
        for file, shard in zip(files, shards):
            write_tensors(partial / file, shard, (next(tensors) for _ in shard))
        if not single:
            weight_map = {name: file for file, shard in zip(files, shards) for name in shard}
            size = sum(_bytes(dtype, shape) for shard in shards for dtype, shape in shard.values())
            index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
            (partial / INDEX).write_text(json.dumps(index, indent=2) + "\n")
        (partial / _CONFIG).write_text(json.dumps(written, indent=2) + "\n")
        (partial / _GENERATION).write_text(json.dumps(generation_config_to_hf(config), indent=2) + "\n")
        if tokenizer_dir is not None:
            copy_tokenizer(tokenizer_dir, partial)


def _bytes(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * dtype.itemsize


def _shards(bound: Mapping[str, Binding], dtype: np.dtype, max_bytes: int) -> list[_Layout]:
    """Divides the tensors, in order, among files of at most ``max_bytes``; a larger tensor has a file for itself."""
    shards: list[_Layout] = [{}]
    size = 0
    for binding in bound.values():
        for _, name in binding.names():
            added = _bytes(dtype, binding.stored_shape)
            if shards[-1] and size + added > max_bytes:
                shards.append({})
                size = 0
            shards[-1][name] = (dtype, binding.stored_shape)
            size += added
    return shards


def _tensors(bound: Mapping[str, Binding], arrays: Mapping[str, Any], dtype: np.dtype) -> Iterator[np.ndarray]:
    """Every tensor in the order of ``_shards``; one parameter at a time is on the host."""
    for path, binding in bound.items():
        array = _on_host(arrays[path])
        if not is_finite(array):
            raise CheckpointError(f"parameter {path} holds NaN or infinity; it is not exported")
        for tensor in binding.write(array):
            with np.errstate(over="ignore"):
                converted = np.ascontiguousarray(tensor).astype(dtype, copy=False)
            if jnp.finfo(dtype).max < jnp.finfo(array.dtype).max and not is_finite(converted):
                raise CheckpointError(
                    f"parameter {path} holds numbers too large for {dtype}; export it in bfloat16 or float32"
                )
            yield converted


def _on_host(array: Any) -> np.ndarray:
    """A whole array, from its shards: ``np.asarray`` would keep the host's copy with the array."""
    if not isinstance(array, jax.Array):
        return np.asarray(array)
    host = np.empty(array.shape, array.dtype)
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            host[shard.index] = np.asarray(shard.data)
    return host

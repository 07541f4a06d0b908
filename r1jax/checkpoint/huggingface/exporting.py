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

from r1jax.checkpoint.directory import CARRIED_FILES, GENERATION, check_replaceable, copy_carried, replacing
from r1jax.checkpoint.huggingface.binding import Binding
from r1jax.checkpoint.huggingface.configuration import config_to_hf, generation_config_to_hf, quantisation_to_hf
from r1jax.checkpoint.huggingface.coverage import Kind, TensorMap
from r1jax.checkpoint.huggingface.fp8 import DEEPSEEK_BLOCK, FP8, Block, quantise
from r1jax.checkpoint.huggingface.tensor_files import INDEX, SINGLE, read_json, write_tensors
from r1jax.checkpoint.integrity import CheckpointError, is_finite
from r1jax.checkpoint.pieces import flatten, pieces
from r1jax.models.config import ModelConfig
from r1jax.reporting import Console

_CONFIG = "config.json"
_MARK = "r1jax_export"  # a key of config.json that transformers passes over


def _is_earlier_output(path: epath.Path) -> bool:
    names = {item.name for item in path.iterdir()}
    tensors = {name for name in names if name.startswith("model") and name.endswith(".safetensors")}
    known = {_CONFIG, INDEX, *CARRIED_FILES, *tensors}
    return names <= known and _CONFIG in names and _MARK in read_json(path / _CONFIG)


def export_model(
    out_dir: epath.PathLike,
    config: ModelConfig,
    params: Any,
    tokenizer_dir: epath.PathLike | None = None,
    dtype: Any = None,
    max_shard_bytes: int = 5_000_000_000,
    block: Block = DEEPSEEK_BLOCK,
    console: Console | None = None,
) -> None:
    """Writes safetensors (sharded beyond ``max_shard_bytes``), config.json, generation_config.json and the tokenizer.

    Args:
      out_dir: appears whole or not at all; an earlier export there is replaced.
      params: nested dict of jax or numpy arrays, of any dtype and layout.
      tokenizer_dir: of the model that this one comes from: its tokenizer and its defaults of generation go along.
      dtype: of the tensors (the selection bias of experts is always float32); None: the configuration's. ``float8_e4m3fn``:
        matrices of attention, feed-forward and experts are quantised in blocks, the rest is in the configuration's dtype.
      block: of FP8.
      console: where progress is drawn.

    Raises:
      CheckpointError: ``out_dir`` holds something else; parameters that the configuration does not describe, or with
        NaN or infinity (also when ``dtype`` can't hold their numbers); names the parameter. Nothing is left behind.
    """
    out_dir = epath.Path(out_dir).resolve()
    check_replaceable(out_dir, _is_earlier_output)
    written = config_to_hf(config)
    dtype = np.dtype(config.dtype if dtype is None else dtype)
    if dtype == FP8:
        written |= {"quantization_config": quantisation_to_hf(block)}
    else:
        written |= {"dtype": str(dtype), "torch_dtype": str(dtype)}
    written |= {_MARK: 1}
    tensor_map, arrays = TensorMap(config), flatten(params)
    bound = tensor_map.bindings
    for name in (*bound, *arrays):
        shape = bound[name].shape if name in bound else None
        if name not in arrays or arrays[name].shape != shape:
            is_shape = list(arrays[name].shape) if name in arrays else "missing"
            raise CheckpointError(
                f"parameter {name} is {is_shape}; the configuration asks for {list(shape) if shape else 'none'}"
            )
    kinds = [kind for piece in pieces(config) for kind in tensor_map.layout(piece, dtype, block)]
    shards = _shards(kinds, max_shard_bytes)
    single = len(shards) == 1
    files = [SINGLE if single else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    with replacing(out_dir) as partial:
        tensors = _tensors(tensor_map, arrays, dtype, block)
        for number, (file, shard) in enumerate(zip(files, shards)):
            if console is not None:
                console.progress("exporting", number, len(files))
            write_tensors(partial / file, shard, (next(tensors) for _ in shard))
        if console is not None:
            console.progress("exporting", len(files), len(files))
        if not single:
            weight_map = {name: file for file, shard in zip(files, shards) for name in shard}
            size = sum(_bytes(kind) for _, kind in kinds)
            index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
            (partial / INDEX).write_text(json.dumps(index, indent=2) + "\n")
        (partial / _CONFIG).write_text(json.dumps(written, indent=2) + "\n")
        if tokenizer_dir is not None:
            copy_carried(tokenizer_dir, partial)
        given = read_json(partial / GENERATION) if (partial / GENERATION).exists() else {}
        (partial / GENERATION).write_text(json.dumps(generation_config_to_hf(config, given), indent=2) + "\n")


def _bytes(kind: Kind) -> int:
    dtype, shape = kind
    return math.prod(shape) * dtype.itemsize


def _shards(kinds: list[tuple[str, Kind]], max_bytes: int) -> list[dict[str, Kind]]:
    """Divides the tensors, in order, among files of at most ``max_bytes``; a larger tensor has a file for itself."""
    shards: list[dict[str, Kind]] = [{}]
    size = 0
    for name, kind in kinds:
        added = _bytes(kind)
        if shards[-1] and size + added > max_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = kind
        size += added
    return shards


def _tensors(tensor_map: TensorMap, arrays: Mapping[str, Any], dtype: np.dtype, block: Block) -> Iterator[np.ndarray]:
    """Every tensor in the order of the map's layout; one layer of one parameter at a time is on the host."""
    for piece in pieces(tensor_map.config):
        for path in piece.paths:
            binding = tensor_map.bindings[path]
            array = _on_host(arrays[path], piece.layer)
            if not is_finite(array):
                raise CheckpointError(f"parameter {path} holds NaN or infinity; it is not exported")
            for tensor in binding.write(array, binding.ranges(piece.layer)):
                yield from _stored(tensor, binding, tensor_map, dtype, block)
        for _, original in tensor_map.repeated(piece):
            array = _on_host(arrays[original.path], None)
            for tensor in original.write(array, original.ranges()):
                yield from _stored(tensor, original, tensor_map, dtype, block)


def _stored(
    tensor: np.ndarray, binding: Binding, tensor_map: TensorMap, dtype: np.dtype, block: Block
) -> Iterator[np.ndarray]:
    """What ``TensorMap.stored`` announces of a tensor."""
    (_, (kind, _)), *scales = tensor_map.stored("", binding, dtype, block)
    if scales:
        yield from quantise(tensor, block)
        return
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(tensor).astype(kind, copy=False)
    if jnp.finfo(kind).max < jnp.finfo(tensor.dtype).max and not is_finite(converted):
        raise CheckpointError(
            f"parameter {binding.path} holds numbers too large for {kind}; export it in bfloat16 or float32"
        )
    yield converted


def _on_host(array: Any, layer: int | None) -> np.ndarray:
    """A whole array, or one layer of it with its leading axis, from its shards: ``np.asarray`` would keep the host's copy with
    the array."""
    if not isinstance(array, jax.Array):
        return np.asarray(array if layer is None else array[layer : layer + 1])
    host = np.empty(array.shape if layer is None else (1, *array.shape[1:]), array.dtype)
    for shard in array.addressable_shards:
        if shard.replica_id != 0:
            continue
        # On the CPU a view, which compiles nothing; elsewhere a slice made on the device.
        data = np.asarray(shard.data) if shard.device.platform == "cpu" else shard.data
        if layer is None:
            host[shard.index] = np.asarray(data)
        elif layer in (here := range(*shard.index[0].indices(array.shape[0]))):
            host[(slice(None), *shard.index[1:])] = np.asarray(data[layer - here.start])
    return host

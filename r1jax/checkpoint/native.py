"""r1jax checkpoints: an Orbax tree per layer, and r1jax.json with the configuration and the manifest of every tree.

    <path>/r1jax.json             format, configuration, and of each tree each array's shape, dtype and checksum
    <path>/params/top             what is no layer's: embedding, final norm, head
    <path>/params/layers.00000    one layer; arrays without their leading axis
    <path>/tokenizer.json, ...    the tokenizer's files

A layer at a time is all the memory that ``convert`` needs; a killed conversion is continued by the same command.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from r1jax.checkpoint.directory import TOKENIZER_FILES, check_replaceable, copy_tokenizer, replacing
from r1jax.checkpoint.huggingface import Binding, bindings, check_tensors, flatten, stored_dtype
from r1jax.checkpoint.integrity import CheckpointError, describe
from r1jax.checkpoint.tensor_files import TensorFiles, read_json
from r1jax.checkpoint.trees import load_arrays, save_arrays
from r1jax.models import logical_axes
from r1jax.models.config import ModelConfig, RopeScaling

MANIFEST = "r1jax.json"
_FORMAT = "r1jax checkpoint 1"
_PARAMS = "params"
_SOURCE = "source.json"  # of an unfinished conversion: what it converts


class Manifest(NamedTuple):
    """``trees``: {tree: {array: {shape, dtype, sum}}}."""

    config: ModelConfig
    trees: dict[str, dict[str, dict[str, Any]]]


class _Piece(NamedTuple):
    """What one tree holds: parameters by path, of stacked ones entry ``layer``."""

    tree: str
    layer: int | None
    paths: tuple[str, ...]


def is_checkpoint(path: epath.Path) -> bool:
    return (path / MANIFEST).exists()


def _is_earlier_output(path: epath.Path) -> bool:
    return is_checkpoint(path) and {item.name for item in path.iterdir()} <= {MANIFEST, _PARAMS, *TOKENIZER_FILES}


def read_manifest(path: epath.Path) -> Manifest:
    """Reads r1jax.json.

    Raises:
      CheckpointError: it is damaged or of another version.
    """
    document = read_json(path / MANIFEST)
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise CheckpointError(f"{path / MANIFEST} is not of format {_FORMAT!r}; convert the model again with this version")
    try:
        fields = dict(document["config"])
        scaling = fields.pop("rope_scaling")
        fields["eos_token_ids"] = tuple(fields["eos_token_ids"])
        config = ModelConfig(**fields, rope_scaling=None if scaling is None else RopeScaling(**scaling))
        return Manifest(config, document["trees"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path / MANIFEST} is damaged: {error}") from error


def _pieces(config: ModelConfig) -> Iterator[_Piece]:
    """The trees of a model: groups whose arrays are stacked along ``layer`` come apart, the rest stays together."""
    axes = flatten(logical_axes(config))
    stacked: dict[str, list[str]] = {}
    for path, names in axes.items():
        if names[0] == "layer":
            stacked.setdefault(path.split(".")[0], []).append(path)
    yield _Piece("top", None, tuple(path for path in axes if axes[path][0] != "layer"))
    sizes = {path: next(iter(binding.sizes.values())) for path, binding in bindings(config).items()}
    for group, paths in stacked.items():
        for layer in range(sizes[paths[0]]):
            yield _Piece(f"{group}.{layer:05d}", layer, tuple(paths))


def _read_piece(files: TensorFiles, piece: _Piece, bound: Mapping[str, Binding], dtype: Any) -> dict[str, np.ndarray]:
    arrays = {}
    for path in piece.paths:
        binding = bound[path]
        wanted = np.dtype(dtype) if dtype is not None else stored_dtype(files, binding)
        ranges = {axis: (0, size) for axis, size in binding.sizes.items()}
        if piece.layer is None:
            arrays[path] = binding.read(files, ranges, wanted)
        else:
            arrays[path] = binding.read(files, {**ranges, binding.axes[0]: (piece.layer, piece.layer + 1)}, wanted)[0]
    return arrays


def convert(hf_dir: epath.PathLike, out_dir: epath.PathLike, dtype: Any = None) -> None:
    """Makes an r1jax checkpoint of a Hugging Face directory. Killed, it goes on where it was when called again.

    Args:
      dtype: of what is written; None: as stored.

    Raises:
      CheckpointError: as ``load_model``; or ``out_dir`` holds something else. Nothing is left behind.
    """
    from r1jax.checkpoint.loading import read_config  # which knows both kinds of directory, and imports this one

    hf_dir, out_dir = epath.Path(hf_dir), epath.Path(out_dir).resolve()
    check_replaceable(out_dir, _is_earlier_output)
    if is_checkpoint(hf_dir):
        raise CheckpointError(f"{hf_dir} is an r1jax checkpoint already")
    config = read_config(hf_dir)
    files = TensorFiles(hf_dir)
    check_tensors(files, config)
    source = {"config": dataclasses.asdict(config), "dtype": str(dtype), "tensors": _fingerprint(files)}
    source = json.loads(json.dumps(source))

    def same_source(partial: epath.Path) -> bool:
        return (partial / _SOURCE).exists() and (partial / _SOURCE).read_text() == json.dumps(source)

    bound = bindings(config)
    trees = {}
    with replacing(out_dir, same_source) as partial:
        (partial / _SOURCE).write_text(json.dumps(source))
        (partial / _PARAMS).mkdir(exist_ok=True)
        for piece in _pieces(config):
            done = partial / f"{piece.tree}.json"  # written after its tree: without it the tree is written again
            if not done.exists():
                tree = partial / _PARAMS / piece.tree
                if tree.exists():
                    tree.rmtree()
                arrays = _read_piece(files, piece, bound, dtype)
                save_arrays(tree, arrays)
                part = partial / f"{piece.tree}.json.partial"
                part.write_text(json.dumps(describe(arrays)))
                part.rename(done)
            trees[piece.tree] = json.loads(done.read_text())
        copy_tokenizer(hf_dir, partial)
        document = {"format": _FORMAT, "config": source["config"], "trees": trees}
        (partial / MANIFEST).write_text(json.dumps(document, indent=1))
        for tree in trees:
            (partial / f"{tree}.json").unlink()
        (partial / _SOURCE).unlink()


def _fingerprint(files: TensorFiles) -> str:
    """Of a directory's tensors: places, shapes, first rows, and when their files were last changed (to the second only)."""
    digest = hashlib.sha256()
    for name, tensor in sorted(files.items()):
        digest.update(f"{name} {tensor.file.name} {tensor.dtype} {tensor.shape} {tensor.start}\n".encode())
        digest.update(files.read(name, tuple(slice(0, min(1, size)) for size in tensor.shape[:1])).tobytes())
    for file in sorted({tensor.file for tensor in files.values()}):
        digest.update(f"{file.name} {file.stat().length} {file.stat().mtime}\n".encode())
    return digest.hexdigest()


def load_params(path: epath.Path, shardings: Mapping[str, NamedSharding], dtype: Any) -> dict[str, jax.Array]:
    """Reads an r1jax checkpoint's parameters, flat by path, a layer at a time into stacks that are already in place.

    Args:
      shardings: of each parameter.
      dtype: None: as stored.

    Raises:
      CheckpointError: a tree is missing, or is not what was written.
    """
    manifest = read_manifest(path)
    abstract = _abstract_params(path, manifest, shardings, dtype)

    # Programs of this load alone, with its shardings: the stacks, and a layer's arrays put into them.
    make = jax.jit(lambda: {name: jnp.zeros(x.shape, x.dtype) for name, x in abstract.items()}, out_shardings=shardings)

    def insert(stacks, layer, arrays):
        values = {name: array.astype(stacks[name].dtype) for name, array in arrays.items()}
        return {name: stacks[name] if name not in values else _put(stacks[name], layer, values[name]) for name in stacks}

    insert = jax.jit(insert, donate_argnums=0, out_shardings=shardings)
    params = make()
    for piece in _pieces(manifest.config):
        described = manifest.trees[piece.tree]
        wanted = {}
        for name in piece.paths:
            shape, sharding = abstract[name].shape, shardings[name]
            if piece.layer is not None:
                shape, sharding = shape[1:], NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
            wanted[name] = jax.ShapeDtypeStruct(shape, jnp.dtype(described[name]["dtype"]), sharding=sharding)
        where = path / _PARAMS / piece.tree
        params = insert(params, jnp.int32(piece.layer or 0), load_arrays(where, wanted, described, where))
    return params


def _put(stack: jax.Array, layer: jax.Array, values: jax.Array) -> jax.Array:
    return values if stack.ndim == values.ndim else stack.at[layer].set(values)


def _abstract_params(
    path: epath.Path, manifest: Manifest, shardings: Mapping[str, NamedSharding], dtype: Any
) -> dict[str, Any]:
    """The parameters as they will be: shapes of the model, dtypes asked for or those that hold what is stored."""
    bound = bindings(manifest.config)
    kinds: dict[str, list[Any]] = {name: [] for name in bound}
    for piece in _pieces(manifest.config):
        for name in piece.paths:
            shape = list(bound[name].sizes.values())[piece.layer is not None :]
            described = manifest.trees.get(piece.tree, {}).get(name, {})
            if described.get("shape") != shape:
                raise CheckpointError(f"{path / MANIFEST} is damaged: {piece.tree} lacks {name} of shape {shape}")
            kinds[name].append(jnp.dtype(described["dtype"]))
    return {
        name: jax.ShapeDtypeStruct(
            tuple(binding.sizes.values()),
            functools.reduce(jnp.promote_types, kinds[name]) if dtype is None else dtype,
            sharding=shardings[name],
        )
        for name, binding in bound.items()
    }

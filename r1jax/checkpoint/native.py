"""r1jax checkpoints: an Orbax tree per layer, and r1jax.json with the configuration and the manifest of every tree.

    <path>/r1jax.json             format, configuration, and of each tree each array's shape, dtype and checksum
    <path>/params/top             what is no layer's: embedding, final norm, head
    <path>/params/layers.00000    one layer; arrays without their leading axis
    <path>/tokenizer.json, ...    the tokenizer's files, and generation_config.json

A layer at a time is all the memory that ``convert`` needs; a killed conversion is continued by the same command.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import NamedSharding

from r1jax.checkpoint.directory import CARRIED_FILES, check_replaceable, copy_carried, replacing
from r1jax.checkpoint.huggingface.binding import Binding, bindings
from r1jax.checkpoint.huggingface.tensor_files import read_json
from r1jax.checkpoint.huggingface.weights import Weights
from r1jax.checkpoint.integrity import CheckpointError, describe
from r1jax.checkpoint.pieces import Piece, flatten, parameter_dtype, pieces
from r1jax.checkpoint.trees import load_arrays, release_memory, save_arrays
from r1jax.models import abstract_params
from r1jax.models.config import Experts, LatentAttention, ModelConfig, RopeScaling, YarnScaling
from r1jax.reporting import Console

MANIFEST = "r1jax.json"
_FORMAT = "r1jax checkpoint 1"
_PARAMS = "params"
_PARTS = {"rope_scaling": (RopeScaling, YarnScaling), "latent": (LatentAttention,), "experts": (Experts,)}
_SOURCE = "source.json"  # of an unfinished conversion: what it converts


class Manifest(NamedTuple):
    """``trees``: {tree: {array: {shape, dtype, sum}}}."""

    config: ModelConfig
    trees: dict[str, dict[str, dict[str, Any]]]


def is_checkpoint(path: epath.Path) -> bool:
    return (path / MANIFEST).exists()


def _is_earlier_output(path: epath.Path) -> bool:
    return is_checkpoint(path) and {item.name for item in path.iterdir()} <= {MANIFEST, _PARAMS, *CARRIED_FILES}


def read_manifest(path: epath.Path) -> Manifest:
    """Reads r1jax.json.

    Raises:
      CheckpointError: it is damaged or of another version.
    """
    document = read_json(path / MANIFEST)
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise CheckpointError(f"{path / MANIFEST} is not of format {_FORMAT!r}; convert the model again with this version")
    try:
        return Manifest(_config_of(document["config"]), document["trees"])
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise CheckpointError(f"{path / MANIFEST} is damaged: {error}") from error


def _config_of(document: Mapping[str, Any]) -> ModelConfig:
    """The inverse of ``dataclasses.asdict``."""
    fields = dict(document)
    for name, kinds in _PARTS.items():
        given = fields.get(name)
        if given is not None:
            kind = next(kind for kind in kinds if given.keys() <= {field.name for field in dataclasses.fields(kind)})
            fields[name] = kind(**given)
    return ModelConfig(**{**fields, "eos_token_ids": tuple(fields["eos_token_ids"])})


def _read_piece(weights: Weights, piece: Piece, bound: Mapping[str, Binding], dtype: Any) -> dict[str, np.ndarray]:
    arrays = {}
    for path in piece.paths:
        binding = bound[path]
        wanted = weights.exact_dtype(binding) if dtype is None else parameter_dtype(path, dtype)
        values = binding.read(weights, binding.ranges(piece.layer), wanted)
        arrays[path] = values if piece.layer is None else values[0]
    return arrays


def convert(hf_dir: epath.PathLike, out_dir: epath.PathLike, dtype: Any = None, console: Console | None = None) -> None:
    """Makes an r1jax checkpoint of a Hugging Face directory. Killed, it goes on where it was when called again.

    Args:
      dtype: of what is written (routers: at least float32); None: as stored, what is quantised in float32.
      console: where progress is drawn.

    Raises:
      CheckpointError: as ``load_model``; or ``out_dir`` holds something else. Nothing is left behind.
    """
    from r1jax.checkpoint.loading import read_config  # which knows both kinds of directory, and imports this one

    hf_dir, out_dir = epath.Path(hf_dir), epath.Path(out_dir).resolve()
    check_replaceable(out_dir, _is_earlier_output)
    if is_checkpoint(hf_dir):
        raise CheckpointError(f"{hf_dir} is an r1jax checkpoint already")
    read_config(hf_dir)  # says what is wrong with a place that is no model
    weights = Weights(hf_dir)
    config = weights.config
    source = {"config": dataclasses.asdict(config), "dtype": str(dtype), "tensors": weights.fingerprint()}
    source = json.loads(json.dumps(source))

    def same_source(partial: epath.Path) -> bool:
        return (partial / _SOURCE).exists() and (partial / _SOURCE).read_text() == json.dumps(source)

    bound = bindings(config)
    trees = {}
    with replacing(out_dir, same_source) as partial:
        (partial / _SOURCE).write_text(json.dumps(source))
        (partial / _PARAMS).mkdir(exist_ok=True)
        todo = list(pieces(config))
        for number, piece in enumerate(todo):
            if console is not None:
                console.progress("converting", number, len(todo))
            done = partial / f"{piece.name}.json"  # written after its tree: without it the tree is written again
            if not done.exists():
                tree = partial / _PARAMS / piece.name
                if tree.exists():
                    tree.rmtree()
                arrays = _read_piece(weights, piece, bound, dtype)
                save_arrays(tree, arrays)
                part = partial / f"{piece.name}.json.partial"
                part.write_text(json.dumps(describe(arrays)))
                part.rename(done)
                del arrays
                release_memory()
            trees[piece.name] = json.loads(done.read_text())
        if console is not None:
            console.progress("converting", len(todo), len(todo))
        copy_carried(hf_dir, partial)
        document = {"format": _FORMAT, "config": source["config"], "trees": trees}
        (partial / MANIFEST).write_text(json.dumps(document, indent=1))
        for tree in trees:
            (partial / f"{tree}.json").unlink()
        (partial / _SOURCE).unlink()


def load_piece(
    path: epath.Path, manifest: Manifest, piece: Piece, shardings: Mapping[str, NamedSharding]
) -> dict[str, jax.Array]:
    """Reads one tree as it is stored, laid out.

    Raises:
      CheckpointError: it is missing, or is not what was written.
    """
    described = manifest.trees[piece.name]
    wanted = {
        name: jax.ShapeDtypeStruct(described[name]["shape"], jnp.dtype(described[name]["dtype"]), sharding=shardings[name])
        for name in piece.paths
    }
    where = path / _PARAMS / piece.name
    return load_arrays(where, wanted, described, where)


def stored_dtypes(path: epath.Path, manifest: Manifest) -> dict[str, np.dtype]:
    """The dtypes that hold what is stored, by the parameters' paths.

    Raises:
      CheckpointError: the manifest does not describe the parameters of its configuration.
    """
    shapes = {name: leaf.shape for name, leaf in flatten(abstract_params(manifest.config)).items()}
    kinds: dict[str, list[Any]] = {name: [] for name in shapes}
    for piece in pieces(manifest.config):
        for name in piece.paths:
            shape = list(shapes[name][piece.layer is not None :])
            described = manifest.trees.get(piece.name, {}).get(name, {})
            if described.get("shape") != shape:
                raise CheckpointError(f"{path / MANIFEST} is damaged: {piece.name} lacks {name} of shape {shape}")
            kinds[name].append(jnp.dtype(described["dtype"]))
    return {name: functools.reduce(jnp.promote_types, found) for name, found in kinds.items()}

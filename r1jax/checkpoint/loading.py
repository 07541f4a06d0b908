"""Loading models: of a Hugging Face directory or an r1jax checkpoint, straight into the layout of a mesh."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from r1jax.checkpoint import native
from r1jax.checkpoint.huggingface.binding import bindings
from r1jax.checkpoint.huggingface.weights import Weights, read_documents
from r1jax.checkpoint.integrity import CheckpointError
from r1jax.checkpoint.pieces import Piece, flatten, parameter_dtype, pieces, unflatten
from r1jax.checkpoint.trees import release_memory
from r1jax.models import abstract_params, logical_axes
from r1jax.models.config import ModelConfig
from r1jax.models.interface import Model
from r1jax.reporting import Console
from r1jax.sharding import TRAIN_RULES, Rules, layout, make_mesh

Arrays = dict[str, jax.Array]


def read_config(path: epath.PathLike) -> ModelConfig:
    """The configuration of a Hugging Face directory or an r1jax checkpoint, without reading a weight.

    Raises:
      CheckpointError: there is none, or it asks for what is not implemented.
    """
    path = epath.Path(path)
    if native.is_checkpoint(path):
        return native.read_manifest(path).config
    if not (path / "config.json").exists():
        what = f"has neither config.json nor {native.MANIFEST}" if path.is_dir() else "is not a directory"
        raise CheckpointError(f"{path} {what}: name a Hugging Face directory or an r1jax checkpoint")
    return read_documents(path)[0]


def load_model(
    path: epath.PathLike,
    mesh: Mesh | None = None,
    dtype: Any = None,
    *,
    rules: Rules = TRAIN_RULES,
    prediction: bool = True,
    console: Console | None = None,
) -> Model:
    """Loads a model, a layer at a time and each device's part read from disk on its own: never is more than that in host
    memory besides what the devices hold.

    Args:
      path: a Hugging Face directory or an r1jax checkpoint.
      mesh: where the parameters go (``sharding.make_mesh``); None: one device.
      dtype: of the parameters (routers: at least float32); None: each as it is stored, quantised ones in float32.
      rules: the table that lays them out; the training table spreads them furthest.
      prediction: load the modules of multi-token prediction too, which sampling does not use (11.6 billion parameters of R1's);
        without them the configuration that comes back has none.
      console: where progress is drawn.

    Raises:
      CheckpointError: the configuration asks for what is not implemented; a tensor or file is missing, misshapen,
        truncated, unknown, or holds NaN or infinity.
      ValueError: parameters that the mesh does not divide.
    """
    path = epath.Path(path).resolve()  # Orbax takes absolute paths only
    config = read_config(path)
    if not prediction:
        config = dataclasses.replace(config, num_nextn_predict_layers=0)
    place = layout(make_mesh(1, 1, 1, jax.devices()[:1]) if mesh is None else mesh, rules)
    shardings = {name: place.sharding(axes) for name, axes in flatten(logical_axes(config)).items()}
    for name, leaf in flatten(abstract_params(config)).items():
        try:
            shardings[name].shard_shape(leaf.shape)
        except ValueError as error:
            sizes = dict(place.mesh.shape)
            raise ValueError(
                f"{name} {list(leaf.shape)} can't be divided as {shardings[name].spec} over mesh {sizes}; change the mesh"
            ) from error
    dtypes, read = _native_reader(path) if native.is_checkpoint(path) else _huggingface_reader(path)
    if dtype is not None:
        dtypes = {name: parameter_dtype(name, dtype) for name in dtypes}
    params = _stack(config, dtypes, shardings, read, console)
    return Model(config, unflatten(params), load_tokenizer(path))


def load_tokenizer(path: epath.PathLike) -> Any:
    """The ``data.Tokenizer`` of a model's directory; None where it has no tokenizer files."""
    path = epath.Path(path)
    if not any((path / name).exists() for name in ("tokenizer.json", "tokenizer.model", "spiece.model")):
        return None
    from r1jax.data import Tokenizer  # loads tokenizer libraries, which a model without one does not need

    return Tokenizer.load(path)


# Reads a piece: arrays by path, those of a layer without their leading axis, laid out and, where the reader can, in the dtypes
# asked for.
Reader = Callable[[Piece, Mapping[str, Any], Mapping[str, NamedSharding]], Arrays]


def _huggingface_reader(path: epath.Path) -> tuple[dict[str, Any], Reader]:
    weights = Weights(path)
    bound = bindings(weights.config)

    def read(piece: Piece, dtypes: Mapping[str, Any], shardings: Mapping[str, NamedSharding]) -> Arrays:
        arrays = {}
        for name in piece.paths:
            binding = bound[name]

            def part(index, binding=binding):
                axes, sizes = (list(x)[piece.layer is not None :] for x in (binding.axes, binding.shape))
                bounds = (one.indices(size)[:2] for one, size in zip(index, sizes))
                values = binding.read(
                    weights, {**binding.ranges(piece.layer), **dict(zip(axes, bounds))}, dtypes[binding.path]
                )
                return values if piece.layer is None else values[0]

            arrays[name] = place_array(binding.shape[piece.layer is not None :], shardings[name], part)
        return arrays

    return {name: weights.exact_dtype(binding) for name, binding in bound.items()}, read


def _native_reader(path: epath.Path) -> tuple[dict[str, Any], Reader]:
    manifest = native.read_manifest(path)

    def read(piece: Piece, dtypes: Mapping[str, Any], shardings: Mapping[str, NamedSharding]) -> Arrays:
        return native.load_piece(path, manifest, piece, shardings)

    return native.stored_dtypes(path, manifest), read


def _stack(
    config: ModelConfig, dtypes: Mapping[str, Any], shardings: Mapping[str, NamedSharding], read: Reader, console: Any
) -> Arrays:
    """Every parameter: each layer is read and put into stacks that are already in place, donated from layer to layer."""
    shapes = {name: leaf.shape for name, leaf in flatten(abstract_params(config)).items()}
    params: Arrays = {}
    todo = list(pieces(config))
    for done, piece in enumerate(todo):
        if console is not None:
            console.progress("loading", done, len(todo))
        where = {name: shardings[name] for name in piece.paths}
        if piece.layer is None:
            params |= {name: array.astype(dtypes[name]) for name, array in read(piece, dtypes, where).items()}
            continue
        if piece.layer == 0:
            kinds = {name: (shapes[name], dtypes[name]) for name in piece.paths}
            stacks = jax.jit(lambda: {name: jnp.zeros(*kind) for name, kind in kinds.items()}, out_shardings=where)()  # noqa: B023
            insert = jax.jit(_insert, donate_argnums=0, out_shardings=where)
        one = {name: NamedSharding(x.mesh, PartitionSpec(*x.spec[1:])) for name, x in where.items()}
        stacks = insert(stacks, jnp.int32(piece.layer), read(piece, dtypes, one))
        params |= stacks
        release_memory()
    if console is not None:
        console.progress("loading", len(todo), len(todo))
    return {name: params[name] for name in shapes}


def _insert(stacks: Arrays, layer: jax.Array, arrays: Arrays) -> Arrays:
    return {name: stack.at[layer].set(arrays[name].astype(stack.dtype)) for name, stack in stacks.items()}


def place_array(
    shape: tuple[int, ...], sharding: NamedSharding, read: Callable[[tuple[slice, ...]], np.ndarray]
) -> jax.Array:
    """An array from its parts: each is read once, sent to every device that holds it, and forgotten.

    ``jax.make_array_from_callback`` would read a part once per device that holds it, and keep all of them on the host.
    """
    holders: dict[Any, list[Any]] = {}
    indices = sharding.addressable_devices_indices_map(shape)
    for device, index in indices.items():
        holders.setdefault(tuple(part.indices(size)[:2] for part, size in zip(index, shape)), []).append(device)
    pieces = {}
    for devices in holders.values():
        values = read(indices[devices[0]])
        pieces |= {device: jax.device_put(values, device) for device in devices}
        jax.block_until_ready(list(pieces.values()))
    return jax.make_array_from_single_device_arrays(shape, sharding, [pieces[device] for device in indices])

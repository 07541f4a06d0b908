"""Loading models: of a Hugging Face directory or an r1jax checkpoint, straight into the layout of a mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding

from r1jax.checkpoint import native
from r1jax.checkpoint.configuration import config_from_hf
from r1jax.checkpoint.huggingface import bindings, check_tensors, flatten, stored_dtype, unflatten
from r1jax.checkpoint.integrity import CheckpointError
from r1jax.checkpoint.tensor_files import TensorFiles, read_json
from r1jax.models import abstract_params, logical_axes
from r1jax.models.config import ModelConfig
from r1jax.models.interface import Model
from r1jax.sharding import TRAIN_RULES, Rules, layout, make_mesh


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
    config = read_json(path / "config.json")
    generation = path / "generation_config.json"
    generation_config = read_json(generation) if generation.exists() else None
    for name, value in (("config.json", config), ("generation_config.json", generation_config or {})):
        if not isinstance(value, dict):
            raise CheckpointError(f"{path / name} is not a JSON object")
    try:
        return config_from_hf(config, generation_config)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def load_model(path: epath.PathLike, mesh: Mesh | None = None, dtype: Any = None, *, rules: Rules = TRAIN_RULES) -> Model:
    """Loads a model, each device's part read from disk on its own: never is the whole of it in host memory.

    Args:
      path: a Hugging Face directory or an r1jax checkpoint.
      mesh: where the parameters go (``sharding.make_mesh``); None: one device.
      dtype: of the parameters; None: each as it is stored.
      rules: the table that lays them out; the training table spreads them furthest.

    Raises:
      CheckpointError: the configuration asks for what is not implemented; a tensor or file is missing, misshapen,
        truncated, unknown, or holds NaN or infinity.
      ValueError: parameters that the mesh does not divide.
    """
    path = epath.Path(path).resolve()  # Orbax takes absolute paths only
    config = read_config(path)
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
    if native.is_checkpoint(path):
        params = native.load_params(path, shardings, dtype)
    else:
        params = _load_huggingface(path, config, shardings, dtype)
    return Model(config, unflatten(params), load_tokenizer(path))


def load_tokenizer(path: epath.PathLike) -> Any:
    """The ``data.Tokenizer`` of a model's directory; None where it has no tokenizer files."""
    path = epath.Path(path)
    if not any((path / name).exists() for name in ("tokenizer.json", "tokenizer.model", "spiece.model")):
        return None
    from r1jax.data import Tokenizer  # loads tokenizer libraries, which a model without one does not need

    return Tokenizer.load(path)


def _load_huggingface(
    path: epath.Path, config: ModelConfig, shardings: dict[str, NamedSharding], dtype: Any
) -> dict[str, jax.Array]:
    files = TensorFiles(path)
    check_tensors(files, config)
    params = {}
    for name, binding in bindings(config).items():
        wanted = np.dtype(dtype) if dtype is not None else stored_dtype(files, binding)

        def read(index, binding=binding, wanted=wanted):
            bounds = (part.indices(size)[:2] for part, size in zip(index, binding.sizes.values()))
            return binding.read(files, dict(zip(binding.axes, bounds)), wanted)

        params[name] = place_array(tuple(binding.sizes.values()), shardings[name], read)
    return params


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

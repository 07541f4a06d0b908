"""Train states on disk: any tree of arrays, numbers, PRNG keys and None, restored onto any mesh."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
from etils import epath

from r1jax.checkpoint.directory import replacing
from r1jax.checkpoint.huggingface.tensor_files import read_json
from r1jax.checkpoint.integrity import CheckpointError, describe
from r1jax.checkpoint.trees import load_arrays, save_arrays

MANIFEST = "manifest.json"
_TREE = "tree"
_NUMBERS = (bool, int, float)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _named_leaves(tree: Any) -> tuple[dict[str, Any], Any]:
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise CheckpointError("two leaves of the state have the same name; rename the dictionary key that has a dot in it")
    return named, structure


def save_state(path: epath.PathLike, tree: Any) -> None:
    """Writes a tree into directory ``path``, whole or not at all; what stood there is replaced.

    Args:
      tree: jax or numpy arrays, Python numbers, typed PRNG keys; None and containers are structure.

    Raises:
      CheckpointError: a leaf of another kind.
    """
    named, _ = _named_leaves(tree)
    arrays, implementations = {}, {}
    for name, leaf in named.items():
        if _is_key(leaf):
            implementations[name] = str(jax.random.key_impl(leaf))
            arrays[name] = jax.random.key_data(leaf)
        elif isinstance(leaf, (jax.Array, np.ndarray, np.generic, *_NUMBERS)):
            arrays[name] = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        else:
            raise CheckpointError(
                f"state leaf {name} is a {type(leaf).__name__}; only arrays, numbers and PRNG keys are saved"
            )
    manifest = {"leaves": describe(arrays), "keys": implementations}
    with replacing(epath.Path(path).resolve()) as partial:
        save_arrays(partial / _TREE, arrays)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))


def restore_state(path: epath.PathLike, abstract_tree: Any) -> Any:
    """Reads what ``save_state`` wrote, verified against its manifest.

    Args:
      abstract_tree: the same structure. ``ShapeDtypeStruct`` with a sharding (of any mesh): a jax array laid out so; a
        numpy array or a Python number: read as such. A ``jax.Array`` stands for its own shape, dtype and sharding.

    Raises:
      CheckpointError: nothing there, another structure, shape or dtype, or damage; names the leaf.
    """
    path = epath.Path(path).resolve()
    if not (path / MANIFEST).exists():
        raise CheckpointError(f"{path} is no saved state: it lacks {MANIFEST}")
    manifest = read_json(path / MANIFEST)
    try:
        stored, implementations = manifest["leaves"], manifest["keys"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path / MANIFEST} is damaged") from error
    named, structure = _named_leaves(abstract_tree)
    for name in (*named, *stored):
        if name not in stored or name not in named:
            side = "is not in it" if name in named else "is in it and is not asked for"
            raise CheckpointError(
                f"{path} holds another state: leaf {name} {side}; it was saved by another recipe or version"
            )
    abstract = {
        name: _abstract_array(leaf, implementations.get(name), f"{path}: leaf {name}") for name, leaf in named.items()
    }
    for name, wanted in abstract.items():
        saved = (tuple(stored[name]["shape"]), stored[name]["dtype"])
        if (tuple(wanted.shape), str(wanted.dtype)) != saved:
            asked = f"{wanted.dtype} {list(wanted.shape)}"
            raise CheckpointError(
                f"{path}: leaf {name} is {saved[1]} {list(saved[0])}, asked for as {asked}; it was saved by another recipe"
            )
    arrays = load_arrays(path / _TREE, abstract, stored, path)
    leaves = [_leaf(arrays[name], leaf, implementations.get(name)) for name, leaf in named.items()]
    return jax.tree_util.tree_unflatten(structure, leaves)


def _abstract_array(leaf: Any, implementation: str | None, where: str) -> Any:
    """How to ask Orbax for a leaf: keys as their data, numbers as numpy scalars."""
    if isinstance(leaf, (np.ndarray, np.generic, *_NUMBERS)):
        return np.asarray(leaf)
    if _is_key(leaf) != (implementation is not None):
        raise CheckpointError(
            f"{where} is {'no PRNG key' if implementation is None else 'a PRNG key'}, asked for as {leaf.dtype}"
        )
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    data = jax.eval_shape(jax.random.key_data, leaf) if implementation else leaf
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=sharding)


def _leaf(array: Any, wanted: Any, implementation: str | None) -> Any:
    if implementation is not None:
        return jax.random.wrap_key_data(array, impl=implementation)
    if isinstance(wanted, _NUMBERS):
        return type(wanted)(array.item())
    return array

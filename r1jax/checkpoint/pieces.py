"""A model in pieces that fit into memory one at a time: what is no layer's, then each layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

from r1jax.models import abstract_params, logical_axes
from r1jax.models.config import ModelConfig
from r1jax.models.precision import dtype_at


class Piece(NamedTuple):
    """Parameters by path, of stacked ones entry ``layer``; ``name`` is that of its tree on disk."""

    name: str
    layer: int | None
    paths: tuple[str, ...]


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A nested dict as ``{"a.b.c": leaf}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= (
            {f"{key}.{rest}": leaf for rest, leaf in flatten(value).items()} if isinstance(value, Mapping) else {key: value}
        )
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of ``flatten``."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split(".")
        place = tree
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = leaf
    return tree


def pieces(config: ModelConfig) -> Iterator[Piece]:
    """The pieces of a model: groups whose arrays are stacked along ``layer`` come apart, the rest stays together."""
    axes, shapes = flatten(logical_axes(config)), flatten(abstract_params(config))
    stacked: dict[str, list[str]] = {}
    for path, names in axes.items():
        if names[0] == "layer":
            stacked.setdefault(path.split(".")[0], []).append(path)
    yield Piece("top", None, tuple(path for path in axes if axes[path][0] != "layer"))
    for group, paths in stacked.items():
        for layer in range(shapes[paths[0]].shape[0]):
            yield Piece(f"{group}.{layer:05d}", layer, tuple(paths))


def parameter_dtype(path: str, dtype: Any) -> Any:
    """The dtype of a parameter of a model that is asked for in ``dtype``; see ``precision.dtype_at``."""
    return dtype_at(tuple(jax.tree_util.DictKey(key) for key in path.split(".")), dtype)

"""A line of the table with its sizes known: which tensors make up a part of a parameter, and the parameter of its tensors."""

from __future__ import annotations

import concurrent.futures
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from r1jax.checkpoint.huggingface.table import Entry, entries, first_layer
from r1jax.checkpoint.integrity import CheckpointError, is_finite
from r1jax.checkpoint.pieces import flatten
from r1jax.models import abstract_params
from r1jax.models.config import ModelConfig

_LARGE = 1 << 24  # bytes of a parameter from which on threads are worth while

Ranges = Mapping[str, tuple[int, int]]  # axis letter -> [start, stop)


class Tensors(Protocol):
    """Where tensors are read from; quantised ones come with their scales applied."""

    def dtype(self, name: str) -> np.dtype: ...
    def where(self, name: str) -> str: ...
    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray: ...


class Binding:
    """One line of the table with its sizes known.

    Args:
      entry: the line.
      shape: of the parameter, as ``models`` declares it.
      first: what ``{L}`` is for layer 0 of the parameter.
    """

    def __init__(self, entry: Entry, shape: tuple[int, ...], first: int = 0):
        self.path, self.name, self.form, self.first = entry.path, entry.name, entry.form, first
        self.axes = entry.axes.split()
        self.sizes = dict(zip(self.axes, shape, strict=True))
        self.stacked = re.findall(r"{(\w+)}", entry.name)
        self.groups = [tuple(group.strip("()").split()) for group in re.findall(r"\([^)]*\)|\w+", entry.stored)]
        self.stored_axes = [axis for group in self.groups for axis in group]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the parameter."""
        return tuple(self.sizes.values())

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Of each tensor."""
        return tuple(math.prod(self.sizes[axis] for axis in group) for group in self.groups)

    @property
    def stacked_shape(self) -> tuple[int, ...]:
        """How many tensors there are along each stacked axis."""
        return tuple(self.sizes[axis] for axis in self.stacked)

    def ranges(self, layer: int | None = None) -> Ranges:
        """The whole of the parameter, or one layer of it."""
        return {axis: (0, size) for axis, size in self.sizes.items()} | ({} if layer is None else {"L": (layer, layer + 1)})

    def names(self, ranges: Ranges) -> Iterator[tuple[dict[str, int], str]]:
        """Each tensor in ``ranges``: its place along the stacked axes, and its name."""
        for numbers in itertools.product(*(range(*ranges[axis]) for axis in self.stacked)):
            place = dict(zip(self.stacked, numbers))
            yield place, self.name.format(**{axis: n + self.first * (axis == "L") for axis, n in place.items()})

    def place(self, numbers: tuple[int, ...]) -> tuple[int, ...] | None:
        """The inverse of ``names``: the place of the tensor whose name has these numbers; None if it lies outside."""
        place = tuple(n - self.first * (axis == "L") for axis, n in zip(self.stacked, numbers))
        return place if all(0 <= n < self.sizes[axis] for axis, n in zip(self.stacked, place)) else None

    def read(self, tensors: Tensors, ranges: Ranges, dtype: Any) -> np.ndarray:
        """The parameter within ``ranges``, reading no more of the tensors than that takes.

        Raises:
          CheckpointError: NaN or infinity in what was read, or a number too large for ``dtype``.
        """
        largest = jnp.finfo(dtype).max
        sizes = {axis: stop - start for axis, (start, stop) in ranges.items()}
        out = np.empty([sizes[axis] for axis in self.axes], dtype)
        order = [self.stored_axes.index(axis) for axis in self.axes if axis not in self.stacked]
        outer, shape, inner = [], [], []
        for first, *rest in self.groups:
            # A range of the slowest axis is a range of the stored dimension; the faster ones are cut after reading.
            inner_size = math.prod(self.sizes[axis] for axis in rest)
            outer.append(slice(ranges[first][0] * inner_size, ranges[first][1] * inner_size))
            shape += [sizes[first], *(self.sizes[axis] for axis in rest)]
            inner += [slice(None), *(slice(*ranges[axis]) for axis in rest)]

        def fill(tensor: tuple[dict[str, int], str]) -> None:
            place, name = tensor
            stored = tensors.read(name, tuple(outer))
            if not is_finite(stored):
                raise CheckpointError(f"{tensors.where(name)}: tensor {name} holds NaN or infinity")
            values = stored.reshape(shape)[tuple(inner)].transpose(order)
            target = tuple(place[axis] - ranges[axis][0] if axis in place else slice(None) for axis in self.axes)
            with np.errstate(over="ignore"):
                out[target] = values
            if largest < jnp.finfo(stored.dtype).max and not is_finite(out[target]):
                raise CheckpointError(
                    f"{tensors.where(name)}: tensor {name} holds numbers too large for {out.dtype}; load it in bfloat16"
                )

        threads = 1 if out.nbytes < _LARGE else min(16, os.cpu_count() or 1)  # numpy copies and compares without the GIL
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(fill, self.names(ranges)):
                pass
        return out

    def write(self, array: np.ndarray, ranges: Ranges) -> Iterator[np.ndarray]:
        """The tensors of ``array``, which is the parameter within ``ranges``, in the order of ``names``."""
        order = [axis for axis in self.axes if axis not in self.stacked]
        for place, _ in self.names(ranges):
            values = array[tuple(place[axis] - ranges[axis][0] if axis in place else slice(None) for axis in self.axes)]
            yield values.transpose([order.index(axis) for axis in self.stored_axes]).reshape(self.stored_shape)


def bindings(config: ModelConfig) -> dict[str, Binding]:
    """Every parameter of a model, by its path, bound to its tensors."""
    table = entries(config)
    return {
        path: Binding(table[path], leaf.shape, first_layer(config, path))
        for path, leaf in flatten(abstract_params(config)).items()
    }

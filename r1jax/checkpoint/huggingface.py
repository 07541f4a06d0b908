"""Hugging Face's tensors and r1jax's parameters: one table, read in both directions.

A line of the table names a parameter, its axes, the tensors that make it up, and a tensor's axes. Axis letters stand
for sizes, which come from the parameter's declaration in ``models``; ``(N H)`` is one stored dimension that holds two;
a letter in braces counts the tensors that are stacked along that axis. Transposes, reshapes, stacking, slices of them
and their inverses all follow from the letters.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from r1jax.checkpoint.integrity import CheckpointError, is_finite
from r1jax.checkpoint.tensor_files import TensorFiles
from r1jax.models import abstract_params
from r1jax.models.config import ModelConfig


class Entry(NamedTuple):
    """``path`` of a parameter, its ``axes``; ``name`` of its tensors and the axes as ``stored`` in each."""

    path: str
    axes: str
    name: str
    stored: str


_LAYER = "model.layers.{L}"

DENSE = (
    Entry("embed.embedding", "V D", "model.embed_tokens.weight", "V D"),
    Entry("layers.input_norm.scale", "L D", f"{_LAYER}.input_layernorm.weight", "D"),
    Entry("layers.attention.q.kernel", "L D N H", f"{_LAYER}.self_attn.q_proj.weight", "(N H) D"),
    Entry("layers.attention.q.bias", "L N H", f"{_LAYER}.self_attn.q_proj.bias", "(N H)"),
    Entry("layers.attention.k.kernel", "L D K H", f"{_LAYER}.self_attn.k_proj.weight", "(K H) D"),
    Entry("layers.attention.k.bias", "L K H", f"{_LAYER}.self_attn.k_proj.bias", "(K H)"),
    Entry("layers.attention.v.kernel", "L D K H", f"{_LAYER}.self_attn.v_proj.weight", "(K H) D"),
    Entry("layers.attention.v.bias", "L K H", f"{_LAYER}.self_attn.v_proj.bias", "(K H)"),
    Entry("layers.attention.o.kernel", "L N H D", f"{_LAYER}.self_attn.o_proj.weight", "D (N H)"),
    Entry("layers.attention.o.bias", "L D", f"{_LAYER}.self_attn.o_proj.bias", "D"),
    Entry("layers.post_attention_norm.scale", "L D", f"{_LAYER}.post_attention_layernorm.weight", "D"),
    Entry("layers.mlp.gate.kernel", "L D F", f"{_LAYER}.mlp.gate_proj.weight", "F D"),
    Entry("layers.mlp.gate.bias", "L F", f"{_LAYER}.mlp.gate_proj.bias", "F"),
    Entry("layers.mlp.up.kernel", "L D F", f"{_LAYER}.mlp.up_proj.weight", "F D"),
    Entry("layers.mlp.up.bias", "L F", f"{_LAYER}.mlp.up_proj.bias", "F"),
    Entry("layers.mlp.down.kernel", "L F D", f"{_LAYER}.mlp.down_proj.weight", "D F"),
    Entry("layers.mlp.down.bias", "L D", f"{_LAYER}.mlp.down_proj.bias", "D"),
    Entry("final_norm.scale", "D", "model.norm.weight", "D"),
    Entry("head.kernel", "D V", "lm_head.weight", "V D"),
)

_TABLES = {"qwen2": DENSE, "llama": DENSE}

# Tensors that some files carry and that hold nothing: rotary frequencies are computed.
_HARMLESS = re.compile(r".*\.rotary_emb\.inv_freq")

_LARGE = 1 << 24  # bytes of a parameter from which on threads are worth while

Ranges = Mapping[str, tuple[int, int]]  # axis letter -> [start, stop)


class Binding:
    """One line of the table with its sizes known.

    Args:
      entry: the line.
      shape: of the parameter, as ``models`` declares it.
    """

    def __init__(self, entry: Entry, shape: tuple[int, ...]):
        self.path, self.name = entry.path, entry.name
        self.axes = entry.axes.split()
        self.sizes = dict(zip(self.axes, shape, strict=True))
        self.stacked = re.findall(r"{(\w+)}", entry.name)
        self.groups = [tuple(group.strip("()").split()) for group in re.findall(r"\([^)]*\)|\w+", entry.stored)]
        self.stored_axes = [axis for group in self.groups for axis in group]

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Of each tensor."""
        return tuple(math.prod(self.sizes[axis] for axis in group) for group in self.groups)

    def names(self, ranges: Ranges | None = None) -> Iterator[tuple[dict[str, int], str]]:
        """Each tensor: its place along the stacked axes, and its name. All of them, or those in ``ranges``."""
        bounds = [range(*(ranges[axis] if ranges else (0, self.sizes[axis]))) for axis in self.stacked]
        for numbers in itertools.product(*bounds):
            place = dict(zip(self.stacked, numbers))
            yield place, self.name.format(**place)

    def read(self, files: TensorFiles, ranges: Ranges, dtype: Any) -> np.ndarray:
        """The parameter within ``ranges``, reading no more of the tensors than that takes.

        Raises:
          CheckpointError: NaN or infinity in what was read, or a number too large for ``dtype``.
        """
        narrower = jnp.finfo(dtype).max < jnp.finfo(stored_dtype(files, self)).max
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
            stored = files.read(name, tuple(outer))
            if not is_finite(stored):
                raise CheckpointError(f"{files[name].file}: tensor {name} holds NaN or infinity")
            values = stored.reshape(shape)[tuple(inner)].transpose(order)
            target = tuple(place[axis] - ranges[axis][0] if axis in place else slice(None) for axis in self.axes)
            with np.errstate(over="ignore"):
                out[target] = values
            if narrower and not is_finite(out[target]):
                raise CheckpointError(
                    f"{files[name].file}: tensor {name} holds numbers too large for {out.dtype}; load it in bfloat16"
                )

        threads = 1 if out.nbytes < _LARGE else min(16, os.cpu_count() or 1)  # numpy copies and compares without the GIL
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(fill, self.names(ranges)):
                pass
        return out

    def write(self, array: np.ndarray) -> Iterator[np.ndarray]:
        """The parameter's tensors, in the order of ``names``."""
        order = [axis for axis in self.axes if axis not in self.stacked]
        for place, _ in self.names():
            values = array[tuple(place.get(axis, slice(None)) for axis in self.axes)]
            yield values.transpose([order.index(axis) for axis in self.stored_axes]).reshape(self.stored_shape)


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
        functools.reduce(lambda place, key: place.setdefault(key, {}), parents, tree)[last] = leaf
    return tree


def bindings(config: ModelConfig) -> dict[str, Binding]:
    """Every parameter of a model, by its path, bound to its tensors."""
    table = {entry.path: entry for entry in _TABLES[config.architecture]}
    return {path: Binding(table[path], leaf.shape) for path, leaf in flatten(abstract_params(config)).items()}


def check_tensors(files: TensorFiles, config: ModelConfig) -> None:
    """Compares a directory's tensors with what the configuration asks for, before any is read.

    Raises:
      CheckpointError: a tensor is missing, misshapen, of a dtype that isn't floating, or not known.
    """
    expected = {name: binding for binding in bindings(config).values() for _, name in binding.names()}
    missing = [name for name in expected if name not in files]
    if missing:
        more = f" and {len(missing) - 1} more tensors" if len(missing) > 1 else ""
        raise CheckpointError(f"{files.directory} lacks tensor {missing[0]}{more}, which its config.json asks for")
    for name, binding in expected.items():
        tensor = files[name]
        if tensor.shape != binding.stored_shape:
            raise CheckpointError(
                f"{tensor.file}: tensor {name} has shape {list(tensor.shape)}; config.json asks for {list(binding.stored_shape)}"
            )
        if str(tensor.dtype) not in ("bfloat16", "float16", "float32"):
            raise CheckpointError(f"{tensor.file}: tensor {name} is {tensor.dtype}; known: bfloat16, float16, float32")
    for name in files:
        if name in expected or _HARMLESS.fullmatch(name):
            continue
        if name == "lm_head.weight" and config.tie_word_embeddings:
            _check_tied_head(files)
            continue
        raise CheckpointError(f"{files[name].file}: tensor {name} is not part of the model that config.json describes")


def _check_tied_head(files: TensorFiles) -> None:
    """A tied model's file may repeat the embedding as its head; a head of its own would be lost."""
    head, embedding = files["lm_head.weight"], files["model.embed_tokens.weight"]
    equal = head.shape == embedding.shape and head.dtype == embedding.dtype
    if not equal or not np.array_equal(
        *(files.read(name).view(np.uint8) for name in ("lm_head.weight", "model.embed_tokens.weight"))
    ):
        raise CheckpointError(
            f"{head.file}: tensor lm_head.weight differs from the embedding, yet config.json ties them; set tie_word_embeddings to false"
        )


def stored_dtype(files: TensorFiles, binding: Binding) -> np.dtype:
    """The dtype that holds all tensors of a parameter exactly."""
    return np.dtype(functools.reduce(jnp.promote_types, {files[name].dtype for _, name in binding.names()}))

"""The map between a checkpoint's tensors and a model's parameters, and its inverse, without reading a tensor.

``check`` goes from every stored name to the slice of the parameter that it fills and counts what fills each; ``layout`` goes
back, from the parameters to every name with its dtype and shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from r1jax.checkpoint.huggingface.binding import Binding, bindings
from r1jax.checkpoint.huggingface.fp8 import DEEPSEEK_BLOCK, FP8, SCALE_DTYPES, SCALE_SUFFIX, Block
from r1jax.checkpoint.huggingface.table import EXACT, MATRIX, copies
from r1jax.checkpoint.integrity import CheckpointError
from r1jax.checkpoint.pieces import Piece, pieces
from r1jax.models.config import ModelConfig

# Tensors that some files carry and that hold nothing: rotary frequencies are computed.
_HARMLESS = re.compile(r".*\.rotary_emb\.inv_freq")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_KNOWN = ("bfloat16", "float16", "float32")

Kind = tuple[np.dtype, tuple[int, ...]]


class Described(Protocol):
    """What is known of a stored tensor."""

    dtype: np.dtype
    shape: tuple[int, ...]


class Coverage(NamedTuple):
    """What ``check`` found: counts of tensors, and of each parameter how often each of its slices is written (always once).

    Attributes:
      copies: ``(copy, original)`` names of tensors that repeat others, to be compared before they are passed over.
    """

    tensors: int
    scales: int
    copies: tuple[tuple[str, str], ...]
    written: dict[str, np.ndarray]


class TensorMap:
    """Every name that a model's tensors may have, and what each is. Names differ in numbers alone within a line of the table, so
    a name's skeleton finds the lines and its numbers the place."""

    def __init__(self, config: ModelConfig):
        self.config = config
        self.bindings = bindings(config)
        self._lines: dict[str, list[Binding]] = {}
        for binding in self.bindings.values():
            self._lines.setdefault(re.sub(r"{\w+}", "#", binding.name), []).append(binding)
        self.copies = dict(self._copied())

    def _copied(self) -> Iterator[tuple[str, Binding]]:
        for copy in copies(self.config):
            for k in range(self.config.num_nextn_predict_layers):
                yield copy.name.format(L=self.config.num_hidden_layers + k), self.bindings[copy.path]
        # A tied language model's file may repeat the embedding as its head.
        if self.config.tie_word_embeddings and not self.config.num_labels:
            yield "lm_head.weight", self.bindings["embed.embedding"]

    def locate(self, name: str) -> tuple[Binding, tuple[int, ...]] | None:
        """The parameter that a tensor is a part of, and its place along the stacked axes; None if it is not the model's."""
        numbers = tuple(map(int, _NUMBER.findall(name)))
        for binding in self._lines.get(_NUMBER.sub("#", name), ()):
            place = binding.place(numbers)
            if place is not None:
                return binding, place
        return None

    def layout(self, piece: Piece, dtype: np.dtype, block: Block) -> Iterator[tuple[str, Kind]]:
        """Every tensor of a piece, with dtype and shape, as a checkpoint in ``dtype`` has it, in the order of the piece's
        parameters. In FP8 matrices are quantised and have scales, and the rest is in the configuration's dtype."""
        for path in piece.paths:
            binding = self.bindings[path]
            for _, name in binding.names(binding.ranges(piece.layer)):
                yield from self.stored(name, binding, dtype, block)
        for name, original in self.repeated(piece):
            yield from self.stored(name, original, dtype, block)

    def repeated(self, piece: Piece) -> Iterator[tuple[str, Binding]]:
        """The copies that a piece's layer has, and what they repeat."""
        if piece.name.startswith("mtp."):
            layer = f"model.layers.{self.config.num_hidden_layers + piece.layer}."
            yield from ((name, original) for name, original in self.copies.items() if name.startswith(layer))

    def stored(self, name: str, binding: Binding, dtype: np.dtype, block: Block) -> Iterator[tuple[str, Kind]]:
        """A tensor as it is written, and the scales that belong to it."""
        shape = binding.stored_shape
        quantised = dtype == FP8 and binding.form == MATRIX
        if binding.form == EXACT:
            dtype = np.dtype(np.float32)
        elif dtype == FP8 and not quantised:
            dtype = np.dtype(self.config.dtype)
        yield name, (dtype, shape)
        if quantised:
            yield f"{name}{SCALE_SUFFIX}", (np.dtype(np.float32), block.grid(shape))


def layout(config: ModelConfig, dtype: np.dtype, block: Block = DEEPSEEK_BLOCK) -> dict[str, Kind]:
    """Every tensor of a model's checkpoint in ``dtype``: the inverse of ``check``."""
    tensor_map = TensorMap(config)
    return {name: kind for piece in pieces(config) for name, kind in tensor_map.layout(piece, dtype, block)}


def check(tensors: Mapping[str, Described], config: ModelConfig, block: Block | None, where: str) -> Coverage:
    """Maps every tensor.

    Args:
      block: of quantised tensors; None: there may be none.
      where: what holds the tensors, for errors.

    Raises:
      CheckpointError: a tensor is not known, misshapen or of a dtype that isn't floating, two fill one slice, or one is missing.
    """
    tensor_map = TensorMap(config)
    written = {path: np.zeros(binding.stacked_shape, np.int32) for path, binding in tensor_map.bindings.items()}
    unknown, copied, scales = [], [], 0
    for name, tensor in tensors.items():
        scaled = name.removesuffix(SCALE_SUFFIX)
        if scaled != name and (
            scaled in tensors or tensor_map.locate(scaled)
        ):  # one that is not there is found missing below
            if scaled in tensors:
                _check_scales(name, tensor, tensors[scaled], block, where)
            scales += 1
            continue
        found = tensor_map.locate(name)
        if found is not None:
            binding, place = found
            written[binding.path][place] += 1
            if written[binding.path][place] > 1:
                raise CheckpointError(f"{where}: tensor {name} fills a slice of {binding.path} that another fills as well")
        elif name in tensor_map.copies:
            binding = tensor_map.copies[name]
            copied.append((name, binding.name))
        else:
            if not _HARMLESS.fullmatch(name):
                unknown.append(name)
            continue
        _check_kind(name, tensor, binding, tensors, block, where)
    _check_all(tensor_map, written, unknown, where)
    return Coverage(len(tensors), scales, tuple(copied), written)


def _check_kind(name, tensor: Described, binding: Binding, tensors, block: Block | None, where: str) -> None:
    if tuple(tensor.shape) != binding.stored_shape:
        raise CheckpointError(
            f"{where}: tensor {name} has shape {list(tensor.shape)}; config.json asks for {list(binding.stored_shape)}"
        )
    if tensor.dtype == FP8:
        if block is None:
            raise CheckpointError(f"{where}: tensor {name} is {FP8}, and config.json has no quantization_config for it")
        if f"{name}{SCALE_SUFFIX}" not in tensors:
            raise CheckpointError(f"{where} lacks tensor {name}{SCALE_SUFFIX}, the scales of {name}")
        if len(tensor.shape) != 2:
            raise CheckpointError(f"{where}: tensor {name} is {FP8} of shape {list(tensor.shape)}; only matrices may be")
    elif str(tensor.dtype) not in _KNOWN:
        raise CheckpointError(f"{where}: tensor {name} is {tensor.dtype}; known: {', '.join(_KNOWN)}, {FP8} with scales")


def _check_scales(name: str, tensor: Described, weight: Described, block: Block | None, where: str) -> None:
    if weight.dtype != FP8:
        raise CheckpointError(f"{where}: tensor {name} scales a tensor that is {weight.dtype}, not {FP8}")
    if block is None or len(weight.shape) != 2:
        return  # the weight itself will be refused
    if tuple(tensor.shape) != block.grid(weight.shape):
        raise CheckpointError(
            f"{where}: tensor {name} has shape {list(tensor.shape)}; blocks of {list(block)} of {list(weight.shape)} ask for"
            f" {list(block.grid(weight.shape))}"
        )
    if tensor.dtype not in SCALE_DTYPES:
        raise CheckpointError(f"{where}: tensor {name} is {tensor.dtype}; known: {', '.join(map(str, SCALE_DTYPES))}")


def _check_all(tensor_map: TensorMap, written: Mapping[str, np.ndarray], unknown: list[str], where: str) -> None:
    missing = 0
    first = None
    for path, counts in written.items():
        unfilled = np.argwhere(counts == 0)
        missing += len(unfilled)
        if len(unfilled) and first is None:
            binding = tensor_map.bindings[path]
            spots = {axis: (int(n), int(n) + 1) for axis, n in zip(binding.stacked, unfilled[0])}
            first = next(binding.names({**binding.ranges(), **spots}))[1]
    if first is not None:
        more = f" and {missing - 1} more tensors" if missing > 1 else ""
        instead = f"; it holds {unknown[0]} instead, which is not part of that model" if unknown else ""
        raise CheckpointError(f"{where} lacks tensor {first}{more}, which its config.json asks for{instead}")
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise CheckpointError(f"{where}: tensor {unknown[0]}{more} is not part of the model that config.json describes")

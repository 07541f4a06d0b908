"""A Hugging Face directory as ``Binding`` reads it: configuration, tensors, quantised ones with their scales applied."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from r1jax.checkpoint.huggingface.binding import Binding
from r1jax.checkpoint.huggingface.configuration import config_from_hf, quantisation_from_hf
from r1jax.checkpoint.huggingface.coverage import check
from r1jax.checkpoint.huggingface.fp8 import FP8, SCALE_SUFFIX, Block, dequantise
from r1jax.checkpoint.huggingface.tensor_files import Stored, TensorFiles, read_json, stored_names
from r1jax.checkpoint.integrity import CheckpointError, is_finite
from r1jax.models.config import ModelConfig

_FUSED = re.compile(r"(model\.layers\.\d+\.mlp\.experts)\.(gate_up_proj|down_proj)(_scale_inv)?")
_COMPARED = 1 << 26  # bytes of a tensor and its copy that are compared at a time


def read_documents(path: epath.Path) -> tuple[ModelConfig, Block | None]:
    """The configuration of a Hugging Face directory, and the blocks of its quantised tensors (None: it has none).

    A configuration may name layers of multi-token prediction whose tensors are not there: transformers drops them when it
    saves, and keeps the key. Such a model is read without them.

    Raises:
      CheckpointError: there is no configuration, or it asks for what is not implemented.
    """
    config = read_json(path / "config.json")
    generation = path / "generation_config.json"
    generation_config = read_json(generation) if generation.exists() else None
    for name, value in (("config.json", config), ("generation_config.json", generation_config or {})):
        if not isinstance(value, dict):
            raise CheckpointError(f"{path / name} is not a JSON object")
    try:
        model, block = config_from_hf(config, generation_config), quantisation_from_hf(config)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return without_absent_prediction(model, stored_names(path) if model.num_nextn_predict_layers else None), block


def without_absent_prediction(config: ModelConfig, names: Any) -> ModelConfig:
    """The configuration without multi-token prediction if none of its layers' tensors is among ``names`` (None: unknown)."""
    first = config.num_hidden_layers
    prefixes = tuple(f"model.layers.{first + k}." for k in range(config.num_nextn_predict_layers))
    if names is None or not prefixes or any(name.startswith(prefixes) for name in names):
        return config
    return dataclasses.replace(config, num_nextn_predict_layers=0)


class Weights:
    """The tensors of a Hugging Face directory, checked against its configuration as a whole before any is read.

    Raises:
      CheckpointError: see ``coverage.check``; a copy of the embedding or of the head differs from the original.
    """

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path)
        self.config, self.block = read_documents(self.path)
        self.files = TensorFiles(self.path, split_fused)
        self.coverage = check(self.files, self.config, self.block, str(self.path))
        for copy, original in self.coverage.copies:
            self._compare(copy, original)

    def where(self, name: str) -> str:
        return str(self.files[name].file)

    def dtype(self, name: str) -> np.dtype:
        """Of what ``read`` gives."""
        return np.dtype(np.float32) if self.files[name].dtype == FP8 else self.files[name].dtype

    def exact_dtype(self, binding: Binding) -> np.dtype:
        """The dtype that holds all tensors of a parameter exactly."""
        return np.dtype(functools.reduce(jnp.promote_types, {self.dtype(n) for _, n in binding.names(binding.ranges())}))

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """The part of a tensor at ``index``; of one in FP8 its numbers, in float32."""
        stored = self.files.read(name, index)
        if self.files[name].dtype != FP8:
            return stored
        scales = self.files.read(name + SCALE_SUFFIX, self.block.scales_of(index)).astype(np.float32)
        if not is_finite(scales):
            raise CheckpointError(f"{self.where(name)}: tensor {name}{SCALE_SUFFIX} holds NaN or infinity")
        return dequantise(stored, scales, self.block, index)

    def _compare(self, copy: str, original: str) -> None:
        """A copy that differs would be lost: the model has one embedding and one head."""
        this, that = self.files[copy], self.files[original]
        row = max(1, (that.stop - that.start) // max(1, that.shape[0]))
        step = max(1, _COMPARED // row)
        for start in range(0, that.shape[0], step):
            part = (slice(start, min(start + step, that.shape[0])), slice(0, that.shape[1]))
            if this.dtype != that.dtype or not np.array_equal(
                *(self.files.read(name, part).view(np.uint8) for name in (copy, original))
            ):
                remedy = (
                    "config.json ties them; set tie_word_embeddings to false"
                    if copy == "lm_head.weight"
                    else "multi-token prediction shares it with the model; one of its own is not implemented"
                )
                raise CheckpointError(f"{this.file}: tensor {copy} differs from {original}, yet {remedy}")

    def fingerprint(self) -> str:
        """Of all tensors: places, shapes, first rows, and when their files were last changed (to the second only)."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.files.items()):
            digest.update(f"{name} {tensor.file.name} {tensor.dtype} {tensor.shape} {tensor.start}\n".encode())
            first = tuple(slice(0, min(n, size)) for n, size in zip((1, *tensor.shape[1:]), tensor.shape))
            digest.update(self.files.read(name, first).tobytes())
        for file in sorted({tensor.file for tensor in self.files.values()}):
            digest.update(f"{file.name} {file.stat().length} {file.stat().mtime}\n".encode())
        return digest.hexdigest()


def split_fused(name: str, tensor: Stored) -> dict[str, Stored]:
    """Experts that one tensor holds, as transformers 5 keeps them in memory, under the names of experts apart: ``gate_up_proj
    [E, 2 F, D]`` has each expert's gate and up one after the other, ``down_proj`` is ``[E, D, F]``, and so their scales. Other
    tensors: themselves."""
    fused = _FUSED.fullmatch(name)
    if not fused or len(tensor.shape) != 3 or tensor.shape[1] % 2 and fused[2] == "gate_up_proj":
        return {name: tensor}
    parts = ("gate_proj", "up_proj") if fused[2] == "gate_up_proj" else ("down_proj",)
    experts, rows, columns = tensor.shape
    size = (tensor.stop - tensor.start) // max(1, experts * len(parts))
    names = [f"{fused[1]}.{e}.{part}.weight{fused[3] or ''}" for e in range(experts) for part in parts]
    starts = [tensor.start + i * size for i in range(len(names))]
    shape = (rows // len(parts), columns)
    return {name: tensor._replace(shape=shape, start=at, stop=at + size) for name, at in zip(names, starts)}

"""The map over a checkpoint's table of tensors, without reading or writing one: of a directory, its index, or a table alone."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from r1jax.checkpoint.huggingface.coverage import Coverage, check, layout
from r1jax.checkpoint.huggingface.fp8 import DEEPSEEK_BLOCK, FP8
from r1jax.checkpoint.huggingface.tensor_files import (
    DTYPES,
    INDEX,
    SINGLE,
    TensorFiles,
    parse_json,
    stored_names,
    weight_map,
)
from r1jax.checkpoint.huggingface.weights import read_documents, split_fused, without_absent_prediction
from r1jax.checkpoint.integrity import CheckpointError
from r1jax.models import count_params
from r1jax.models.config import ModelConfig


class Kind(NamedTuple):
    """What a table says of a tensor."""

    dtype: np.dtype
    shape: tuple[int, ...]


class DryRun(NamedTuple):
    """What the map found; all names were mapped, each slice is written once and no parameter is left unfilled.

    Attributes:
      described: whether dtypes and shapes were known, and not names alone.
      numbers: in all parameters.
      rewritten: tensors that the inverse does not give back with the same name, dtype and shape.
    """

    config: ModelConfig
    coverage: Coverage
    described: bool
    numbers: int
    rewritten: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people."""
        slices = sum(counts.size for counts in self.coverage.written.values())
        found = self.coverage
        lines = [
            f"{found.tensors:,} tensors: {found.tensors - found.scales - len(found.copies):,} weights, {found.scales:,} scales of "
            f"them, {len(found.copies)} copies",
            f"{len(found.written)} parameters of {self.numbers:,} numbers in {slices:,} slices, each written once",
        ]
        if not self.described:
            return [*lines, "names alone: the files that the index names are not there, so dtypes and shapes are unchecked"]
        if self.rewritten:
            return [*lines, f"an export would write {len(self.rewritten):,} tensors differently, first {self.rewritten[0]}"]
        return [*lines, f"an export would write the same {found.tensors:,} names, dtypes and shapes"]


def dry_run(source: epath.PathLike) -> DryRun:
    """Maps every tensor.

    Args:
      source: a Hugging Face directory (of which the index is enough), or a table of tensors beside a config.json: a JSON file,
        also in gzip, ``{name: {"shape", "dtype"}}`` with dtypes as safetensors spells them.

    Raises:
      CheckpointError: see ``coverage.check``.
    """
    source = epath.Path(source)
    config, block = read_documents(source if source.is_dir() else source.parent)
    tensors = _read_table(source) if not source.is_dir() else _read_directory(source)
    config = without_absent_prediction(config, tensors if tensors is not None else stored_names(source))
    described = tensors is not None
    if tensors is None:
        expected = layout(config, np.dtype(config.dtype) if block is None else FP8, block or DEEPSEEK_BLOCK)
        names = sorted(stored_names(source))
        tensors = {name: Kind(*expected.get(name, (np.dtype(config.dtype), ()))) for name in names}
    coverage = check(tensors, config, block, str(source))
    return DryRun(config, coverage, described, count_params(config), _rewritten(tensors, config, block))


def _rewritten(tensors: Mapping[str, Any], config: ModelConfig, block: Any) -> tuple[str, ...]:
    quantised = any(tensor.dtype == FP8 for tensor in tensors.values())
    dtype = FP8 if quantised else tensors["model.embed_tokens.weight"].dtype
    inverse = layout(config, dtype, block or DEEPSEEK_BLOCK)
    kinds = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    return tuple(name for name in {**kinds, **inverse} if kinds.get(name) != inverse.get(name))


def _read_directory(path: epath.Path) -> Mapping[str, Any] | None:
    """The tensors of a directory; None where it has an index and none of the files that it names. Some of them are a download
    that is not finished."""
    if not (path / SINGLE).exists() and (path / INDEX).exists():
        if not any((path / file).exists() for file in set(weight_map(path / INDEX).values())):
            return None
    return TensorFiles(path, split_fused)


def _read_table(path: epath.Path) -> dict[str, Kind]:
    try:
        data = path.read_bytes()
        table = parse_json(gzip.decompress(data) if path.name.endswith(".gz") else data)
        return {name: Kind(DTYPES[entry["dtype"]], tuple(entry["shape"])) for name, entry in table.items()}
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f'{path} is no table of tensors, {{name: {{"shape", "dtype"}}}}: {error!r}') from error

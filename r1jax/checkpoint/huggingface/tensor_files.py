"""The safetensors format: a JSON header of names, dtypes, shapes and offsets, then the bytes.

Read without copying (local files are mapped) and by slices; written as a stream, one tensor in memory at a time.
Source: the format's own description in the safetensors repository's README.
"""

from __future__ import annotations

import collections
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from etils import epath

from r1jax.checkpoint.integrity import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}


class Stored(NamedTuple):
    """A tensor in a file: its bytes lie in ``[start, stop)``."""

    file: epath.Path
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def parse_json(text: str | bytes) -> Any:
    """JSON in which no key is given twice: Python's own reader would take the last and drop the others.

    Raises:
      ValueError: it is malformed.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice, _ = collections.Counter(key for key, _ in pairs).most_common(1)[0]
            raise ValueError(f"{twice} is given twice")
        return found

    return json.loads(text, object_pairs_hook=unique)


def read_json(path: epath.Path) -> Any:
    """A JSON file.

    Raises:
      CheckpointError: it is missing or malformed, or gives a key twice.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not sound JSON: {' '.join(str(error).split())}") from error


def _read_header(path: epath.Path) -> dict[str, Stored]:
    """Every tensor of one file, with its place checked against the file's size."""
    try:
        size = path.stat().length
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if 0 < length <= size - 8 else b""
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}") from error
    if not header:
        raise CheckpointError(f"{path} is truncated or no safetensors file: it has {size} bytes; fetch it again")
    tensors = {}
    try:
        for name, entry in parse_json(header).items():
            if name == "__metadata__":
                continue
            start, stop = entry["data_offsets"]
            code, shape = entry["dtype"], tuple(entry["shape"])
            if code not in DTYPES:
                raise CheckpointError(
                    f"{path}: tensor {name} has dtype {code}, which is not implemented; known: {', '.join(DTYPES)}"
                )
            if not 0 <= start <= stop or stop - start != math.prod(shape) * DTYPES[code].itemsize:
                raise CheckpointError(
                    f"{path}: tensor {name} has {stop - start} bytes, which its shape {list(shape)} {code} contradicts"
                )
            tensors[name] = Stored(path, DTYPES[code], shape, 8 + length + start, 8 + length + stop)
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its header is damaged ({error}); fetch it again") from error
    _check_places(path, tensors, size)
    return tensors


def _check_places(path: epath.Path, tensors: Mapping[str, Stored], size: int) -> None:
    """Refuses tensors that lie past the end of their file, and tensors that share bytes."""
    for name, tensor in tensors.items():
        if tensor.stop > size:
            raise CheckpointError(
                f"{path} is truncated: tensor {name} ends at byte {tensor.stop}, the file at {size}; fetch it again"
            )
    filled = sorted((item for item in tensors.items() if item[1].stop > item[1].start), key=lambda item: item[1].start)
    for (before, first), (name, second) in itertools.pairwise(filled):
        if second.start < first.stop:
            raise CheckpointError(f"{path}: its header is damaged: tensors {before} and {name} share bytes; fetch it again")


def stored_names(directory: epath.Path) -> set[str] | None:
    """The names of a directory's tensors, from its index or the header of its only file; None if it has neither."""
    if (directory / SINGLE).exists():
        return set(_read_header(directory / SINGLE))
    return set(weight_map(directory / INDEX)) if (directory / INDEX).exists() else None


def weight_map(path: epath.Path) -> dict[str, str]:
    """Of an index: the file of each tensor."""
    index = read_json(path)
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise CheckpointError(f"{path} lacks weight_map, a mapping of tensors to files")
    return files


class TensorFiles(Mapping[str, Stored]):
    """The tensors of a Hugging Face directory: one ``model.safetensors``, or shards that an index names.

    Args:
      split: the tensors, by name, that a stored one is to be seen as: parts of its bytes.

    Raises:
      CheckpointError: no such files, a shard missing, truncated or contradicting the index.
    """

    def __init__(self, directory: epath.PathLike, split: Callable[[str, Stored], dict[str, Stored]] | None = None):
        self.directory = epath.Path(directory)
        if (self.directory / SINGLE).exists():
            self._tensors = _read_header(self.directory / SINGLE)
        elif (self.directory / INDEX).exists():
            self._tensors = self._read_index(self.directory / INDEX)
        else:
            hint = "; convert its .bin files to safetensors first" if list(self.directory.glob("*.bin")) else ""
            raise CheckpointError(f"{self.directory} has neither {SINGLE} nor {INDEX}{hint}")
        if split is not None:
            parts = [part for name, tensor in self._tensors.items() for part in split(name, tensor).items()]
            self._tensors = dict(parts)
            if len(self._tensors) != len(parts):
                raise CheckpointError(f"{self.directory} holds experts apart and in one tensor; remove one of the two")

    def _read_index(self, path: epath.Path) -> dict[str, Stored]:
        files = weight_map(path)
        tensors: dict[str, Stored] = {}
        for file in sorted(set(files.values())):
            if not (self.directory / file).exists():
                raise CheckpointError(f"{self.directory / file} is missing, yet {path.name} names it; fetch it")
            for name, tensor in _read_header(self.directory / file).items():
                if name in tensors:
                    raise CheckpointError(f"{self.directory}: tensor {name} is in {tensors[name].file.name} and in {file}")
                tensors[name] = tensor
        for name, file in files.items():
            if name not in tensors or tensors[name].file.name != file:
                raise CheckpointError(f"{self.directory / file} lacks tensor {name}, which {path.name} places there")
        return tensors

    def __getitem__(self, name: str) -> Stored:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """A tensor, or the part of it that ``index`` (a slice with bounds per dimension, step 1) selects.

        Of a local file only the pages that the part lies on are read; of a remote one, its range of leading rows.
        """
        tensor = self._tensors[name]
        index = index if index is not None else tuple(slice(0, size) for size in tensor.shape)
        if not tensor.shape:
            return self._bytes(tensor.file, tensor.start, tensor.stop).view(tensor.dtype).reshape(())
        row = math.prod(tensor.shape[1:]) * tensor.dtype.itemsize
        first, last = index[0].start, index[0].stop
        data = self._bytes(tensor.file, tensor.start + first * row, tensor.start + last * row)
        return data.view(tensor.dtype).reshape(last - first, *tensor.shape[1:])[(slice(None), *index[1:])]

    def _bytes(self, path: epath.Path, start: int, stop: int) -> np.ndarray:
        if "://" in os.fspath(path):
            with path.open("rb") as file:
                file.seek(start)
                return np.frombuffer(file.read(stop - start), np.uint8)
        if start == stop:
            return np.empty(0, np.uint8)
        # A map for each read: what was read counts as the process's memory until its map is gone.
        return np.asarray(np.memmap(os.fspath(path), np.uint8, "r", start, (stop - start,)))


def write_tensors(
    path: epath.Path, layout: Mapping[str, tuple[np.dtype, tuple[int, ...]]], tensors: Iterable[np.ndarray]
) -> None:
    """Writes one file: ``layout`` gives each tensor's dtype and shape, ``tensors`` the arrays in the same order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape) in layout.items():
        size = math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _CODES[np.dtype(dtype)], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data aligned
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (name, (dtype, shape)), array in zip(layout.items(), tensors, strict=True):
            if array.dtype != dtype or array.shape != shape:
                raise AssertionError(f"{name}: {array.dtype} {array.shape} where {dtype} {shape} was announced")
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

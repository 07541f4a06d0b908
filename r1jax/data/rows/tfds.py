"""Data sets of TensorFlow Datasets by name, from files that were prepared once. TensorFlow is not needed and not loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from r1jax.config import DataSource, nearest
from r1jax.data.rows.errors import DataError

SCHEME = "tfds:"


def is_tfds_name(path: str) -> bool:
    """Whether a path is the name of a TFDS data set: ``tfds:NAME``, ``tfds:NAME/CONFIG``, ``tfds:NAME/CONFIG:VERSION``."""
    return path.startswith(SCHEME)


class Prepared:
    """A split of a prepared data set.

    Args:
      builder: of ``tensorflow_datasets``, made from the files.
      source: what names it.
    """

    def __init__(self, builder: Any, source: DataSource):
        self._builder, self._where = builder, f"{source.path}[{source.split}]"
        splits = builder.info.splits
        known = ", ".join(f"{name} ({split.num_examples:,})" for name, split in splits.items())
        if not source.split:
            raise DataError(f"{source.path}: which split? It has {known}; write split: NAME")
        try:
            self._split = splits[source.split]
        except (KeyError, ValueError, AssertionError):
            guess = nearest(source.split, list(splits))
            raise DataError(f"{source.path}: no split {source.split!r} among {known}{guess}") from None
        try:
            self._records = builder.as_data_source(split=source.split)
        except NotImplementedError:
            raise DataError(
                f"{source.path} is prepared as {builder.info.file_format.value} in {builder.data_dir}, which can't be read "
                "without TensorFlow; prepare it again with --file_format=array_record"
            ) from None
        except RuntimeError as error:
            raise self._broken(error) from None

    def files(self) -> list[epath.Path]:
        """The split's files, and those that say what is in them."""
        folder = epath.Path(self._builder.data_dir)
        described = [folder / name for name in ("dataset_info.json", "features.json")]
        names = dict.fromkeys(os.fspath(part.filename) for part in self._split.file_instructions)
        return [*map(epath.Path, names), *described]

    def rows(self) -> Iterator[tuple[str, Any]]:
        """``(where, row)`` of each example, its values as JSON has them."""
        features = self._builder.info.features
        for number in range(len(self._records)):
            where = f"{self._where}:{number + 1}"
            try:
                example = self._records[number]
            except (RuntimeError, ValueError) as error:
                raise self._broken(error) from None
            yield where, _plain(example, features, where)

    def _broken(self, error: Exception) -> DataError:
        said = " ".join(str(error).split())
        return DataError(f"{self._where}: its files in {self._builder.data_dir} are not whole: {said}")


def prepared(source: DataSource, root: epath.PathLike = ".") -> Prepared:
    """The split that a source names, from ``source.data_dir`` (a relative one is looked up from ``root``), ``TFDS_DATA_DIR``
    or TFDS's own default. Nothing is downloaded, and the data set's own code is not run.

    Raises:
      DataError: no such data set there, no such split, a format that needs TensorFlow.
    """
    try:
        from tensorflow_datasets.core.read_only_builder import builder_from_files
        from tensorflow_datasets.core.registered import DatasetNotFoundError
    except ImportError as error:
        raise DataError(
            f"{source.path}: TFDS needs tensorflow-datasets: pip install tensorflow-datasets ({error})"
        ) from None
    name = source.path.removeprefix(SCHEME)
    folder = os.environ.get("TFDS_DATA_DIR", str(Path.home() / "tensorflow_datasets"))
    if source.data_dir:
        folder = os.fspath(epath.Path(root) / epath.Path(source.data_dir).expanduser())
    try:
        builder = builder_from_files(name, data_dir=folder)
    except DatasetNotFoundError:
        raise DataError(
            f"{source.path}: {folder} holds no such data set; set data_dir or TFDS_DATA_DIR to where it lies, or prepare it, "
            f"where TensorFlow is installed: tfds build {re.split('[/:]', name)[0]} --file_format=array_record"
        ) from None
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        raise DataError(f"{source.path} can't be read from {folder}: {' '.join(str(error).split())}") from None
    return Prepared(builder, source)


def _plain(value: Any, feature: Any, where: str) -> Any:
    """What TFDS gives as JSON has it: texts are bytes there, numbers NumPy's, and a list of mappings a mapping of lists."""
    inner = getattr(feature, "feature", None)  # of a sequence
    if hasattr(inner, "items") and isinstance(value, dict):
        rows = [dict(zip(value, each)) for each in zip(*value.values())]
        return [_plain(row, inner, where) for row in rows]
    if isinstance(value, dict):
        return {name: _plain(each, feature[name], where) for name, each in value.items()}
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim):
        return [_plain(each, inner, where) for each in value]
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.item()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not text in UTF-8: {error}") from None
    return value

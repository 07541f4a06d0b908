"""Rows of data as they lie on disk: JSONL, JSON, CSV, Parquet and ArrayRecord files, one or many, and TFDS data sets by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from etils import epath

from r1jax.config import DataSource
from r1jax.data.rows.errors import DataError
from r1jax.data.rows.files import find_files, read_file
from r1jax.data.rows.tfds import is_tfds_name, prepared

__all__ = ["DataError", "data_files", "is_tfds_name", "read_rows"]


def data_files(source: DataSource, root: epath.PathLike = ".") -> list[epath.Path]:
    """The files that hold a data set, in the order in which they are read.

    Args:
      source: its ``path``: a file, a folder of files of one format, a pattern with ``*``, ``?`` or ``[``, or
        ``tfds:NAME``, ``tfds:NAME/CONFIG:VERSION``.
      root: folder from which a relative path is looked up.

    Raises:
      DataError: there are none, a shard is missing, or they are of several formats.
    """
    if is_tfds_name(source.path):
        return prepared(source, root).files()
    if source.split or source.data_dir:
        key = "split" if source.split else "data_dir"
        raise DataError(f"{key} is of TFDS data sets, and {source.path!r} is none; leave it out, or write path: tfds:NAME")
    return find_files(source.path, root)


def read_rows(source: DataSource, root: epath.PathLike = ".") -> Iterator[tuple[str, Any]]:
    """``(where, row)`` of the first ``source.limit`` rows (0: all); ``where`` names file and row, for errors.

    Raises:
      DataError: see ``data_files``; a broken file or row; no rows; a package that reads the format is not installed.
    """
    count = 0
    for where, row in _all_rows(source, root):
        count += 1
        yield where, row
        if count == source.limit:
            return
    if not count:
        raise DataError(f"{source.path} has no rows")


def _all_rows(source: DataSource, root: epath.PathLike) -> Iterator[tuple[str, Any]]:
    if is_tfds_name(source.path):
        yield from prepared(source, root).rows()
        return
    for path in data_files(source, root):
        for number, row in read_file(path):
            yield f"{path}:{number}", row

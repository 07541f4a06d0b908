"""Files of rows: which of them a path means, and how each format is read."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from r1jax.data.rows.errors import DataError

Rows = Iterator[tuple[int, Any]]  # (line or record number from 1, row)

_SHARD = re.compile(r"-(\d{5,})-of-(\d{5,})(?=\.|$)")  # train.array_record-00001-of-00004, train-00001-of-00004.jsonl
_RECORDS_READ_TOGETHER = 1_024


# ---------------------------------------------------------------------------------------------- which files
def find_files(path: str, root: epath.PathLike = ".") -> list[epath.Path]:
    """The files that ``path`` means, by name: itself, those that a pattern matches, those with rows in a folder.

    Raises:
      DataError: none; a shard is missing; a pattern or folder has files of several formats, which may be the same rows twice.
    """
    place = epath.Path(root) / epath.Path(path).expanduser()  # an absolute path replaces the root
    if place.is_file():
        return [place]
    if place.is_dir():
        found = [each for each in place.iterdir() if _is_shown(each) and format_of(each) not in (None, ".json")]
        if not found:
            raise DataError(f"data set {path!r} is no file, and the folder {place} holds no {_known()}")
    elif glob.has_magic(path):
        found = [each for each in _glob(place) if _is_shown(each)]
        if not found:
            raise DataError(f"data set {path!r}: no file matches {place}")
    else:
        raise DataError(f"data set {path!r}: there is no file {place}")
    found = sorted(found)
    if len(formats := sorted({format_of(each) or ".jsonl" for each in found})) > 1:
        raise DataError(f"data set {path!r} has files of several formats ({', '.join(formats)}); name one: *{formats[0]}")
    _check_shards(path, found)
    return found


def _is_shown(path: epath.Path) -> bool:
    return not path.name.startswith((".", "_")) and path.is_file()


def _glob(pattern: epath.Path) -> Iterator[epath.Path]:
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return epath.Path(*parts[:first]).glob("/".join(parts[first:]))


def _check_shards(path: str, files: list[epath.Path]) -> None:
    """A set of ``NAME-00001-of-00004`` is whole or it is refused."""
    shards: dict[tuple[str, int], set[int]] = {}
    for each in files:
        if match := _SHARD.search(each.name):
            name = each.parent / f"{each.name[: match.start()]}*{each.name[match.end() :]}"
            shards.setdefault((str(name), int(match[2])), set()).add(int(match[1]))
    for (name, count), there in shards.items():
        if missing := sorted(set(range(count)) - there):
            raise DataError(
                f"data set {path!r}: of the {count} shards {name} {len(missing)} are missing, number {missing[0]} first"
            )


# ---------------------------------------------------------------------------------------------- formats
def format_of(path: epath.Path) -> str | None:
    """The suffix that says how a file is read, or None where it is none that is known."""
    name = _SHARD.sub("", path.name)
    return next((suffix for suffix in READERS if name.endswith(suffix)), None)


def read_file(path: epath.Path) -> Rows:
    """The rows of one file; what has no known suffix is read as JSONL.

    Raises:
      DataError: a line that is no JSON, a file that is not whole, no reader, a ``.json`` file that holds no list, a table of
        which a row has not one cell for each column.
    """
    return READERS[format_of(path) or ".jsonl"](path)


def _known() -> str:
    *most, last = (suffix for suffix in READERS if suffix != ".json")
    return f"{', '.join(most)} or {last} files"


def _jsonl(path: epath.Path) -> Rows:
    yield from _lines(path, path.read_bytes())


def _gzipped(path: epath.Path) -> Rows:
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file: {error}") from None
    yield from _lines(path, data)


def _lines(path: epath.Path, data: bytes) -> Rows:
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            yield number, parsed(line, f"{path}:{number}: not a line of JSON")


def _json(path: epath.Path) -> Rows:
    rows = parsed(path.read_bytes(), f"{path}: not JSON")
    if not isinstance(rows, list):
        raise DataError(f"{path}: a .json file must hold a list of rows, not {type(rows).__name__}")
    yield from enumerate(rows, 1)


def _csv(path: epath.Path) -> Rows:
    """A table (RFC 4180) whose first line names the columns. Every cell is text; a row has the number of its first line."""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # spreadsheets put a byte order mark in front
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not text in UTF-8: {error}") from None
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: list[str] = []
    first = 1
    try:
        for cells in table:
            if not names:
                names = _columns(cells, f"{path}:{first}")
            elif cells and len(cells) != len(names):
                raise DataError(f"{path}:{first}: {len(cells)} cells for the {len(names)} columns {', '.join(names)}")
            elif cells:
                yield first, dict(zip(names, cells))
            first = table.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{first}: not a row of CSV: {error}; mend the row, or convert the file to JSONL") from None


def _columns(names: list[str], where: str) -> list[str]:
    if not all(name.strip() for name in names) or len(set(names)) < len(names):
        raise DataError(f"{where}: the first line must name every column, each once, not {', '.join(map(repr, names)):.80}")
    return names


def _parquet(path: epath.Path) -> Rows:
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{path}: Parquet needs pyarrow: pip install pyarrow (or convert the file to JSONL)") from None
    try:
        with path.open("rb") as file:
            rows = pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a whole Parquet file: {' '.join(str(error).split())}") from None
    yield from enumerate(rows, 1)


def _array_record(path: epath.Path) -> Rows:
    """A record is a row as JSON in UTF-8, as ``data.writing`` writes it."""
    try:
        from array_record.python.array_record_data_source import ArrayRecordDataSource
    except ImportError:
        raise DataError(f"{path}: ArrayRecord needs array_record: pip install array_record (or convert to JSONL)") from None
    try:
        source = ArrayRecordDataSource(str(path))
        for first in range(0, len(source), _RECORDS_READ_TOGETHER):
            numbers = range(first, min(first + _RECORDS_READ_TOGETHER, len(source)))
            for number, record in zip(numbers, source.__getitems__(numbers)):
                yield number + 1, parsed(record, f"{path}:{number + 1}: not a record of JSON (TFDS's are read as tfds:NAME)")
    except RuntimeError as error:
        raise DataError(f"{path}: not a whole ArrayRecord file: {' '.join(str(error).split())}") from None


def parsed(data: bytes, trouble: str) -> Any:
    """A value of JSON.

    Raises:
      DataError: it is none; the message begins with ``trouble``.
    """
    try:
        return json.loads(data)
    except ValueError as error:  # JSON and UTF-8 errors both
        raise DataError(f"{trouble}: {error}") from None
    except RecursionError:
        raise DataError(f"{trouble}: it is nested too deeply") from None


READERS: dict[str, Callable[[epath.Path], Rows]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _gzipped,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
    ".array_record": _array_record,
}

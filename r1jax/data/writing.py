"""Rows as JSONL, Parquet and ArrayRecord that others can load: ``datasets``, pandas, grain, and r1jax itself.

A column holds values of one type in all rows; where rows disagree, it is written as JSON text. What a row lacks is absent in
JSONL and null in Parquet.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def _kind(value: Any) -> str:
    """The type of a value as a column has it; empty where it fits any (None, an empty list)."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "number" if abs(value) < 1 << 63 else "large number"
    if isinstance(value, float):
        return "number"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_kind(value[key])}" for key in sorted(value, key=str)) + "}"
    if isinstance(value, (list, tuple)):
        inner = {_kind(item) for item in value} - {""}
        return f"[{'|'.join(sorted(inner))}]" if inner else ""
    return "text"


def _mixed(kinds: set[str]) -> bool:
    """Whether values of these kinds can't stand in one column."""
    return len(kinds) > 1 or any("|" in kind or "large" in kind or ":}" in kind or ":," in kind for kind in kinds)


def uniform(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with each column of one type: the fields of the prompts that have several become JSON text."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    mixed = {name for name in names if _mixed({_kind(row.get(name)) for row in rows} - {""})}

    def cell(name: str, value: Any) -> Any:
        return json.dumps(value, ensure_ascii=False, sort_keys=True) if name in mixed else value

    return [{name: cell(name, row[name]) for name in names if row.get(name) is not None} for row in rows]


def jsonl_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row per line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def parquet_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes | None:
    """The rows as Parquet; None where pyarrow is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return None
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.BytesIO()
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in names})
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


def array_record_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes | None:
    """The rows as ArrayRecord, each a record of JSON in UTF-8; None where array_record is not installed (it comes with grain,
    but for Windows)."""
    try:
        from array_record.python.array_record_module import ArrayRecordWriter
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.array_record"
        writer = ArrayRecordWriter(str(path), "group_size:1")  # a group is read as a whole: 1 for random access
        for row in rows:
            writer.write(json.dumps(row, ensure_ascii=False).encode())
        writer.close()
        return path.read_bytes()

"""Prompt sets: rows of problems from JSONL or Parquet, and the order in which a run takes them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from etils import epath

from r1jax.config import DataSource
from r1jax.data.template import check_template


class DataError(ValueError):
    """A data set that can't be used; one line that names the file, the row and the remedy."""


@dataclass(frozen=True)
class PromptRow:
    """One problem.

    Attributes:
      index: its place in the data set, from 0.
      problem: the text that its template wraps.
      answer: the reference as the data set gives it (GSM8K's whole solution, for instance); empty if there is none.
      template: name or text of the prompt template (``data.template``).
      grader: name of the grader.
      row: everything the row holds, for graders that need more.
    """

    index: int
    problem: str
    answer: str
    template: str
    grader: str
    row: Mapping[str, Any]


def load_prompts(source: DataSource, root: epath.PathLike = ".") -> list[PromptRow]:
    """Reads the rows of a prompt set or benchmark.

    Args:
      source: path (``.jsonl``, ``.jsonl.gz`` or ``.parquet``), defaults for template and grader, field names, limit.
      root: folder from which a relative path is looked up.

    Raises:
      DataError: no such file, no rows, a broken line, a missing field, an unknown template; it names file and line.
    """
    path = data_file(source, root)
    rows = []
    for number, row in read_rows(path):
        rows.append(_prompt_row(len(rows), row, source, f"{path}:{number}"))
        if len(rows) == source.limit:
            break
    if not rows:
        raise DataError(f"{path} has no rows")
    return rows


def data_file(source: DataSource, root: epath.PathLike = ".") -> epath.Path:
    """Where a data set lies; a relative path is looked up from ``root``.

    Raises:
      DataError: there is no file.
    """
    path = epath.Path(root) / source.path  # an absolute path replaces the root
    if not path.exists():
        raise DataError(f"data set {source.path}: there is no file {path}")
    return path


def read_rows(path: epath.Path) -> Iterator[tuple[int, Any]]:
    """(line or row number from 1, row) of each row of JSONL or Parquet, or of a ``.json`` file that is one list.

    Raises:
      DataError: a line that is no JSON, no Parquet reader, a ``.json`` file that holds no list.
    """
    if path.suffix == ".parquet":
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
        return
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: not a whole gzip file: {error}") from None
    if path.suffix == ".json":
        rows = _parsed(data, f"{path}: not JSON")
        if not isinstance(rows, list):
            raise DataError(f"{path}: a .json file must hold a list of rows, not {type(rows).__name__}")
        yield from enumerate(rows, 1)
        return
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            yield number, _parsed(line, f"{path}:{number}: not a line of JSON")


def _parsed(data: bytes, trouble: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:  # JSON and UTF-8 errors both
        raise DataError(f"{trouble}: {error}") from None
    except RecursionError:
        raise DataError(f"{trouble}: it is nested too deeply") from None


def _prompt_row(index: int, row: Any, source: DataSource, where: str) -> PromptRow:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: a row must be a JSON object, not {type(row).__name__}")
    grader = row.get("grader") or source.grader
    if not isinstance(grader, str):
        raise DataError(f"{where}: grader must be text, not {grader!r:.80}")
    template, problem = read_template(row, source, where), read_problem(row, source.prompt_field, where)
    answer = _answer(row, source.answer_field, grader, where)
    try:  # a run records the rows that it sampled for
        json.dumps(row, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: the row is not valid Unicode: {error}") from None
    return PromptRow(index, problem, answer, template, grader, dict(row))


def read_template(row: Mapping[str, Any], source: DataSource, where: str) -> str:
    """The row's prompt template, or its source's.

    Raises:
      DataError: it is unknown; ``where`` names the row.
    """
    template = source.override_template or row.get("template") or source.template
    if not isinstance(template, str):
        raise DataError(f"{where}: template must be text, not {template!r:.80}")
    try:
        check_template(template)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    return template


def read_problem(row: Mapping[str, Any], field: str, where: str) -> str:
    """The problem under ``field``, or its usual names: problem (MATH), question (GSM8K), Body and Question (SVAMP), prompt
    (HumanEval, IFEval) and, since they tell the function's name, the tests of ``test_list`` (MBPP).

    Raises:
      DataError: it is missing, empty, no text; ``where`` names the row.
    """
    problem = _find_problem(row, field, where)
    check_text(problem, "problem", where)
    return problem


def check_text(text: Any, name: str, where: str) -> None:
    """Refuses what is no text, is empty or is not valid Unicode: a DataError that names it and ``where``."""
    if not isinstance(text, str):
        raise DataError(f"{where}: {name} must be text, not {text!r:.80}")
    if not text.strip():
        raise DataError(f"{where}: the {name} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: the {name} is not valid Unicode: {error}") from None


def _with_tests(problem: str, tests: list) -> str:
    return "\n".join([f"{problem.rstrip()}\nThe code must pass these tests:", *map(str, tests)])


def _find_problem(row: Mapping[str, Any], field: str, where: str) -> str:
    if not field and "Body" in row and "Question" in row:
        body, question = str(row["Body"]).strip(), str(row["Question"]).strip()
        if body and body[-1] not in ".?!,;:":
            body += "," if question[:1].islower() else "."
        return f"{body} {question}".strip()
    names = [field] if field else ["problem", "question", "Question", "prompt"]
    for name in names:
        if row.get(name) is not None:
            if not isinstance(row[name], str):
                raise DataError(f"{where}: {name} must be text, not {row[name]!r:.80}")
            return row[name] if field or not row.get("test_list") else _with_tests(row[name], row["test_list"])
    raise DataError(f"{where}: no {' or '.join(names[:2])} among its fields {', '.join(map(str, row)) or '(none)'}")


def _answer(row: Mapping[str, Any], field: str, grader: str, where: str) -> str:
    names = [field] if field else ["answer", "Answer"]
    for name in names:
        value = row.get(name)
        if value is not None:
            if isinstance(value, float) and value.is_integer():
                value = int(value)  # SVAMP writes 145.0 for 145
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if grader == "verify_math" or field:
        raise DataError(f"{where}: no {' or '.join(names)} among its fields {', '.join(map(str, row)) or '(none)'}")
    return ""


class PromptOrder:
    """An endless order of prompts, shuffled anew in each epoch, the same on any number of hosts.

    The order is global: every host takes the same indices and works on its share, ``taken[host::hosts]``. The state
    is one number, so a run may resume on another number of hosts.

    Args:
      count: rows of the data set.
      seed: of the shuffles.
    """

    def __init__(self, count: int, seed: int):
        if count < 1:
            raise ValueError(f"an order of {count} prompts is impossible: the data set is empty")
        import grain  # imports jax

        self._order = grain.MapDataset.range(count).seed(seed % 2**32).shuffle().repeat()
        self.count = count
        self.next_index = 0

    def take(self, number: int) -> list[int]:
        """The next ``number`` row indices; within an epoch none comes twice."""
        taken = [int(self._order[i]) for i in range(self.next_index, self.next_index + number)]
        self.next_index += number
        return taken

    @property
    def epoch(self) -> int:
        """Times that the whole data set has been taken."""
        return self.next_index // self.count

    def state(self) -> dict[str, int]:
        """What a checkpoint keeps."""
        return {"next_index": self.next_index}

    def restore(self, state: Mapping[str, int]) -> None:
        """Goes on from ``state``."""
        self.next_index = int(state["next_index"])

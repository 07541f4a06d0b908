"""Prompt sets: rows of problems, and the order in which a run takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etils import epath

from r1jax.config import DataSource
from r1jax.data.rows import DataError, read_rows
from r1jax.data.template import check_template


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
      source: where it lies (``data.rows``), defaults for template and grader, field names, limit.
      root: folder from which a relative path is looked up.

    Raises:
      DataError: no such file, no rows, a broken line, a missing field, an unknown template; it names file and line.
    """
    return [_prompt_row(index, row, source, where) for index, (where, row) in enumerate(read_rows(source, root))]


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
    kept = dict(row)
    if source.type and not kept.get("type"):
        kept["type"] = source.type
    return PromptRow(index, problem, answer, template, grader, kept)


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

"""The data set that a stage makes: its rows, and how they are written so that anybody can read them.

    <stage>/data.jsonl         a row per line; r1jax's own stages read it
    <stage>/data.parquet       the same rows, where pyarrow is installed
    <stage>/data.array_record  the same rows for random access (grain), where array_record is installed

Columns that all rows have come first; the prompts' own fields follow (``data.writing`` says how they become columns).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etils import epath

from r1jax import config
from r1jax.data.examples import example_rows
from r1jax.data.rows import read_rows
from r1jax.data.writing import array_record_bytes, jsonl_text, parquet_bytes, uniform
from r1jax.pipeline import records

FIRST_COLUMNS = ("id", "domain", "source", "problem", "completion", "template", "answer", "grader", "tokens", "sample")
SAMPLED, GENERAL = "sampled", "general"


@dataclass(frozen=True)
class Example:
    """A row in the making.

    Attributes:
      text: the completion, with its ``<think>``, without the token that ends it.
      prompt: number of its prompt in the prompt set; of general data -1 minus its row.
      sample: number of the sample.
      row: all other fields of the row it comes from.
      tokens: length of ``text`` in tokens of the stage's model.
    """

    problem: str
    text: str
    domain: str
    prompt: int
    sample: int = 0
    tokens: int = 0
    row: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        return GENERAL if self.prompt < 0 else SAMPLED

    def to_row(self, template: str) -> dict[str, Any]:
        """The row that is written. A dialogue stays one (``messages``); the others are a problem, a template, a completion."""
        own = {key: value for key, value in self.row.items() if value is not None}
        written = {
            "id": f"{own.get('id', f'{self.source}-{max(self.prompt, -1 - self.prompt)}')}-{self.sample}",
            "domain": self.domain,
            "source": self.source,
            "problem": self.problem,
            "completion": self.text,
            "template": template or own.get("template", ""),
            "answer": str(own.get("answer", "")),
            "grader": str(own.get("grader", "none")),
            "tokens": self.tokens,
            "sample": self.sample,
        }
        if "messages" in own:
            for key in ("problem", "completion", "template"):
                written.pop(key)
        else:
            own.pop("messages", None)
        return written | {key: value for key, value in own.items() if key not in FIRST_COLUMNS}


def domain_of(row: Mapping[str, Any], domain_field: str, grader: str) -> str:
    """The row's domain, or the name of its grader where it has none."""
    return str(row.get(domain_field) or grader)


def read_general(source: config.DataSource, domain_field: str) -> list[Example]:
    """General data: rows as supervised fine-tuning reads them (``data.examples``). Their domain is ``general`` where they name
    none.

    Raises:
      DataError: a row without an answer to learn; it names file and line.
    """
    examples = []
    raw = (row for _, row in read_rows(source))
    for number, (example, row) in enumerate(zip(example_rows(source), raw)):
        own = {key: value for key, value in row.items() if key != "messages"}
        problem = example.problem
        if example.messages is None:
            own["template"] = example.template
        else:  # with the same keys in every row; a reasoning of the answer stands in the completion already
            turns = [*example.messages, {"role": "assistant", "content": example.completion}]
            own["messages"] = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
            problem = "\n".join(turn["content"] for turn in turns[:-1])
        examples.append(Example(problem, example.completion, str(row.get(domain_field) or GENERAL), -1 - number, row=own))
    return examples


# ---------------------------------------------------------------------------------------------- writing
def write_dataset(folder: epath.Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Writes the data set; gives the names of the files that there are then."""
    first = {name: None for name in FIRST_COLUMNS}
    rows = uniform([first | row for row in rows])
    records.write_atomic(folder / "data.jsonl", jsonl_text(rows))
    yield "data.jsonl"
    for name, write in (("data.parquet", parquet_bytes), ("data.array_record", array_record_bytes)):
        if (table := write(rows)) is not None:
            records.write_atomic(folder / name, table)
            yield name

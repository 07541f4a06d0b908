"""A stage that makes data: its line of the tables, its tables in the report; a damaged card costs nothing else."""

import json

import pytest

from r1jax.reporting import results_table, write_report
from r1jax.reporting.collect import collect
from r1jax.reporting.tables import stage_rows

CARD = {
    "rows": 40,
    "sampled_rows": 30,
    "general_rows": 10,
    "samples": 1256,
    "right": 900,
    "tokens": {"mean": 38.31},
    "rejected": {"mixed <languages>": 61, "wrong": 8},
    "domains": {
        "math": {"prompts": 300, "samples": 1256, "right": 900, "kept": 30, "general": 0, "tokens": {"mean": 40.5},
                 "rejected": {"wrong": 8, "mixed <languages>": 61}},
        "general": {"prompts": 0, "samples": 0, "right": 0, "kept": 0, "general": 10, "tokens": {"mean": 12}, "rejected": {}},
    },
}  # fmt: skip


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "work"
    (folder / "stages/sampling").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(
        json.dumps({"name": "r", "stages": [{"name": "sampling", "kind": "rejection_sampling"}]})
    )
    (folder / "stages/sampling/commit.json").write_text('{"files": {}, "content": {}}')
    (folder / "stages/sampling/card.json").write_text(json.dumps(CARD))
    return folder


def test_its_lines_of_the_table(workdir):
    assert results_table(workdir)[1] == [
        ["sampling", "data", "right", "1,256 samples", "900"],
        ["", "", "rows", "1,256 samples", "40"],
        ["", "", "mean tokens", "", "38.3"],
        ["", "", "mixed <languages>", "rejected", "61"],
        ["", "", "wrong", "rejected", "8"],
    ]
    (row,) = stage_rows(collect(workdir))
    assert row["lead"] == "30 rows of 1,256 samples, 10 of general data"


def test_its_tables_in_the_report(workdir):
    text = open(write_report(workdir), encoding="utf-8").read()
    assert "From prompts to rows" in text and "Rejected samples" in text and "Nothing has happened yet" not in text
    assert "mixed &lt;languages&gt;" in text and "mixed <languages>" not in text.partition("<script")[0]


def test_a_card_is_shown_once_the_stage_is_complete(workdir):
    (workdir / "stages/sampling/commit.json").unlink()
    assert collect(workdir).stages[0].card is None


@pytest.mark.parametrize(
    "card", ["{", "[]", '{"rows": "many", "domains": 3}', '{"rows": 2, "domains": {"a": [1]}, "tokens": 3}']
)
def test_a_damaged_card_costs_nothing_else(workdir, card):
    (workdir / "stages/sampling/card.json").write_text(card)
    results_table(workdir)
    write_report(workdir)

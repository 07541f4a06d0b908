"""The tables of a run with several stages: reward parts beside accuracy, the paper's table of stages."""

import json
from types import SimpleNamespace

from r1jax.reporting import stages_by_side, write_report
from r1jax.reporting.tables import comparisons, stage_tables


def figures(accuracy, **parts):
    return {
        "problems": 100,
        "samples": 4,
        "pass@1": accuracy,
        "pass@1_interval": [accuracy - 0.02, accuracy + 0.02],
        "cons@k": accuracy + 0.05,
        "mean_tokens": 40.0,
        "parts": parts,
        "parts_interval": {name: [value - 0.01, value + 0.01] for name, value in parts.items()},
    }


def stages():
    return [
        {
            "name": "zero",
            "before": {"test": figures(0.17)},
            "after": {"test": figures(0.93, language=0.85), "dev": figures(0.9)},
        },
        {"name": "data", "before": {}, "after": {}},
        {
            "name": "dev1",
            "before": {"test": figures(0.17)},
            "after": {"test": figures(0.6, language=0.99, think_format=0.97)},
        },
    ]


def test_stages_stand_side_by_side():
    (table,) = stage_tables(SimpleNamespace(results=stages()))  # dev was measured on one stage only
    assert table["benchmark"] == "test" and table["columns"] == ["before zero", "zero", "dev1"]
    rows = {label: cells for label, *cells in table["rows"]}
    assert rows["pass@1"] == [("17.0%", " [15.0, 19.0]"), ("93.0%", " [91.0, 95.0]"), ("60.0%", " [58.0, 62.0]")]
    assert rows["language"] == [("–", ""), ("85.0%", " [84.0, 86.0]"), ("99.0%", " [98.0, 100.0]")]
    assert rows["think_format"][0] == rows["think_format"][1] == ("–", "")


def test_one_stage_needs_no_such_table():
    assert not list(stage_tables(SimpleNamespace(results=stages()[:2])))


def test_parts_stand_among_the_figures_before_and_after():
    compared = list(comparisons(SimpleNamespace(results=stages()[:1])))[0]
    (row,) = [row for row in compared["rows"] if row[0] == "language"]
    assert row == ["language", ("–", ""), ("85.0%", " [84.0, 86.0]"), ""]


def test_in_the_report_and_the_terminal(make_run):
    workdir = make_run(5)
    with open(f"{workdir}/results.json", encoding="utf-8") as file:
        first = json.load(file)[0]["name"]
    entries = stages()
    entries[0]["name"] = first
    with open(f"{workdir}/results.json", "w", encoding="utf-8") as file:
        json.dump(entries, file)
    with open(write_report(workdir), encoding="utf-8") as file:
        page = file.read()
    assert "Stage by stage" in page and ">dev1</th>" in page
    ((title, columns, rows),) = stages_by_side(workdir)
    assert title == "Stages on test" and columns == ["figure", f"before {first}", first, "dev1"]
    assert ["language", "–", "85.0%", "99.0%"] in rows

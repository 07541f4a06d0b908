"""A stage that learns from examples: its curves, its plan, its row of the table; nothing is said of rollouts."""

import json

import pytest

from r1jax.reporting import results_table, write_report
from r1jax.reporting.collect import collect
from r1jax.reporting.plots import sections
from r1jax.reporting.tables import stage_rows


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "work"

    def write(path, value):
        path = folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))

    write("recipe.yaml", {"name": "students", "stages": [{"name": "student", "kind": "sft", "steps": 0}]})
    write("stages/student/plan.json", {"steps": 50})
    for step in range(20):
        metrics = {"step": step, "epoch": step / 10, "cross_entropy": 3 - step / 10, "entropy": 1.0, "loss": 3 - step / 10}
        metrics |= {"tokens": 900, "lr": 1e-4, "grad_norm": 1.0, "padding": 0.1, "skipped": 0.0, "weight": 1.0}
        write(f"stages/student/updates/{step:06d}/metrics.json", metrics)
        write(f"stages/student/updates/{step:06d}/commit.json", {"files": {}, "content": {}})
        write(f"timing/student/{step:06d}.json", {"steps": [step], "update_s": 1.0, "checkpoint_s": 0.0, "compiles": 0})
    return folder


def test_its_curves(workdir):
    run = collect(workdir)
    drawn = {f["title"]: f for _, _, figures in sections(run.stages[0]) for f in figures}
    assert drawn["Cross-entropy"]["data"][0]["y"][0] == 3.0
    assert {"Learning rate", "Tokens with a loss", "Padding", "Gradient norm", "Entropy"} <= drawn.keys()
    assert "Epoch" not in drawn
    assert not any(note for _, note, _ in sections(run.stages[0])), "which speak of groups and advantages"
    assert drawn["Time by phase"]["caption"] == "Seconds of each update."
    assert drawn["Programs compiled"]["layout"]["xaxis"]["title"]["text"] == "update"


def test_the_steps_that_the_data_make(workdir):
    run = collect(workdir)
    assert run.stages[0].planned == 50
    (row,) = stage_rows(run)
    assert row["steps"] == "20 of 50 steps" and row["share"] == 0.4


def test_its_row_of_the_table(workdir):
    assert results_table(workdir)[1] == [["student", "examples", "first and last batch", "3", "1.1"]]
    with open(write_report(workdir), encoding="utf-8") as file:
        assert "Cross-entropy" in file.read()

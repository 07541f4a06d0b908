"""A reward model's stage in the report: curves, calibration, tables; a damaged file costs nothing else."""

import json
from pathlib import Path

import pytest

from r1jax.reporting import results_table, write_report
from r1jax.reporting.collect import collect
from r1jax.reporting.plots import always_zero, sections
from r1jax.reporting.reward_models import reliability_tables

BINS = [
    {"from": 0.5, "to": 0.55, "count": 4, "said": 0.52, "happened": 0.25},
    {"from": 0.95, "to": 1.0, "count": 6, "said": 0.97, "happened": 1.0},
]


def figures(accuracy, **more):
    return {
        "benchmark": "held_out", "pairs": 10, "accuracy": accuracy, "accuracy_interval": [accuracy - 0.1, accuracy + 0.1],
        "accuracy_shorter": 0.2, "accuracy_longer": 0.9, "margin": 1.25, "calibration_error": 0.042, "length_pearson": 0.5,
        "length_spearman": None, "longer_wins": 0.7, "reliability": BINS, **more,
    }  # fmt: skip


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "work"
    stage = folder / "stages/rm"
    for name, value in (
        ("before", figures(0.5, when="before")),
        ("000002", figures(0.6, step=2)),
        ("after", figures(0.8, when="after")),
    ):
        (stage / f"evaluations/held_out-{name}").mkdir(parents=True)
        (stage / f"evaluations/held_out-{name}/figures.json").write_text(json.dumps(value))
        (stage / f"evaluations/held_out-{name}/commit.json").write_text('{"files": {}, "content": {}}')
    for step in range(4):
        (stage / f"updates/{step:06d}").mkdir(parents=True)
        told = {
            "step": step,
            "loss": 0.7 - step / 10,
            "pair_accuracy": 0.5 + step / 10,
            "score_margin": step,
            "chosen_score": 0,
        }
        (stage / f"updates/{step:06d}/metrics.json").write_text(json.dumps(told))
        (stage / f"updates/{step:06d}/commit.json").write_text('{"files": {}, "content": {}}')
    (stage / "commit.json").write_text('{"files": {}, "content": {}}')
    (folder / "recipe.yaml").write_text(json.dumps({"name": "r", "stages": [{"name": "rm", "kind": "reward_model"}]}))
    return folder


def drawn(workdir):
    (stage,) = collect(workdir).stages
    return {figure["key"]: figure for _, _, some in sections(stage) for figure in some}


def test_its_figures(workdir):
    found = drawn(workdir)
    assert {"scored", "margin", "length_correlation", "calibration", "reliability", "loss"} <= found.keys()
    assert not [key for key in found if key.startswith("other-")] and always_zero(collect(workdir).stages[0]) == []
    curves = {trace["name"]: trace for trace in found["scored"]["data"] if trace.get("showlegend", True)}
    assert curves["held out"]["x"] == [0, 2, 4] and curves["held out"]["y"] == [0.5, 0.6, 0.8]
    assert curves["in training"]["y"] == [0.5, 0.6, 0.7, 0.8] and curves["held out, chosen is shorter"]["y"] == [0.2] * 3
    assert "Spearman" not in [trace["name"] for trace in found["length_correlation"]["data"]], "it is None"
    diagonal, before, after = found["reliability"]["data"]
    assert (diagonal["x"], after["x"], after["y"]) == ([0.5, 1], [0.52, 0.97], [0.25, 1.0]) and before["name"] == "before"
    assert found["reliability"]["layout"]["xaxis"]["title"]["text"] == "said"


def test_its_tables(workdir):
    ((heading, columns, rows),) = reliability_tables(collect(workdir).stages[0])
    assert heading == "Calibration: expected error 4.2%" and columns == ["said", "count", "mean said", "came out"]
    assert rows == [["50% to 55%", 4, "52.0%", "25.0%"], ["95% to 100%", 6, "97.0%", "100.0%"]]
    lines = results_table(workdir)[1]
    assert lines[0] == ["rm", "held_out", "accuracy", "50.0% [40.0, 60.0]", "80.0% [70.0, 90.0]"]
    assert ["", "", "mean margin", "1.25", "1.25"] in lines and lines[-1] == ["rm", "training", "loss", "0.7", "0.4"]
    text = Path(write_report(workdir)).read_text()
    for words in (
        "Scores of held-out data",
        "Reliability",
        "Calibration: expected error 4.2%",
        "accuracy, chosen is shorter",
    ):
        assert words in text


@pytest.mark.parametrize(
    "damaged", ["{", "[]", '{"accuracy": "high", "reliability": [3, {"from": 1}]}', '{"reliability": 7, "accuracy": 0.5}']
)
def test_a_damaged_measurement_costs_nothing_else(workdir, damaged):
    (workdir / "stages/rm/evaluations/held_out-after/figures.json").write_text(damaged)
    results_table(workdir)
    write_report(workdir)
    assert drawn(workdir)["scored"]["data"]

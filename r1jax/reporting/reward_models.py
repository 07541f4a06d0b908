"""What the report shows of a reward model: its scores of held-out data, against steps and against what came out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from r1jax.reporting.collect import Evaluation, Stage
from r1jax.reporting.console import number
from r1jax.reporting.traces import Figure, benchmark_points, curves, finite, make_figure

Table = tuple[str, list[str], list[list[Any]]]

_TRAINING = {"pair_accuracy": "in training", "label_accuracy": "in training"}
# figure of a measurement -> its label
_ACCURACIES = {
    "accuracy": "held out",
    "accuracy_shorter": "held out, chosen is shorter",
    "accuracy_longer": "held out, chosen is longer",
    "accuracy_safe": "held out, safe ones",
    "accuracy_unsafe": "held out, unsafe ones",
}


def _bins(figures: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The bins of a measurement that hold numbers; whatever else a file has there is left out."""
    found = figures.get("reliability")
    keys = ("from", "to", "count", "said", "happened")
    rows = found if isinstance(found, list) else []
    return [row for row in rows if isinstance(row, Mapping) and all(finite(row.get(key)) is not None for key in keys)]


def _measured(stage: Stage) -> list[Evaluation]:
    """A reward model's measurements, in order of step."""
    return [e for e in stage.evaluations if _bins(e.figures)]


def reward_model(stage: Stage) -> Iterable[Figure]:
    """Accuracy, margin and correlation with length against steps; what the model says against what came out."""
    measured = _measured(stage)
    if not measured:
        return
    traces = curves(stage.updates, _TRAINING)
    for place, (name, label) in enumerate(_ACCURACIES.items(), 1):
        traces += benchmark_points(measured, name, label, place, "solid" if name == "accuracy" else "dot")
    caption = "Share of pairs with the chosen response above, or of responses on their label's side. Band: 95% interval."
    yield make_figure("scored", "Accuracy", caption, traces, yaxis={"tickformat": ".0%", "range": [-0.02, 1.02]})
    traces = curves(stage.updates, {"score_margin": "in training"}) + benchmark_points(measured, "margin", "held out", 1)
    yield make_figure("margin", "Margin", "Mean score of the better responses over that of the worse ones.", traces)
    traces = benchmark_points(measured, "length_pearson", "Pearson", 0)
    traces += benchmark_points(measured, "length_spearman", "Spearman", 1, "dash")
    if traces:
        caption = "Correlation of score and length in tokens. Near 1, longer is better whatever is said."
        yield make_figure("length_correlation", "Score against length", caption, traces, yaxis={"range": [-1.05, 1.05]})
    yield make_figure(
        "calibration",
        "Calibration error",
        "Expected calibration error over ten bins of equal width.",
        benchmark_points(measured, "calibration_error", "held out", 0),
        yaxis={"tickformat": ".0%", "rangemode": "tozero"},
    )
    yield _reliability(measured)


def _reliability(measured: list[Evaluation]) -> Figure:
    sides = [("before", measured[0])] if len(measured) > 1 else []
    sides.append(("after", measured[-1]))
    least = min(bin["from"] for _, evaluation in sides for bin in _bins(evaluation.figures))
    line = {"x": [least, 1], "y": [least, 1], "type": "scatter", "mode": "lines", "hoverinfo": "skip", "name": "calibrated"}
    traces = [{**line, "showlegend": False, "line": {"color": "role:8", "width": 1, "dash": "dot"}}]
    for place, (name, evaluation) in enumerate(sides):
        bins, role = _bins(evaluation.figures), f"role:{2 - place}"
        traces.append(
            {
                "x": [bin["said"] for bin in bins],
                "y": [bin["happened"] for bin in bins],
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "legendgroup": name,
                "line": {"color": role, "width": 2},
                "marker": {"size": 8},
            }
        )
    caption = "Of the responses or pairs in each bin: the mean probability that the scores say, and the share that came out."
    percent = {"tickformat": ".0%"}
    figure = make_figure("reliability", "Reliability", caption, traces, x="said", y="came out", yaxis=percent)
    figure["layout"]["xaxis"] |= percent
    for entry in figure["legend"]:
        entry["last"] = ""  # where a curve ends is nothing here: its bins have no order in time
    return figure


def reliability_tables(stage: Stage) -> list[Table]:
    """``(heading, columns, rows)`` of the last measurement's bins."""
    measured = _measured(stage)
    if not measured:
        return []
    figures = measured[-1].figures
    rows = [
        [f"{bin['from']:.0%} to {bin['to']:.0%}", bin["count"], f"{bin['said']:.1%}", f"{bin['happened']:.1%}"]
        for bin in _bins(figures)
    ]
    error = finite(figures.get("calibration_error"))
    heading = "Calibration" if error is None else f"Calibration: expected error {error:.1%}"
    return [(heading, ["said", "count", "mean said", "came out"], rows)]


def reward_lines(stage: Stage) -> list[list[str]]:
    """Its line of the table of stages: stage, what, figure, before, after."""
    loss = [value for value in stage.updates.get("loss", ()) if finite(value) is not None]
    return [[stage.name, "training", "loss", number(loss[0]), number(loss[-1])]] if loss and _measured(stage) else []

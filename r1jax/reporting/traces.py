"""What the report's figures are made of: curves of a metric, points of a benchmark, a figure with its legend.

Figures are plotly's in plain data: traces and a layout, drawn by plotly.js in the page. Colours are roles (``"role:1"``), resolved
in the page for light and dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from r1jax.reporting.collect import Evaluation
from r1jax.reporting.console import number as written

MOST_POINTS = 400  # a longer curve is thinned to so many groups of steps: mean, and band from least to most
FEW_STEPS = 8  # over so many each has its own tick
LEAST_TO_SMOOTH = 60  # a shorter curve is drawn as it is

Figure = dict[str, Any]


def finite(value: Any) -> float | None:
    """``value``, None where it is no finite number."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300 else None


def short(values: Iterable[float | None]) -> list[float | None]:
    """Six significant digits: more can't be seen, and they make the file large."""
    return [None if value is None else float(f"{value:.6g}") for value in values]


def thin(x: Sequence[float], y: Sequence[Any]) -> tuple[list, list, list | None, list | None]:
    """``(x, y, least, most)`` of at most ``MOST_POINTS`` points: means of consecutive steps, and their range.

    A curve that is short enough comes back as it is, with None for the range. What is not finite is a gap.
    """
    y = [finite(value) for value in y]
    if len(y) <= MOST_POINTS:
        return list(x), short(y), None, None
    size = math.ceil(len(y) / MOST_POINTS)
    out: tuple[list, list, list, list] = ([], [], [], [])
    for start in range(0, len(y), size):
        group = [value for value in y[start : start + size] if value is not None]
        at = x[start : start + size]
        out[0].append(round(sum(at) / len(at), 1))
        for values, pick in zip(out[1:], (lambda g: sum(g) / len(g), min, max)):
            values.append(pick(group) if group else None)
    return out[0], *map(short, out[1:])


def _smooth(y: Sequence[float | None]) -> list[float | None]:
    """A centred moving average over a twentieth of the curve."""
    half = max(1, len(y) // 40)
    result = []
    for i in range(len(y)):
        window = [value for value in y[max(0, i - half) : i + half + 1] if value is not None]
        result.append(sum(window) / len(window) if window else None)
    return short(result)


def label_of(text: str) -> str:
    """Plotly reads a little HTML in names; these are names, not HTML."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;")


def band(x: list, low: list, high: list, role: str, group: str) -> list[Figure]:
    """An area between two curves, in the role's pale colour."""
    edge = {
        "x": x,
        "type": "scatter",
        "mode": "lines",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": label_of(group),
    }
    return [{**edge, "y": low}, {**edge, "y": high, "fill": "tonexty", "fillcolor": f"{role}-pale"}]


def curve(x: Sequence[float], y: Sequence[Any], name: str, number: int) -> list[Figure]:
    """One metric against steps: thinned with its range if long, with a moving average if noisy."""
    role = f"role:{number % 8 + 1}"
    x, y, low, high = thin(x, y)
    line = {
        "x": x,
        "type": "scatter",
        "mode": "lines",
        "name": label_of(name),
        "legendgroup": label_of(name),
        "connectgaps": False,
    }
    if low is not None:
        return [*band(x, low, high, role, name), {**line, "y": y, "line": {"color": role, "width": 2}}]
    if len(y) < LEAST_TO_SMOOTH:
        mode = "lines+markers" if len(y) <= 12 else "lines"
        return [{**line, "y": y, "mode": mode, "line": {"color": role, "width": 2}, "marker": {"size": 6}}]
    raw = {**line, "y": y, "line": {"color": f"{role}-faint", "width": 1}, "showlegend": False, "hoverinfo": "skip"}
    return [raw, {**line, "y": _smooth(y), "line": {"color": role, "width": 2.2}}]


def _written(value: float, axis: Mapping[str, Any]) -> str:
    """A value as its axis writes it."""
    tick = axis.get("tickformat", "")
    if tick.endswith("%"):
        return f"{value:{'.1%' if tick == '.0%' else tick}}"  # one digit more than an axis needs
    return f"{value:.1e}" if tick.endswith("e") else written(value)


def _legend(traces: Iterable[Figure], axis: Mapping[str, Any]) -> list[dict[str, str]]:
    """What each curve is called, how it is drawn, where it ended: the page's legend."""
    entries = []
    for trace in traces:
        if not trace.get("showlegend", True):
            continue
        values = [value for value in trace["y"] if value is not None]
        line = trace.get("line", {})
        colour = trace["marker"]["color"] if trace["type"] == "bar" else line["color"]
        entries.append(
            {
                "group": trace.get("legendgroup", trace["name"]),
                "name": html.unescape(trace["name"]),
                "colour": colour.removeprefix("role:"),
                "dash": "area" if "stackgroup" in trace or trace["type"] == "bar" else line.get("dash", "solid"),
                "first": _written(values[0], axis) if values else "",
                "last": _written(values[-1], axis) if values else "",
            }
        )
    return entries


def make_figure(
    key: str, title: str, caption: str, traces: list[Figure], *, y: str = "", x: str = "step", **layout: Any
) -> Figure:
    """A figure of the page. ``layout`` is added to plotly's, for example ``yaxis={"type": "log"}``."""
    yaxis = {"title": {"text": y}, **layout.pop("yaxis", {})}
    legend = _legend(traces, yaxis)
    at = [place for trace in traces for place in trace["x"]]
    few = bool(at) and all(isinstance(place, int) for place in at) and max(at) - min(at) <= FEW_STEPS
    whole = {"dtick": 1} if few else {}  # no half steps
    if few and max(at) == min(at):
        whole["range"] = [at[0] - 0.9, at[0] + 0.9]
    spoken = "; ".join(f"{e['name']}: {e['first']} to {e['last']}" for e in legend)
    return {
        "key": key,
        "title": title,
        "caption": caption,
        "legend": legend,
        "spoken": f"{title} against {x}. {spoken}",
        "data": traces,
        "layout": {"xaxis": {"title": {"text": x}, **whole}, "yaxis": yaxis, "showlegend": False, **layout},
    }


def has(updates: Mapping[str, list], name: str) -> bool:
    return any(finite(value) is not None for value in updates.get(name, ()))


def curves(updates: Mapping[str, list], names: Mapping[str, str]) -> list[Figure]:
    """Traces of those of ``names`` (metric -> label) that the updates hold."""
    there = [name for name in names if has(updates, name)]
    return [trace for i, name in enumerate(there) for trace in curve(updates["step"], updates[name], names[name], i)]


def benchmark_points(
    evaluations: Sequence[Evaluation], figure: str, name: str, number: int, dash: str = "solid"
) -> list[Figure]:
    """One figure of a benchmark against steps, with the band of its interval where it has one."""
    there = [e for e in evaluations if finite(e.figures.get(figure)) is not None]
    if not there:
        return []
    role, x = f"role:{number % 8 + 1}", [e.step for e in there]
    intervals = [e.figures.get(f"{figure}_interval") for e in there]
    traces = []
    if all(isinstance(i, (list, tuple)) and len(i) == 2 for i in intervals):
        traces = band(x, *(short(finite(i[end]) for i in intervals) for end in (0, 1)), role, name)
    line = {"color": role, "width": 2.4, "dash": dash}
    y = short(e.figures[figure] for e in there)
    mode = "lines+markers" if len(y) <= 50 else "lines"
    return [
        *traces,
        {
            "x": x,
            "y": y,
            "type": "scatter",
            "mode": mode,
            "name": label_of(name),
            "legendgroup": label_of(name),
            "line": line,
            "marker": {"size": 7},
        },
    ]

"""The report of a run: one HTML file that needs nothing else, and the table of stages for the terminal.

Figures are drawn in the page by plotly's own script, which stands in the file once. Everything that a model wrote goes
through the template's escaping, and the page's policy (CSP) runs no script but the two that stand here, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from r1jax.reporting import files
from r1jax.reporting.collect import Run, Stage, collect, settings_of, write_metrics
from r1jax.reporting.console import duration, number

MOST_GROUPS = 8  # of responses, per stage


# ---------------------------------------------------------------------------------------------- tables
def _share(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, (int, float)) else "–"


def _with_interval(figures: Mapping[str, Any], name: str) -> str:
    """``71.2% [68.0, 74.3]``."""
    if not isinstance(figures.get(name), (int, float)):
        return "–"
    interval = figures.get(f"{name}_interval")
    if not isinstance(interval, (list, tuple)) or len(interval) != 2:
        return _share(figures[name])
    return f"{_share(figures[name])} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


# figure of an evaluation -> its name in tables, and how its value is written
_FIGURES = (
    ("pass@1", "pass@1", _with_interval),
    ("cons@k", "majority", _with_interval),
    ("mean_tokens", "mean tokens", lambda figures, name: number(figures.get(name))),
    ("reflection", "reflecting", lambda figures, name: _share(figures.get(name))),
    ("wait_after_miss", "“wait” after a failed try", lambda figures, name: _share(figures.get(name))),
    ("wait_after_hit", "“wait” after a hit", lambda figures, name: _share(figures.get(name))),
    ("truncated", "cut off", lambda figures, name: _share(figures.get(name))),
    ("ungraded", "ungraded", lambda figures, name: _share(figures.get(name))),
)


def _table(run: Run) -> tuple[list[str], list[list[Any]]]:
    """``(columns, rows)``: each figure of each benchmark before and after each stage."""
    rows: list[list[Any]] = []
    for result in run.results:
        before, after = result.get("before") or {}, result.get("after") or {}
        stage = f"{result.get('name', '')}"
        for benchmark in dict.fromkeys([*before, *after]):
            old, new = before.get(benchmark) or {}, after.get(benchmark) or {}
            problems, samples = (new or old).get("problems"), (new or old).get("samples")
            title = f"{benchmark} ({problems:,} × {samples})" if isinstance(problems, int) else str(benchmark)
            for name, label, write in _FIGURES:
                if name == "cons@k" and samples == 1:
                    continue  # a vote of one is pass@1 again
                if isinstance(old.get(name), (int, float)) or isinstance(new.get(name), (int, float)):
                    rows.append([stage, title, label, write(old, name), write(new, name)])
                    stage = title = ""
        if stage:  # a stage without benchmarks is a line all the same
            rows.append([stage, "–", "–", "–", "–"])
    return ["stage", "benchmark", "figure", "before", "after"], rows


def results_table(workdir: str | os.PathLike) -> tuple[list[str], list[list[Any]]]:
    """``(columns, rows)`` of the table of stages, for ``Console.table``.

    Raises:
      NoRun: ``workdir`` holds no run.
    """
    return _table(collect(workdir))


# ---------------------------------------------------------------------------------------------- parts of the page
def _status(run: Run) -> dict[str, str]:
    done = sum(stage.complete for stage in run.stages)
    if run.complete:
        return {"kind": "complete", "text": f"Complete: {done} stage{'s' if done != 1 else ''}."}
    if not run.stages:
        return {"kind": "open", "text": "No stage has begun."}
    return {"kind": "open", "text": f"{done} of {len(run.stages)} stages complete; the run is going on or was stopped."}


def _progress(stage: Stage, seconds: Any) -> str:
    steps = len(stage.updates["step"])
    total = f" of {stage.planned:,}" if stage.planned else ""
    words = [f"{steps:,}{total} optimizer steps", "complete" if stage.complete else "not finished"]
    if isinstance(seconds, (int, float)):
        words.append(duration(seconds))
    return ", ".join(words) + "."


def _tiles(run: Run) -> list[dict[str, Any]]:
    """The main figures: the first benchmark of the last stage that has one, before and after."""
    for result in reversed(run.results):
        before, after = result.get("before") or {}, result.get("after") or {}
        benchmark = next(iter(after or before), None)
        if benchmark is None:
            continue
        old, new = before.get(benchmark) or {}, after.get(benchmark) or {}
        tiles = []
        for name, label, write in (
            ("pass@1", "Accuracy (pass@1)", _share),
            ("cons@k", "Majority vote", _share),
            ("mean_tokens", "Response length", number),
            ("reflection", "Reflecting", _share),
        ):
            values = [
                write(f[name])
                for f in (old, new)
                if (name, f.get("samples")) != ("cons@k", 1) and isinstance(f.get(name), (int, float))
            ]
            if values:
                tiles.append(
                    {
                        "label": label,
                        "before": values[0] if len(values) == 2 else None,
                        "after": values[-1],
                        "hint": f"{benchmark}, {result.get('name', '')}",
                    }
                )
        return tiles
    return []


def _safe_json(value: Any) -> str:
    """JSON that can stand in a script element: no ``<`` remains that could end it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _policy(*scripts: str) -> str:
    """A content security policy that runs these scripts and nothing else, and loads nothing."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"


def _render(values: Mapping[str, Any], trusted: Mapping[str, str]) -> str:
    """Fills the template. ``values`` are escaped; ``trusted`` are this package's and plotly's own text."""
    import jinja2
    import markupsafe

    page = importlib.resources.files("r1jax.reporting") / "page"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False)
    environment.filters["figure"] = number
    template = environment.from_string((page / "report.html").read_text("utf-8"))
    return template.render(**values, **{name: markupsafe.Markup(text) for name, text in trusted.items()})


def _notes(notes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    def rows(value: Any) -> list:
        return [row for row in value if isinstance(row, list)] if isinstance(value, list) else []

    return [
        {
            "title": note.get("title", ""),
            "text": note.get("text", ""),
            "columns": note["columns"] if isinstance(note.get("columns"), list) else [],
            "rows": rows(note.get("rows")),
        }
        for note in notes
    ]


# ---------------------------------------------------------------------------------------------- the report
def write_report(workdir: str | os.PathLike) -> str:
    """Writes ``report.html`` (and ``metrics.jsonl``) into a run's work directory, finished or not; returns its path.

    ``notes.json`` in the work directory, if there, is a list of ``{"title", "text", "columns", "rows"}``: tables that
    the run did not make itself, such as its controls.

    Raises:
      NoRun: ``workdir`` holds no run.
      OSError: the report can't be written there.
    """
    from plotly.offline import get_plotlyjs

    from r1jax.reporting import plots, samples

    run = collect(workdir)
    write_metrics(run)
    seconds = {result.get("name"): result.get("seconds") for result in run.results}
    data: list[plots.Figure] = []
    stages = []
    for stage in run.stages:
        shown = []
        for heading, figures in plots.sections(stage):
            shown.append((heading, [{"id": len(data) + i, **figure} for i, figure in enumerate(figures)]))
            data += figures
        stages.append(
            {
                "name": stage.name,
                "kind": stage.kind,
                "progress": _progress(stage, seconds.get(stage.name)),
                "sections": shown,
                "always_zero": plots.always_zero(stage),
                "groups": (samples.before_and_after(stage) + samples.from_training(stage))[:MOST_GROUPS],
                "settings": [[key, json.dumps(value)] for key, value in settings_of(run, stage.name).items()],
            }
        )
    columns, rows = _table(run)
    page = importlib.resources.files("r1jax.reporting") / "page"
    script, plotly = (page / "report.js").read_text("utf-8"), get_plotlyjs()
    text = _render(
        {
            "name": run.name,
            "status": _status(run),
            "unreadable": [os.path.relpath(path, run.workdir) for path in run.unreadable],
            "tiles": _tiles(run),
            "results": {"columns": columns, "rows": rows},
            "stages": stages,
            "notes": _notes(run.notes),
        },
        {
            "policy": _policy(plotly, script).replace("'", "&#39;"),
            "style": (page / "report.css").read_text("utf-8"),
            "data": _safe_json([{"data": figure["data"], "layout": figure["layout"]} for figure in data]),
            "plotly": plotly,
            "script": script,
        },
    )
    path = f"{run.workdir}/report.html"
    files.write_text(path, text)
    return path

"""The report of a run: one HTML file that needs nothing else.

Figures are drawn in the page by plotly's own script, which stands in the file once. Everything that a model wrote goes
through the template's escaping, or as JSON to a script that makes text of it and nothing else; and the page's policy (CSP)
runs no script but those that stand here, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from r1jax.reporting import files, plots, viewer
from r1jax.reporting.collect import Run, Stage, collect, settings_of, write_metrics
from r1jax.reporting.console import number
from r1jax.reporting.data_cards import card_tables
from r1jax.reporting.reward_models import reliability_tables
from r1jax.reporting.tables import compared_rows, comparisons, stage_rows, stage_tables, tiles
from r1jax.reporting.traces import MOST_POINTS

# Bytes of all stages. Plotly's script takes 4.9 MB of a page's 10; the curves of a long stage about 0.5.
SAMPLES_BUDGET = 2_000_000
FIGURES_BUDGET = 2_400_000
MOST_SETTING = 400  # characters of one setting's value

_STATES = {
    "complete": "Complete",
    "running": "Running",
    "stopped": "Stopped; the same command goes on from here",
    "failed": "Stopped by an error{where}; once its cause is mended, the same command goes on; verdicts that stand are kept",
    "killed": "Ended without a word (killed, or the machine went down); the same command goes on from here",
    "": "Not finished",
}


# ---------------------------------------------------------------------------------------------- parts of the page
def _status(run: Run) -> dict[str, str]:
    done, total = sum(stage.complete for stage in run.stages), len(run.stages)
    open_stage = next((stage.name for stage in run.stages if not stage.complete), "")
    text = _STATES[run.state].format(where=f" in {open_stage}" if open_stage else "")
    if total > 1:
        text += f" · {done} of {total} stages complete"
    reason = run.reason if run.state == "failed" else ""
    return {"kind": run.state or "open", "text": f"{text}.", "reason": reason}


def _made_with(run: Run) -> str:
    """``1 × NVIDIA H200 · jax 0.10.2 · r1jax 0.1 (b3d810e)``, as far as it is known."""
    known = run.environment
    packages = known.get("packages") if isinstance(known.get("packages"), dict) else {}
    commit = str(known.get("commit") or "")[:7]
    words = [
        f"{known.get('devices', 1)} × {known['device']}" if known.get("device") else "",
        f"jax {packages['jax']}" if packages.get("jax") else "",
        f"r1jax {known['r1jax']}{f' ({commit})' if commit else ''}" if known.get("r1jax") else "",
    ]
    return " · ".join(word for word in words if word)


def _settings(run: Run, stage: Stage) -> list[list[str]]:
    rows = []
    for key, value in settings_of(run, stage.name).items():
        text = json.dumps(value, ensure_ascii=False, default=str)
        rows.append([key, text if len(text) <= MOST_SETTING else text[:MOST_SETTING] + " …"])
    return rows


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


def _figures(stage: Stage, budget: int) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """The stage's figures by section, with as many points as ``budget`` bytes hold."""
    sections = plots.sections(stage)
    figures = [figure for _, _, some in sections for figure in some]
    points = MOST_POINTS
    while points > 20 and sum(len(json.dumps(figure["data"])) for figure in figures) > budget:
        points //= 2
        plots.sparser(figures, points)
    return sections


def _samples(run: Run, stage: Stage, budget: int) -> dict[str, Any] | None:
    """What the stage's viewer shows: see ``viewer``. None where there is nothing."""
    entries = viewer.rollouts(stage, run.workdir, budget)
    compared, pairs = viewer.before_and_after(stage)
    benchmarks = pairs or ([] if entries else viewer.evaluation_only(stage))
    if not entries and not benchmarks:
        return None
    return {"stage": stage.name, "rollouts": entries, "benchmarks": benchmarks, "compared": compared}


# ---------------------------------------------------------------------------------------------- writing
def _safe_json(value: Any) -> str:
    """JSON that can stand in a script element: no ``<`` remains that could end it, nor a line end of JavaScript's own."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _policy(*scripts: str) -> str:
    """A content security policy that runs these scripts and no others; data comes from the page's own place alone."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'"
    )


def _render(values: Mapping[str, Any], trusted: Mapping[str, str]) -> str:
    """Fills the template. ``values`` are escaped; ``trusted`` are this package's and plotly's own text."""
    import jinja2
    import markupsafe

    page = importlib.resources.files("r1jax.reporting") / "page"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False)
    environment.filters["figure"] = number
    # A name such as module:some_long_function breaks where its parts meet.
    environment.filters["breakable"] = lambda text: markupsafe.Markup(
        re.sub("([:_/])", r"\1<wbr>", str(markupsafe.escape(text)))
    )
    template = environment.from_string((page / "report.html").read_text("utf-8"))
    return template.render(**values, **{name: markupsafe.Markup(text) for name, text in trusted.items()})


def write_report(workdir: str | os.PathLike, out: str | os.PathLike | None = None) -> str:
    """Writes ``report.html`` (and ``metrics.jsonl``) into a run's work directory, finished or not; returns its path.

    Args:
      out: a file elsewhere that the report is written to; the work directory is then left as it is.

    ``notes.json`` in the work directory, if there, is a list of ``{"title", "text", "columns", "rows"}``: tables that
    the run did not make itself, such as its controls.

    Raises:
      NoRun: ``workdir`` holds no run.
      OSError: the report can't be written there.
    """
    from plotly.offline import get_plotlyjs

    run = collect(workdir, remember=out is None)
    if out is None:
        write_metrics(run)
    data: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    stages = []
    rows = stage_rows(run)
    for stage, row in zip(run.stages, rows):
        drawn = _figures(stage, FIGURES_BUDGET // len(run.stages))
        shown = []
        for heading, note, figures in drawn:
            shown.append((heading, note, [{"id": len(data) + i, **figure} for i, figure in enumerate(figures)]))
            data += figures
        found = _samples(run, stage, SAMPLES_BUDGET // len(run.stages))
        if found is not None:
            samples.append(found)
        stages.append(
            {
                **row,
                "sections": shown,
                "tables": [*card_tables(stage), *reliability_tables(stage)],
                "always_zero": plots.always_zero(stage),
                "alarms": stage.alarms,
                "viewer": len(samples) - 1 if found is not None else None,
                "settings": _settings(run, stage),
            }
        )
    page = importlib.resources.files("r1jax.reporting") / "page"
    scripts = [(page / name).read_text("utf-8") for name in ("theme.js", "report.js", "viewer.js")]
    plotly = get_plotlyjs()
    text = _render(
        {
            "name": run.name,
            "status": _status(run),
            "made_with": _made_with(run),
            "made_at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "unreadable": [os.path.relpath(path, run.workdir) for path in run.unreadable],
            "tiles": tiles(run),
            "comparisons": list(comparisons(run)),
            "stage_tables": list(stage_tables(run)),
            "compared": compared_rows(run),
            "so_far": any(not stage.complete and stage.evaluations for stage in run.stages),
            "stages": stages,
            "notes": _notes(run.notes),
        },
        {
            "policy": _policy(plotly, *scripts).replace("'", "&#39;"),
            "style": (page / "report.css").read_text("utf-8"),
            "figures": _safe_json([{"data": figure["data"], "layout": figure["layout"]} for figure in data]),
            "samples": _safe_json(samples),
            "plotly": plotly,
            "theme_script": scripts[0],
            "script": scripts[1],
            "viewer_script": scripts[2],
        },
    )
    path = f"{run.workdir}/report.html" if out is None else os.path.abspath(out)
    files.write_text(path, text)
    return path

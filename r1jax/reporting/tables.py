"""The tables of a run: what each stage changed, how far the stages are, the main figures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from r1jax.reporting.collect import Run, Stage, collect
from r1jax.reporting.console import duration, number
from r1jax.reporting.data_cards import card_lead, card_lines
from r1jax.reporting.reward_models import reward_lines


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _share(value: Any) -> str:
    return f"{value:.1%}" if _is_number(value) else "–"


def _interval(figures: Mapping[str, Any], name: str) -> str:
    """`` [68.0, 74.3]``, or nothing."""
    interval = figures.get(f"{name}_interval")
    if not isinstance(interval, (list, tuple)) or len(interval) != 2 or not all(map(_is_number, interval)):
        return ""
    return f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _share_change(old: float, new: float) -> str:
    return f"{100 * (new - old):+.1f} pts".replace("-", "−")


def _number_change(old: float, new: float) -> str:
    return ("+" if new >= old else "−") + number(abs(new - old))


# figure of an evaluation -> its name in tables, how its value is written, how its change
_FIGURES: tuple[tuple[str, str, Callable[[Any], str], Callable[[float, float], str]], ...] = (
    ("pass@1", "pass@1", _share, _share_change),
    ("cons@k", "majority", _share, _share_change),
    ("mean_tokens", "mean tokens", number, _number_change),
    ("reflection", "reflecting", _share, _share_change),
    ("wait_after_miss", "“wait” after miss", _share, _share_change),
    ("wait_after_hit", "“wait” after hit", _share, _share_change),
    ("truncated", "cut off", _share, _share_change),
    ("ungraded", "ungraded", _share, _share_change),
    # of a reward model's scores (evaluation/reward_scores.py)
    ("accuracy", "accuracy", _share, _share_change),
    ("accuracy_shorter", "accuracy, chosen is shorter", _share, _share_change),
    ("accuracy_longer", "accuracy, chosen is longer", _share, _share_change),
    ("longer_wins", "accuracy of “the longer one”", _share, _share_change),
    ("accuracy_safe", "accuracy on safe ones", _share, _share_change),
    ("accuracy_unsafe", "accuracy on unsafe ones", _share, _share_change),
    ("margin", "mean margin", number, _number_change),
    ("calibration_error", "calibration error", _share, _share_change),
    ("length_pearson", "score with length, Pearson", number, _number_change),
    ("length_spearman", "score with length, Spearman", number, _number_change),
)


# Those of a column of the table of stages, which is narrow.
_MAIN_FIGURES = ("pass@1", "cons@k", "mean_tokens", "reflection")


def _figures_of(result: Mapping[str, Any], when: str) -> dict[str, Mapping[str, Any]]:
    """Benchmark -> figures of a result; whatever else a file holds there is left out. Means of reward parts stand beside the
    other figures, as ``part NAME``."""
    found = result.get(when)
    if not isinstance(found, dict):
        return {}
    return {str(name): {**figures, **_parts(figures)} for name, figures in found.items() if isinstance(figures, dict)}


def _parts(figures: Mapping[str, Any]) -> dict[str, Any]:
    flat = {}
    for key, suffix in (("parts", ""), ("parts_interval", "_interval")):
        if isinstance(figures.get(key), dict):
            flat |= {f"part {name}{suffix}": value for name, value in figures[key].items()}
    return flat


def _lines(*sides: Mapping[str, Any]) -> Iterable[tuple[str, str, Callable[[Any], str], Callable[[float, float], str]]]:
    """The lines of a table for the figures that any side has: those of every evaluation, then reward parts."""
    parts = dict.fromkeys(k for side in sides for k in side if k.startswith("part ") and not k.endswith("_interval"))
    for line in (*_FIGURES, *((part, part.removeprefix("part "), _share, _share_change) for part in parts)):
        vote_of_one = line[0] == "cons@k" and all(side.get("samples") in (1, None) for side in sides)  # pass@1 again
        if not vote_of_one and any(_is_number(side.get(line[0])) for side in sides):
            yield line


def _label(figure: str) -> tuple[str, Callable[[float], str], Callable[[float, float], str]]:
    """How a figure is called, its value and its change written."""
    known = next(((label, write, change) for name, label, write, change in _FIGURES if name == figure), None)
    return known or (figure.removeprefix("part "), _share, _share_change)


def _paired(found: Mapping[str, Any], figure: str) -> tuple[str, str]:
    """The paired difference of a figure and its interval, as written; two empty texts where there is none."""
    values = found.get("figures", {}).get(figure)
    if not isinstance(values, dict) or not _is_number(values.get("difference")):
        return "", ""
    change = _label(figure)[2]
    interval = values.get("interval")
    if not isinstance(interval, (list, tuple)) or len(interval) != 2 or not all(map(_is_number, interval)):
        return change(0.0, values["difference"]), ""
    return change(0.0, values["difference"]), f" [{', '.join(change(0.0, end).removesuffix(' pts') for end in interval)}]"


def compared_rows(run: Run) -> list[dict[str, Any]]:
    """The recipe's comparisons, one entry each: ``what``, ``sides`` (their names), ``rows`` of figure, of, against, ``(difference,
    interval)``, and ``problems``."""
    found = []
    for one in run.compared:
        if not one.get("what"):
            continue
        sides = []
        for side, benchmark in ((one.get("of"), one.get("benchmark")), (one.get("against"), one.get("against_benchmark"))):
            sides.append(f"{side} on {benchmark}" if one.get("benchmark") != one.get("against_benchmark") else str(side))
        rows = []
        for figure, values in one["figures"].items():
            if isinstance(values, dict) and all(_is_number(values.get(side)) for side in ("of", "against")):
                label, write, _ = _label(figure)
                rows.append([label, write(values["of"]), write(values["against"]), _paired(one, figure)])
        problems = (one["figures"].get("pass@1") or {}).get("problems")
        found.append(
            {
                "what": str(one["what"]),
                "benchmark": str(one["benchmark"]),
                "sides": sides,
                "rows": rows,
                "problems": problems,
            }
        )
    return found


def compared_table(workdir: str | os.PathLike) -> tuple[list[str], list[list[Any]]]:
    """``(columns, rows)`` of the recipe's comparisons, for ``Console.table``.

    Raises:
      NoRun: ``workdir`` holds no run.
    """
    rows: list[list[Any]] = []
    for one in compared_rows(collect(workdir)):
        first = f"{one['what']}: {one['sides'][0]} − {one['sides'][1]}"
        rows += [[first if i == 0 else "", label, "".join(paired)] for i, (label, _, _, paired) in enumerate(one["rows"])]
    return ["what", "figure", "difference"], rows


def _moment(figures: Mapping[str, Any], usual: str) -> str:
    """What a column is called: of a stage that is not complete yet it may be any evaluation's."""
    step = figures.get("step")
    return f"step {step:,}" if isinstance(step, int) and "when" not in figures else usual


def comparisons(run: Run) -> Iterable[dict[str, Any]]:
    """Each benchmark of each stage: ``stage, benchmark, detail``, ``columns`` (what before and after are called; empty where
    there is no such evaluation) and ``rows`` of figure, before, after, change, each ``(value, interval)``; the change's
    interval is paired by problem.
    """
    changes = {(c.get("of"), c.get("benchmark")): c for c in run.compared if not c.get("what")}
    for result in run.results:
        before, after = _figures_of(result, "before"), _figures_of(result, "after")
        for benchmark in dict.fromkeys([*before, *after]):
            old, new = before.get(benchmark, {}), after.get(benchmark, {})
            problems, samples = (new or old).get("problems"), (new or old).get("samples")
            rows = []
            for name, label, write, change in _lines(old, new):
                both = _is_number(old.get(name)) and _is_number(new.get(name))
                cells = [(write(f[name]), _interval(f, name)) if _is_number(f.get(name)) else ("–", "") for f in (old, new)]
                interval = _paired(changes.get((result.get("name"), benchmark), {}), name)[1]
                rows.append([label, *cells, (change(old[name], new[name]), interval) if both else ("", "")])
            yield {
                "stage": str(result.get("name", "")),
                "benchmark": benchmark,
                "detail": f"{problems:,} × {samples}" if isinstance(problems, int) else "",
                "columns": [_moment(old, "before") if old else "", _moment(new, "after") if new else ""],
                "rows": rows,
            }


def _forms(run: Run) -> dict[str, str]:
    """Benchmark -> the one that it is another form of, where a recipe says so."""
    benchmarks = run.recipe.get("benchmarks")
    sources = benchmarks.items() if isinstance(benchmarks, Mapping) else ()
    return {name: source["same_as"] for name, source in sources if isinstance(source, Mapping) and source.get("same_as")}


def stage_tables(run: Run) -> Iterable[dict[str, Any]]:
    """The paper's table of stages: each benchmark that at least two stages were measured on, one column for the first stage's
    beginning and one for the end of each stage. A benchmark that is the ``same_as`` another stands in that one's table.

    Yields:
      ``benchmark``, ``columns`` (names) and ``rows`` of figure and one ``(value, interval)`` a column.
    """
    form_of = _forms(run)
    names = dict.fromkeys(form_of.get(b, b) for result in run.results for b in _figures_of(result, "after"))
    for benchmark in names:
        measured = []
        for result in run.results:
            after = _figures_of(result, "after")
            other = next((name for name in after if form_of.get(name) == benchmark), None)
            asked = benchmark if benchmark in after else other
            if asked is not None:
                measured.append((str(result.get("name", "")), after[asked], _figures_of(result, "before").get(asked)))
        if len(measured) < 2:
            continue
        columns = [(name, after) for name, after, _ in measured]
        name, _, before = measured[0]
        if before is not None:
            columns.insert(0, (f"before {name}", before))
        sides = [figures for _, figures in columns]
        rows = [
            [label, *((write(f[name]), _interval(f, name)) if _is_number(f.get(name)) else ("–", "") for f in sides)]
            for name, label, write, _ in _lines(*sides)
            if name in _MAIN_FIGURES or name.startswith("part ")
        ]
        if not rows:  # scores of reward models, each on data of its own
            continue
        yield {"benchmark": benchmark, "columns": [name for name, _ in columns], "rows": rows}


def _own_figures(stage: str, figures: Any) -> list[list[str]]:
    """Lines of what a stage without benchmarks says of itself (``pipeline.stage.Artefacts.figures``): its numbers and strings."""
    plain = figures.items() if isinstance(figures, Mapping) else ()
    told = [(str(k), number(v) if _is_number(v) else v) for k, v in plain if _is_number(v) or isinstance(v, str)]
    return [[stage if not i else "", "–", label, "–", value] for i, (label, value) in enumerate(told)]


def results_table(workdir: str | os.PathLike) -> tuple[list[str], list[list[Any]]]:
    """``(columns, rows)`` of the table of stages, for ``Console.table``: within 80 columns where names are short.

    Raises:
      NoRun: ``workdir`` holds no run.
    """
    run = collect(workdir)
    rows: list[list[Any]] = []
    last = None
    for compared in comparisons(run):
        stage = "" if compared["stage"] == last else compared["stage"]
        last = compared["stage"]
        benchmark = f"{compared['benchmark']} ({compared['detail']})" if compared["detail"] else compared["benchmark"]
        for label, old, new, _ in compared["rows"]:
            rows.append([stage, benchmark, label, "".join(old), "".join(new)])
            stage = benchmark = ""
    for stage in run.stages:
        learnt = [value for value in stage.updates.get("cross_entropy", ()) if _is_number(value)]
        if learnt:
            rows.append([stage.name, "examples", "first and last batch", number(learnt[0]), number(learnt[-1])])
        held_out = [e.figures["cross_entropy"] for e in stage.held_out if _is_number(e.figures.get("cross_entropy"))]
        if held_out:
            last = number(held_out[-1]) if len(held_out) > 1 else "–"
            rows.append(["" if learnt else stage.name, "held out", "cross-entropy", number(held_out[0]), last])
        rows += reward_lines(stage)
        rows += card_lines(stage)
    shown = {str(row[0]) for row in rows}
    for result in run.results:
        if (stage := str(result.get("name", ""))) not in shown:
            rows += _own_figures(stage, result.get("figures")) or [[stage, "–", "–", "–", "–"]]
    return ["stage", "benchmark", "figure", "before", "after"], rows


def stages_by_side(workdir: str | os.PathLike) -> Iterable[tuple[str, list[str], list[list[Any]]]]:
    """``(title, columns, rows)`` of each of the ``stage_tables``, for ``Console.table``; intervals are left to the report.

    Raises:
      NoRun: ``workdir`` holds no run.
    """
    for table in stage_tables(collect(workdir)):
        rows = [[label, *(value for value, _ in cells)] for label, *cells in table["rows"]]
        yield f"Stages on {table['benchmark']}", ["figure", *table["columns"]], rows


# figure of an evaluation -> how a tile calls it and writes it
_TILES = (
    ("pass@1", "Accuracy (pass@1)", _share),
    ("cons@k", "Majority vote", _share),
    ("mean_tokens", "Response length", number),
    ("reflection", "Reflecting", _share),
)


def _tiles_of(*sides: Mapping[str, Any], hint: str) -> list[dict[str, Any]]:
    """The tiles of a benchmark's figures, before and after, or of those of them that there are."""
    found = []
    for name, label, write in _TILES:
        there = [f for f in sides if (name, f.get("samples")) != ("cons@k", 1) and _is_number(f.get(name))]
        if there:
            before = write(there[0][name]) if len(there) == 2 else None
            found.append({"label": label, "before": before, "after": write(there[-1][name]), "hint": hint})
    return found


def tiles(run: Run) -> list[dict[str, Any]]:
    """The main figures: the first benchmark of the last stage that was measured before and after; where none was yet, of the
    last that was measured at all."""
    alone: list[dict[str, Any]] = []
    for result in reversed(run.results):
        before, after = _figures_of(result, "before"), _figures_of(result, "after")
        for benchmark in dict.fromkeys([*before, *after]):
            sides = [figures[benchmark] for figures in (before, after) if benchmark in figures]
            found = _tiles_of(*sides, hint=f"{benchmark}, {result.get('name', '')}")
            if found and len(sides) == 2:
                return found
            alone = alone or found
    return alone


def stage_rows(run: Run) -> list[dict[str, Any]]:
    """How far each stage is: ``name, kind, state, steps, share, time``; ``share`` of the planned steps, or None."""
    seconds = {str(result.get("name")): result.get("seconds") for result in run.results}
    steps_said = {str(result.get("name")): result.get("steps") for result in run.results}
    rows, current = [], True
    for stage in run.stages:
        done = len(stage.updates["step"])
        begun = bool(done or stage.evaluations or stage.waves)
        if stage.complete:
            state, done = (
                "complete",
                done or (steps_said.get(stage.name) if isinstance(steps_said.get(stage.name), int) else 0),
            )
        elif begun or current:
            state, current = run.state if run.state not in ("", "complete") else ("begun" if begun else "waiting"), False
        else:
            state = "waiting"
        planned = f" of {stage.planned:,}" if stage.planned and not stage.complete else ""
        spent = seconds.get(stage.name)
        rows.append(
            {
                "name": stage.name,
                "kind": stage.kind,
                "state": state,
                "steps": f"{done:,}{planned} steps" if done or planned else "",
                "share": min(1.0, done / stage.planned) if stage.planned else (1.0 if stage.complete else None),
                "time": duration(spent) if _is_number(spent) and spent else "",
                "lead": _lead(run, stage),
            }
        )
    return rows


def _lead(run: Run, stage: Stage) -> str:
    """``test: 16.7% → 79.6%``: pass@1 of the stage's benchmarks; what a stage made whose work is data."""
    result = next((r for r in run.results if r.get("name") == stage.name), {})
    before, after = _figures_of(result, "before"), _figures_of(result, "after")
    words = [lead] if (lead := card_lead(stage)) else []
    for benchmark in dict.fromkeys([*before, *after]):
        values = [f[benchmark]["pass@1"] for f in (before, after) if _is_number(f.get(benchmark, {}).get("pass@1"))]
        if values:
            words.append(f"{benchmark} {' → '.join(map(_share, values))}")
    return ", ".join(words)

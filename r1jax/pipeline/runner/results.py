"""results.json: per stage, its benchmarks before and after. Derived: made again from the run's records at any time."""

from __future__ import annotations

import json
from typing import Any

import yaml
from etils import epath

from r1jax import config
from r1jax.pipeline import records
from r1jax.pipeline.records import evaluation_folder, stage_folder
from r1jax.pipeline.runner.comparing import write_comparisons


def read_figures(folder: epath.Path) -> dict[str, Any] | None:
    """The figures of a finished evaluation, or None."""
    return json.loads((folder / "figures.json").read_text()) if records.committed(folder) else None


def phases(workdir: epath.Path) -> dict[str, dict[str, float]]:
    """``{STAGE: part: {seconds, compiling}}`` over all sessions; a killed session's last phase is not in it."""
    total: dict[str, dict[str, float]] = {}
    for file in sorted((workdir / "timing").glob("session-*.json")):
        for phase, spent in json.loads(file.read_text()).items():
            before = total.get(phase, {})
            total[phase] = {name: before.get(name, 0.0) + seconds for name, seconds in spent.items()}
    return total


def time_table(workdir: epath.PathLike) -> tuple[list[str], list[list[Any]]]:
    """``(columns, rows)`` of where the time went: each phase, and below it what a stage timed within itself.

    Compiling is part of what is listed below it too: a program is compiled when it is first wanted.
    """
    workdir = epath.Path(workdir)
    rows: list[list[Any]] = []
    found = phases(workdir)
    for phase, spent in found.items():
        stage, _, part = phase.partition(": ")
        rows += [[phase, round(spent["seconds"], 1)], ["  of which compiling", round(spent["compiling"], 1)]]
        if part.startswith("benchmarks"):
            continue
        within: dict[str, float] = {}
        for file in sorted((workdir / "timing" / stage).glob("*.json")):
            for key, value in json.loads(file.read_text()).items():
                if key.endswith("_s") and key != "total_s":
                    within[key] = within.get(key, 0.0) + value
        rows += [[f"  {key.removesuffix('_s')}", round(value, 1)] for key, value in within.items()]
    return ["phase", "seconds"], [*rows, ["all", round(sum(spent["seconds"] for spent in found.values()), 1)]]


def stage_result(workdir: epath.Path, stage: config.StageSettings) -> dict[str, Any]:
    """One entry of results.json; ``complete`` is false, and ``steps`` counts the updates so far, until the stage is done."""
    folder = stage_folder(workdir, stage.name)
    measured = [f.name.removesuffix("-after") for f in sorted((folder / "evaluations").glob("*-after"))]
    figures = {
        when: {
            name: found
            for name in dict.fromkeys([*stage.benchmarks, *measured])
            if (found := read_figures(evaluation_folder(workdir, stage.name, name, when))) is not None
        }
        for when in ("before", "after")
    }
    record = records.read_record(folder, verify=False) if records.committed(folder) else None
    return {
        "name": stage.name,
        "kind": stage.kind,
        "complete": record is not None,
        **figures,
        "steps": record["steps"] if record else sum(map(records.committed, (folder / "updates").glob("*"))),
        "seconds": round(
            sum(s["seconds"] for phase, s in phases(workdir).items() if phase.startswith(f"{stage.name}: ")), 1
        ),
        "figures": record["figures"] if record else {},
    }


def write_results(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Writes results.json of a work directory, one entry per stage that was begun, and comparisons.json."""
    workdir = epath.Path(workdir)
    recipe = config.read_recipe(yaml.safe_load((workdir / "recipe.yaml").read_text()))
    results = [stage_result(workdir, stage) for stage in recipe.stages if stage_folder(workdir, stage.name).exists()]
    records.write_atomic(workdir / "results.json", json.dumps(results, indent=1, ensure_ascii=False))
    write_comparisons(recipe, workdir)
    return results

"""results.json: per stage, its benchmarks before and after. Derived: made again from the run's records at any time."""

from __future__ import annotations

import json
from typing import Any

import yaml
from etils import epath

from r1jax import config
from r1jax.pipeline import records


def stage_folder(workdir: epath.PathLike, stage: str) -> epath.Path:
    return epath.Path(workdir) / "stages" / stage


def evaluation_folder(workdir: epath.PathLike, stage: str, benchmark: str, when: str) -> epath.Path:
    """Where the figures of a benchmark lie; ``when`` is ``before`` or ``after``."""
    return stage_folder(workdir, stage) / "evaluations" / f"{benchmark}-{when}"


def read_figures(folder: epath.Path) -> dict[str, Any] | None:
    """The figures of a finished evaluation, or None."""
    return json.loads((folder / "figures.json").read_text()) if records.committed(folder) else None


def stage_seconds(workdir: epath.Path, stage: str) -> float:
    """Seconds that all sessions spent on a stage, its benchmarks included."""
    sessions = [json.loads(file.read_text()) for file in sorted((workdir / "timing").glob("session-*.json"))]
    return sum(seconds for session in sessions for phase, seconds in session.items() if phase.split(":")[0] == stage)


def stage_result(workdir: epath.Path, stage: config.StageSettings) -> dict[str, Any]:
    """One entry of results.json; ``complete`` is false, and ``steps`` counts the updates so far, until the stage is done."""
    folder = stage_folder(workdir, stage.name)
    figures = {
        when: {
            name: found
            for name in stage.benchmarks
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
        "seconds": round(stage_seconds(workdir, stage.name), 1),
        "figures": record["figures"] if record else {},
    }


def write_results(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Writes results.json of a work directory: one entry per stage that was begun."""
    workdir = epath.Path(workdir)
    recipe = config.read_recipe(yaml.safe_load((workdir / "recipe.yaml").read_text()))
    results = [stage_result(workdir, stage) for stage in recipe.stages if stage_folder(workdir, stage.name).exists()]
    records.write_atomic(workdir / "results.json", json.dumps(results, indent=1, ensure_ascii=False))
    return results

"""Reads the files of a run: only what has a commit record happened.

stages/<stage>/updates/<step>/metrics.json                     -> ``Stage.updates``, a column per metric
stages/<stage>/evaluations/<benchmark>-<step>/figures.json     -> ``Stage.evaluations``
stages/<stage>/held_out/<step>/metrics.json                    -> ``Stage.held_out``
stages/<stage>/waves/<rollout>-<wave>/rollouts.jsonl           -> ``Stage.waves`` (paths: they are read on demand)
stages/<stage>/views/<rollout>.json                            -> ``Stage.views`` (paths)
stages/<stage>/plan.json                                       -> ``Stage.planned``, where the recipe leaves it to the data
stages/<stage>/commit.json                                     -> ``Stage.complete``
stages/<stage>/card.json                                       -> ``Stage.card``
stages/<stage>/alarms.json                                     -> ``Stage.alarms``
timing/<stage>/<rollout>.json                                  -> ``Stage.timing``
timing/status.json, .lock                                      -> ``Run.state``
recipe.yaml, results.json, comparisons.json, notes.json, environment.json        -> ``Run``
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1jax.reporting import files
from r1jax.reporting.memo import Memo

RECORD = "commit.json"  # what makes a folder count; the runner writes it last


class NoRun(ValueError):
    """The folder holds no run."""


@dataclass(frozen=True)
class Evaluation:
    """One benchmark at one step. ``figures`` as evaluated; ``samples``: path of their JSONL, which may be missing."""

    benchmark: str
    step: int
    figures: Mapping[str, Any]
    samples: str


@dataclass(frozen=True)
class Stage:
    """One stage of a run, as far as it got.

    Attributes:
      updates: metric -> its values, one per entry of ``updates["step"]``, None where a step lacks it.
      evaluations: in order of step.
      held_out: what was measured on held-out examples, in order of step.
      timing: one dict per rollout, in order.
      waves: paths of the waves' folders, in order; one without a record did not happen.
      views: paths of the rollouts' views (``pipeline/grpo/views.py``), in order.
      planned: optimizer steps of the whole stage, or None where that is not known.
      alarms: ``(rollout, reasons)`` to distrust it (``pipeline/grpo/hacking.py``), in order.
      card: the data card of a finished stage that makes data (``pipeline/curation/card.py``), else None.
    """

    name: str
    kind: str = ""
    complete: bool = False
    planned: int | None = None
    updates: Mapping[str, list] = field(default_factory=lambda: {"step": []})
    evaluations: tuple[Evaluation, ...] = ()
    held_out: tuple[Evaluation, ...] = ()
    timing: tuple[Mapping[str, Any], ...] = ()
    waves: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    card: Mapping[str, Any] | None = None
    alarms: tuple[tuple[str, str], ...] = ()

    def benchmarks(self) -> dict[str, list[Evaluation]]:
        """Benchmark -> its evaluations in order of step; first those that were asked most often."""
        grouped: dict[str, list[Evaluation]] = {}
        for evaluation in self.evaluations:
            grouped.setdefault(evaluation.benchmark, []).append(evaluation)
        return dict(sorted(grouped.items(), key=lambda item: -len(item[1])))


@dataclass(frozen=True)
class Run:
    """A work directory.

    Attributes:
      compared: models held against each other, with paired intervals (``pipeline/runner/comparing.py``).
      unreadable: files that a record vouches for and that could not be read.
      state: ``complete``, ``running``, ``stopped``, ``failed``, ``killed``, or empty where nothing tells.
      reason: of a failure, in one line or more.
    """

    workdir: str
    name: str
    recipe: Mapping[str, Any]
    stages: tuple[Stage, ...]
    results: tuple[Mapping[str, Any], ...]
    notes: tuple[Mapping[str, Any], ...]
    environment: Mapping[str, Any]
    unreadable: tuple[str, ...]
    compared: tuple[Mapping[str, Any], ...] = ()
    state: str = ""
    reason: str = ""


# ---------------------------------------------------------------------------------------------- reading
class _Reader:
    """Reads JSON and remembers what could not be read, so that one damaged file does not cost the whole report."""

    def __init__(self, workdir: str):
        self.unreadable: list[str] = []
        self.memo = Memo(workdir)

    def json(self, path: str, kind: type, must_be_there: bool = False) -> Any:
        """The JSON value of a file if it is a ``kind``, else None."""
        try:
            value = self.memo.json(path)
        except (FileNotFoundError, NotADirectoryError):
            if must_be_there:
                self.unreadable.append(path)
            return None
        except (OSError, ValueError, RecursionError):
            value = None
        if not isinstance(value, kind):
            self.unreadable.append(path)
            return None
        return value

    def committed(self, folder: str, file: str) -> list[tuple[str, dict]]:
        """``(name, value of its file)`` of each folder in ``folder`` that has a commit record, in order of names."""

        def one(name: str) -> dict | None:
            path = f"{folder}/{name}/{file}"
            if not (self.memo.trusts_names and self.memo.known(path)) and not files.exists(f"{folder}/{name}/{RECORD}"):
                return None
            return self.json(path, dict, must_be_there=True)

        names = files.names(folder)
        return [(name, value) for name, value in zip(names, _each(one, names)) if value is not None]


def _each(read: Callable[[str], Any], names: Sequence[str]) -> Iterable[Any]:
    """``read`` of each name; many at a time where there are many, since a cold disk or a store answers slowly."""
    if len(names) < 100:
        return map(read, names)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        size = -(-len(names) // 64)
        parts = pool.map(lambda part: list(map(read, part)), (names[i : i + size] for i in range(0, len(names), size)))
        return [value for part in parts for value in part]


def _number(name: str) -> int:
    """The number that a folder's or file's name ends in, before any suffix; -1 if none."""
    digits = name.partition(".")[0].rpartition("-")[2]
    return int(digits) if digits.isdecimal() else -1


def columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, list]:
    """Rows to columns; a row that lacks a name has None there."""
    result: dict[str, list] = {}
    count = 0
    for row in rows:
        for name, value in row.items():
            if name not in result:
                result[name] = [None] * count
            result[name].append(value)
        count += 1
        if len(row) < len(result):
            for values in result.values():
                if len(values) < count:
                    values.append(None)
    return result


# ---------------------------------------------------------------------------------------------- stages
def _updates(reader: _Reader, folder: str) -> dict[str, list]:
    rows = [{"step": _number(name), **metrics} for name, metrics in reader.committed(folder, "metrics.json")]
    # A file may hold anything: what is shown against steps has whole, rising ones.
    rows = [row for row in rows if isinstance(row["step"], int)]
    rows.sort(key=lambda row: row["step"])
    return columns(rows) or {"step": []}


def _evaluations(reader: _Reader, folder: str, steps: int) -> tuple[Evaluation, ...]:
    """``steps``: updates done, the step of what is called ``-after``; ``-before`` is step 0, others end in their step."""
    found = []
    for name, figures in reader.committed(folder, "figures.json"):
        benchmark = str(figures.get("benchmark", name.rpartition("-")[0]))
        step = {"before": 0, "after": steps}.get(name.rpartition("-")[2], figures.get("step"))
        step = step if isinstance(step, int) else _number(name)
        found.append(Evaluation(benchmark, step, figures, f"{folder}/{name}/samples.jsonl"))
    return tuple(sorted(found, key=lambda e: (e.step, e.benchmark)))


def _held_out(reader: _Reader, folder: str) -> tuple[Evaluation, ...]:
    found = [(_number(name), metrics) for name, metrics in reader.committed(folder, "metrics.json")]
    return tuple(Evaluation("held out", step, metrics, "") for step, metrics in sorted(found, key=lambda f: f[0]))


def _stage(reader: _Reader, workdir: str, name: str, settings: Mapping[str, Any]) -> Stage:
    folder = f"{workdir}/stages/{name}"
    timing = f"{workdir}/timing/{name}"
    timings = _each(lambda file: reader.json(f"{timing}/{file}", dict), files.names(timing))
    planned = settings.get("steps") or (reader.json(f"{folder}/plan.json", dict) or {}).get("steps")
    updates = _updates(reader, f"{folder}/updates")
    complete = files.exists(f"{folder}/{RECORD}")
    alarms = reader.json(f"{folder}/alarms.json", dict) or {}
    return Stage(
        name=name,
        kind=str(settings.get("kind", "")),
        complete=complete,
        planned=planned if isinstance(planned, int) else None,
        updates=updates,
        evaluations=_evaluations(reader, f"{folder}/evaluations", len(updates["step"])),
        held_out=_held_out(reader, f"{folder}/held_out"),
        timing=tuple(timing for timing in timings if timing is not None),
        waves=tuple(
            f"{folder}/waves/{name}"
            for name in sorted(files.names(f"{folder}/waves"), key=lambda name: (name.partition("-")[0], _number(name)))
        ),
        views=tuple(f"{folder}/views/{name}" for name in files.names(f"{folder}/views") if name.endswith(".json")),
        card=reader.json(f"{folder}/card.json", dict) if complete else None,
        alarms=tuple(
            (rollout, "; ".join(map(str, why)) if isinstance(why, list) else str(why)) for rollout, why in alarms.items()
        ),
    )


def _recipe(reader: _Reader, workdir: str) -> Mapping[str, Any]:
    data = files.read_bytes(f"{workdir}/recipe.yaml")
    if data is None:
        return {}
    import yaml

    try:
        document = yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError):
        document = None
    if not isinstance(document, dict):
        reader.unreadable.append(f"{workdir}/recipe.yaml")
        return {}
    return document


def collect(workdir: str | os.PathLike, remember: bool = True) -> Run:
    """Reads a work directory, finished or not. ``remember``: leaves there what makes the next time quick.

    Raises:
      NoRun: there is no such folder, or neither a recipe nor stages in it.
    """
    workdir = os.fspath(workdir).rstrip("/")
    if not files.is_folder(workdir):
        raise NoRun(f"{workdir or repr(workdir)} is no folder; give the work directory of a run")
    reader = _Reader(workdir)
    recipe = _recipe(reader, workdir)
    on_disk = files.names(f"{workdir}/stages")
    if not recipe and not on_disk:
        raise NoRun(f"{workdir} holds no run: neither recipe.yaml nor stages/ is there")
    listed = recipe.get("stages")
    planned = {str(s.get("name")): s for s in (listed if isinstance(listed, list) else []) if isinstance(s, dict)}
    names = [*planned, *(name for name in on_disk if name not in planned)]  # the recipe's order
    stages = tuple(_stage(reader, workdir, name, planned.get(name, {})) for name in names)
    results = reader.json(f"{workdir}/results.json", list) or []
    compared = reader.json(f"{workdir}/comparisons.json", list) or []
    notes = reader.json(f"{workdir}/notes.json", list) or []
    environment = reader.json(f"{workdir}/environment.json", dict) or {}
    state, reason = _state(reader, workdir, stages)
    if remember:
        reader.memo.save()
    return Run(
        workdir=workdir,
        name=str(recipe.get("name") or os.path.basename(os.path.abspath(workdir))),
        recipe=recipe,
        stages=stages,
        results=tuple(_results(stages, [r for r in results if isinstance(r, dict)])),
        notes=tuple(n for n in notes if isinstance(n, dict)),
        compared=tuple(c for c in compared if isinstance(c, dict) and isinstance(c.get("figures"), dict)),
        environment=environment,
        unreadable=tuple(sorted(reader.unreadable)),
        state=state,
        reason=reason,
    )


def _state(reader: _Reader, workdir: str, stages: Sequence[Stage]) -> tuple[str, str]:
    """How the run stands, and why. A session that was killed has left ``running``; its lock is free then."""
    if stages and all(stage.complete for stage in stages):
        return "complete", ""
    status = reader.json(f"{workdir}/timing/status.json", dict) or {}
    state = str(status.get("state", ""))
    if state == "running" and files.is_locked(f"{workdir}/.lock") is False:
        state = "killed"
    return state if state in ("running", "stopped", "failed", "killed") else "", str(status.get("reason") or "")


def _results(stages: Iterable[Stage], written: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """``results.json`` (``written``), with the last evaluation so far for what it does not know yet."""
    known = {str(result.get("name")): result for result in written}
    for stage in stages:
        grouped = stage.benchmarks()
        result = known.pop(stage.name, {})
        if not grouped and not result:
            continue
        before, after = (dict(f) if isinstance(f := result.get(when), dict) else {} for when in ("before", "after"))
        if not (stage.complete and after):
            for name, evaluations in grouped.items():
                before.setdefault(name, evaluations[0].figures)
                if len(evaluations) > 1:
                    after.setdefault(name, evaluations[-1].figures)
        yield {
            "name": stage.name,
            "kind": result.get("kind", stage.kind),
            "before": before,
            "after": after,
            "steps": result.get("steps", len(stage.updates["step"])),
            "seconds": result.get("seconds"),
        }
    yield from known.values()


def write_metrics(run: Run) -> str:
    """Writes ``metrics.jsonl``, one object per update of every stage in order, and returns its path. Derived: it can be remade."""
    encode = json.JSONEncoder(allow_nan=True).encode
    lines = []
    for stage in run.stages:
        names = list(stage.updates)
        for values in zip(*stage.updates.values()):
            row = {name: value for name, value in zip(names, values) if value is not None}
            lines.append(encode({"stage": stage.name, **row}))
    path = f"{run.workdir}/metrics.jsonl"
    files.write_text(path, "".join(line + "\n" for line in lines))
    return path


def settings_of(run: Run, stage: str) -> dict[str, Any]:
    """A stage's keys in the recipe, flat: ``{"optimizer.lr": 3e-6, ...}``; empty where there is none."""

    def flat(prefix: str, value: Any) -> Iterable[tuple[str, Any]]:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                yield from flat(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            yield prefix, value

    stages = run.recipe.get("stages")
    stages = stages if isinstance(stages, list) else []
    return next((dict(flat("", s)) for s in stages if isinstance(s, dict) and str(s.get("name")) == stage), {})
